package chaos

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// files is how many files each gateway may open. A crowd wants more.
const files = 1024

// crowd has many connect that never say what they want, so that a gateway has
// taken as many sockets as it takes, again and again.
func (w *world) crowd(d *dice) {
	for d.ctx.Err() == nil {
		d.wait(d.time(2*time.Second, 12*time.Second))
		if d.ctx.Err() != nil {
			return
		}
		i, t := d.below(len(w.gateways)), d.time(500*time.Millisecond, 4*time.Second)
		w.fault("gateway", "%[2]d connections that say nothing to node-%[3]d for %[1]v", t, files, i)
		var open []net.Conn
		for range files {
			c, err := net.DialTimeout("tcp", w.gateways[i].Addr, 100*time.Millisecond)
			if err != nil {
				break // it stands still, is away, or has enough
			}
			open = append(open, c)
			if len(open)%2 == 0 {
				_, _ = c.Write([]byte("GET /v1/ws?channel=acct-1 HTTP/1.1\r\nHost: "))
			}
		}
		d.wait(t)
		for _, c := range open {
			_ = c.Close()
		}
	}
}

// wantFlat waits until the gateways have given back what their clients took: no
// more goroutines and files than an idle one with some subscriptions has.
func (w *world) wantFlat() {
	const goroutines, open = 150, 120
	w.client.CloseIdleConnections()
	deadline := time.Now().Add(2 * time.Minute)
	for i, g := range w.gateways {
		for {
			has, err := w.metric(i, "go_goroutines")
			fds, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.PID()))
			if err == nil && err2 == nil && has <= goroutines && len(fds) <= open {
				w.t.Logf("node-%d has %d goroutines and %d files in the end", i, has, len(fds))
				break
			}
			if time.Now().After(deadline) {
				w.t.Errorf("node-%d keeps %d goroutines and %d files, without a client: %v %v", i, has, len(fds), err, err2)
				break
			}
			pause(w.t.Context(), 200*time.Millisecond)
		}
	}
}

// metric is the present value of a gauge of a gateway.
func (w *world) metric(i int, name string) (int, error) {
	var text string
	err := w.ask(w.t.Context(), 5*time.Second, "http://"+w.admins[i], http.MethodGet, "/metrics", nil, &text)
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return 0, fmt.Errorf("no metric %s: %w", name, err)
}
