package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// TestSecretsDoNotStandOnTheCommandLine: what was given by flag is warned
// about, and neither ps nor a profile shows it.
func TestSecretsDoNotStandOnTheCommandLine(t *testing.T) {
	const secret, key = "a_secret_of_thirty-two_bytes,_ok.", "another_one_of_thirty-two_bytes,_ok"
	r := startProcess(t, filepath.Join(t.TempDir(), "data"), "--jwt-secret", secret, "--secret-key="+key, "--admin-listen", "127.0.0.1:0")
	admin := r.out.find(t, `admin listener" address=(\S+)`)
	for _, flag := range []string{"--jwt-secret", "--secret-key"} {
		if said := r.out.String(); !strings.Contains(said, flag+" on a command line") || !strings.Contains(said, flag+"-file FILE") {
			t.Errorf("no warning about %s in:\n%s", flag, said)
		}
	}
	resp, err := http.Get("http://" + admin + "/debug/pprof/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	profile, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string][]byte{"the profile": profile}
	if runtime.GOOS == "linux" {
		if shown["ps"], err = os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", r.process.Process.Pid)); err != nil {
			t.Fatal(err)
		}
	}
	for what, line := range shown {
		if got := string(line); strings.Contains(got, secret) || strings.Contains(got, key) {
			t.Errorf("%s shows %q", what, got)
		}
	}
	// The gateway itself has not lost it.
	if token := mustRun(t, "token", "--jwt-secret", secret, "--admin"); r.status(r.out.find(t, `msg=serving address=(\S+)`), token) != http.StatusOK {
		t.Errorf("a token made with the secret isn't taken")
	}
	if err := r.stop(); err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// status is what a request for the nodes is answered with.
func (r *running) status(address, token string) int {
	r.t.Helper()
	r.url, r.token = "http://"+address, strings.TrimSpace(token)
	status, _ := r.do("GET", "/v1/nodes", "")
	return status
}

func TestSecretsFromFiles(t *testing.T) {
	const secret = "a secret of thirty-two bytes, ok."
	file := filepath.Join(t.TempDir(), "jwt")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := startProcess(t, filepath.Join(t.TempDir(), "data"), "--jwt-secret-file", file, "--secret-key-file", file)
	address := r.out.find(t, `msg=serving address=(\S+)`)
	if strings.Contains(r.out.String(), "command line") {
		t.Errorf("warned of a file:\n%s", r.out)
	}
	for _, args := range [][]string{{"--jwt-secret", secret}, {"--jwt-secret-file", file}} {
		if got := r.status(address, mustRun(t, append([]string{"token", "--admin"}, args...)...)); got != http.StatusOK {
			t.Errorf("a token by %s: %d", args[0], got)
		}
	}
}

func TestVariablesThatDoNotConfigureAreNotRead(t *testing.T) {
	newCLIGateway(t)
	for _, name := range []string{"LONGLINE_VERSION", "LONGLINE_ID", "LONGLINE_ALL", "LONGLINE_CHANNEL", "LONGLINE_JSON", "LONGLINE_ADMIN"} {
		t.Setenv(name, "1")
	}
	if out := mustRun(t, "publish", "c", "--type", "t"); strings.Contains(out, `"id":"1"`) || out == "" {
		t.Errorf("published %s", out)
	}
	out := mustRun(t, "serve", "--help")
	for _, want := range []string{"$LONGLINE_LISTEN", "[127.0.0.1:8080, ", "0 for 80 % of"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("help doesn't say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "%%") || strings.Contains(mustRun(t, "publish", "--help"), "LONGLINE_ID") {
		t.Errorf("help shows what is not so:\n%s", out)
	}
}
