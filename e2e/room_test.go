package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// There is no more room for the files of a gateway, and is again later: the kernel
// says so at a size of theirs. Publishes are refused meanwhile, the log says why,
// whoever reads goes on, and all that was answered is delivered once, in order,
// also by the next start.
func TestFullDisk(t *testing.T) {
	for name, left := range map[string]uint64{"little is left": 64 << 10, "nothing is left": 0} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			without(t, dir, unix.RLIMIT_FSIZE, func() uint64 { return largest(t, dir) + left }, unix.EFBIG)
		})
	}
}

// The same for descriptors: no more can be had, and those there are stay.
func TestNoDescriptorLeft(t *testing.T) {
	without(t, t.TempDir(), unix.RLIMIT_NOFILE, func() uint64 { return 0 }, unix.EMFILE)
}

// without has a gateway get by with so much of a resource for a while.
func without(t *testing.T, dir string, resource int, enough func() uint64, why error) {
	g := startGateway(t, "embedded:"+dir)
	others := gather(t, 4, 2, g)
	p := publish(t, others.channels, g)
	p.more(200)
	var before unix.Rlimit
	if err := unix.Prlimit(g.cmd.Process.Pid, resource, nil, &before); err != nil {
		t.Fatal(err)
	}
	limit := func(most uint64) {
		t.Helper()
		if err := unix.Prlimit(g.cmd.Process.Pid, resource, &unix.Rlimit{Cur: most, Max: before.Max}, nil); err != nil {
			t.Fatal(err)
		}
	}
	c := &caller{g: g, bearer: token(t), client: http.Client{Transport: &http.Transport{}}}
	t.Cleanup(c.client.CloseIdleConnections)
	c.events("acct-0") // has it connected: nobody new comes in without descriptors
	limit(enough())
	c.wantRefused()
	if text := c.events("acct-0"); !strings.Contains(text, `"event-0"`) {
		t.Errorf("the log reads %.200q", text)
	}
	if resp, text := c.call(http.MethodGet, "/livez", ""); resp.StatusCode != http.StatusOK {
		t.Errorf("/livez answers %s: %s", resp.Status, text)
	}
	limit(before.Cur)
	p.more(200)
	acknowledged := p.halt()
	others.wantAll(acknowledged)
	if said := g.output.String(); !strings.Contains(said, "no room for the broker's data") || !strings.Contains(said, why.Error()) {
		t.Errorf("the log doesn't say %q:\n%s", why, said)
	}
	g.kill()
	g.launch()
	g.ready()
	c.wantStored(acknowledged)
}

// largest is the size of a directory's largest file.
func largest(t *testing.T, dir string) (size uint64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err == nil {
			size = max(size, uint64(info.Size()))
		}
	}
	return size
}

// caller calls a gateway over one connection.
type caller struct {
	g      *gateway
	bearer string
	client http.Client
}

func (c *caller) call(method, path, body string) (*http.Response, string) {
	c.g.t.Helper()
	req, err := http.NewRequest(method, c.g.url+path, strings.NewReader(body))
	if err != nil {
		c.g.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.bearer)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		c.g.t.Fatalf("%s %s: no answer: %v\n%s", method, path, err, c.g.output)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.g.t.Fatal(err)
	}
	return resp, string(text)
}

// wantRefused publishes events that are large, which need more room and more files,
// until one is refused with 503 and Retry-After.
func (c *caller) wantRefused() {
	c.g.t.Helper()
	body := fmt.Sprintf(`{"source":"/e2e","type":"e2e.large","data":%q}`, strings.Repeat("x", 200<<10))
	for range 1000 {
		resp, text := c.call(http.MethodPost, "/v1/channels/large/events", body)
		switch {
		case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
			return
		case resp.StatusCode != http.StatusOK:
			c.g.t.Fatalf("answered %s, Retry-After %q: %s", resp.Status, resp.Header.Get("Retry-After"), text)
		}
	}
	c.g.t.Fatal("nothing is refused")
}

// events reads the ids of a channel from its beginning.
func (c *caller) events(channel string) string {
	c.g.t.Helper()
	var all strings.Builder
	for since := "earliest"; ; {
		var page struct {
			Events []struct{ ID string }
			Cursor string
		}
		resp, text := c.call(http.MethodGet, "/v1/channels/"+channel+"/events?since="+url.QueryEscape(since), "")
		if err := json.Unmarshal([]byte(text), &page); err != nil || resp.StatusCode != http.StatusOK {
			c.g.t.Fatalf("read %s: %s: %s", channel, resp.Status, text)
		}
		if len(page.Events) == 0 {
			return all.String()
		}
		for _, e := range page.Events {
			fmt.Fprintf(&all, "%q\n", e.ID)
		}
		since = page.Cursor
	}
}

// wantStored wants all that was acknowledged in the logs, in order.
func (c *caller) wantStored(acknowledged map[string][]string) {
	c.g.t.Helper()
	for channel, ids := range acknowledged {
		rest := c.events(channel)
		for _, id := range ids {
			var found bool
			if _, rest, found = strings.Cut(rest, fmt.Sprintf("%q", id)); !found {
				c.g.t.Errorf("%s of %s isn't there, or not in its place", id, channel)
				break
			}
		}
	}
}
