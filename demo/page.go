package demo

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/longline-push/longline/gateway/console"
)

//go:embed static
var static embed.FS

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// listen opens the page's port: on this machine's loopback alone.
func listen(addr string) (net.Listener, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%q; want HOST:PORT, e.g. 127.0.0.1:8090", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("%q; the demo is for this machine alone: want 127.0.0.1:PORT", addr)
	}
	l, err := net.Listen("tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%q is in use; want another port, or 127.0.0.1:0 for one that is free", addr)
	}
	return l, err
}

// routes is what the page's server answers.
func (d *Demo) routes(addr string) http.Handler {
	files, err := fs.Sub(static, "static")
	if err != nil {
		panic(err) // the embedded directory has no such name
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServerFS(files))
	mux.Handle("GET /console/", console.Handler()) // the common look of all pages
	mux.HandleFunc("GET /looks", d.looks)
	for button, press := range d.buttons() {
		mux.HandleFunc("POST /press/"+button, func(w http.ResponseWriter, r *http.Request) {
			press(r)
			w.WriteHeader(http.StatusNoContent)
		})
	}
	_, port, _ := net.SplitHostPort(addr) // a listener's, so it has one
	known := map[string]bool{addr: true, "localhost:" + port: true}
	guarded := http.NewCrossOriginProtection().Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !known[r.Host] { // a web page's name that was made to point here
			http.Error(w, "want the Host "+addr, http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		guarded.ServeHTTP(w, r)
	})
}

// buttons are what may be done, each by a POST to /press/NAME.
func (d *Demo) buttons() map[string]func(*http.Request) {
	line := func(plugged bool, said string) func(*http.Request) {
		return func(*http.Request) {
			d.board.note(said)
			d.crew.change(func(is, _ *bool) { *is = plugged })
		}
	}
	url := func(broken bool, said string) func(*http.Request) {
		return func(*http.Request) {
			d.board.note(said)
			d.receiver.broken.Store(broken)
		}
	}
	second := func(works bool, said string) func(*http.Request) {
		return func(*http.Request) {
			d.board.note(said)
			d.crew.change(func(_, is *bool) { *is = works })
		}
	}
	return map[string]func(*http.Request){
		"unplug":  line(false, "You unplugged the CRM’s line."),
		"plug":    line(true, "You plugged the CRM’s line in."),
		"break":   url(true, "You broke the CRM’s callback URL: it answers 500."),
		"repair":  url(false, "You repaired the CRM’s callback URL."),
		"hire":    second(true, "You added a second worker."),
		"dismiss": second(false, "You sent the second worker home."),
		"kill":    func(r *http.Request) { d.kill(r.Context()) },
	}
}

// looks streams what the board shows, from two minutes ago on, as Server-Sent
// Events; a page that comes back gets what it has missed. With ?once it is the
// newest look alone, as JSON.
func (d *Demo) looks(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("once") {
		looks, _ := d.board.since(-1)
		w.Header().Set("Content-Type", "application/json")
		if len(looks) > 0 {
			_ = json.NewEncoder(w).Encode(looks[len(looks)-1]) // who asked may be gone
		}
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	last, err := strconv.ParseFloat(r.Header.Get("Last-Event-ID"), 64)
	if err != nil || last > time.Since(d.board.began).Seconds() {
		last = -1 // it saw nothing yet, or another demo
	}
	for {
		looks, more := d.board.since(last)
		if len(looks) > 0 {
			last = looks[len(looks)-1].Seconds
			text, err := json.Marshal(looks)
			if err != nil {
				return
			}
			if _, err := fmt.Fprintf(w, "id: %v\ndata: %s\n\n", last, text); err != nil {
				return
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
		}
		select {
		case <-r.Context().Done():
			return
		case <-more:
		}
	}
}
