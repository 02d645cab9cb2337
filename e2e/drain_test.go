package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/longline-push/longline/broker/redis/redistest"
)

// call sends a request and returns the answer's status and body; status 0 if
// there is none.
func (g *gateway) call(token, method, path, body string) (int, string) {
	req, err := http.NewRequest(method, g.url+path, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

// want is call where only one status will do.
func (g *gateway) want(status int, token, method, path, body string) string {
	g.t.Helper()
	got, text := g.call(token, method, path, body)
	if got != status {
		g.t.Fatalf("%s %s: got %d %s, want %d", method, path, got, text, status)
	}
	return text
}

// TestDrain ends a gateway while somebody waits in a pull, one callback is in
// flight that will be answered, and one that never is.
func TestDrain(t *testing.T) {
	arrived, release := make(chan string, 10), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		arrived <- r.URL.Path
		if r.URL.Path == "/slow" {
			<-release
			return
		}
		<-r.Context().Done()
	}))
	defer receiver.Close()
	g := startGateway(t, "embedded:"+t.TempDir(), "--callback-allow-cidr", "127.0.0.0/8")
	admin := token(t)

	g.want(201, admin, "PUT", "/v1/subscriptions/puller", `{"channels":["quiet"]}`)
	for _, name := range []string{"slow", "stuck"} {
		g.want(201, admin, "PUT", "/v1/subscriptions/"+name,
			fmt.Sprintf(`{"channels":["a"],"callback":{"url":"%s/%s","mode":"always","timeout":"60s"}}`, receiver.URL, name))
	}
	g.want(200, admin, "POST", "/v1/channels/a/events", `{"type":"t"}`)
	<-arrived
	<-arrived
	pulled := make(chan string, 1)
	go func() {
		status, text := g.call(admin, "GET", "/v1/subscriptions/puller/events?wait=50s", "")
		pulled <- fmt.Sprint(status, " ", text)
	}()
	redistest.Eventually(t, func() error {
		if text := g.want(200, admin, "GET", "/v1/subscriptions/puller", ""); !strings.Contains(text, `"state":"pull"`) {
			return fmt.Errorf("nobody pulls: %s", text)
		}
		return nil
	})

	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	if got := <-pulled; !strings.HasPrefix(got, `200 {"events":[]`) {
		t.Errorf("the pull that waited got %q, want 200 and no events", got)
	}
	close(release)
	<-g.exited
	if code := g.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit status %d, want 0:\n%s", code, g.output)
	}

	g.launch()
	g.ready()
	var slow struct {
		Cursor string
		Status struct{ Lag struct{ Events int } }
	}
	if err := json.Unmarshal([]byte(g.want(200, admin, "GET", "/v1/subscriptions/slow", "")), &slow); err != nil {
		t.Fatal(err)
	}
	if slow.Status.Lag.Events != 0 {
		t.Errorf("the call that was answered while draining was not committed: %+v", slow)
	}
}
