package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

// report is what listen says: on stdout a line for each event, for people or
// as JSON, and on stderr how the line is. Its methods may be called by several
// goroutines at once.
type report struct {
	env    *environment
	people bool
	what   string // is listened to
	where  string
	whom   string // the token is for

	mu    sync.Mutex
	ready bool // was said
}

func (c *listenCmd) report(env *environment) *report {
	r := &report{env: env, people: env.people(c.JSON), what: strings.Join(c.Channel, ", "), where: c.URL, whom: subjectOf(c.Token)}
	if c.Subscription != "" {
		r.what = "subscription " + c.Subscription
	}
	if c.ForwardTo != "" {
		r.where += ", forwarding to " + c.ForwardTo
	}
	return r
}

// subjectOf says whom a token is for, as far as it says so itself.
func subjectOf(token string) string {
	claims, err := claimsOf(token)
	if err != nil {
		return "without a token"
	}
	f, err := parseFields(claims)
	if err != nil || f.at("sub") == "" {
		return "as a token without sub"
	}
	return "as " + f.at("sub")
}

// state tells when events begin to come, and when they don't because another
// consumer has them.
func (r *report) state(s longline.State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch s.Phase {
	case longline.Live:
		if !r.ready {
			r.ready = true
			fmt.Fprintf(r.env.stderr, "%s %s at %s %s (%s)\n", paint(r.env.stderr, green, "Ready:"), r.what, r.where, r.whom, s.Transport)
		}
	case longline.Standby:
		r.ready = false
		fmt.Fprintf(r.env.stderr, "%s another consumer is attached to %s; this one is next\n", paint(r.env.stderr, yellow, "Standing by:"), r.what)
	}
}

func (r *report) gap(g longline.Gap) {
	fmt.Fprintf(r.env.stderr, "%s in %s: the events after %s up to %s won't come (%s)\n", paint(r.env.stderr, yellow, "gap"), g.Channel, g.From, g.To, g.Reason)
}

func (r *report) reject(e longline.Event, err error) {
	fmt.Fprintf(r.env.stderr, "event %s %s: %v\n", e.ID, paint(r.env.stderr, red, "rejected"), err)
}

// event prints one that came.
func (r *report) event(e longline.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.people {
		return printLine(r.env, e.Raw)
	}
	return printLine(r.env, []byte(r.line(e)+" "+paint(r.env.stdout, faint, string(e.Data))))
}

// forwarded prints one that was posted: status is 0 where nothing was answered.
func (r *report) forwarded(e longline.Event, status int, took time.Duration, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.people {
		line := struct {
			Type   string  `json:"type"`
			ID     string  `json:"id"`
			Cursor string  `json:"cursor"`
			Status int     `json:"status,omitempty"`
			MS     float64 `json:"latency_ms"`
			Error  string  `json:"error,omitempty"`
		}{Type: e.Type, ID: e.ID, Cursor: e.Cursor, Status: status, MS: float64(took.Microseconds()) / 1000}
		if err != nil {
			line.Error = err.Error()
		}
		text, encodeErr := json.Marshal(line)
		if encodeErr != nil {
			return encodeErr
		}
		return printLine(r.env, text)
	}
	result, c := fmt.Sprintf("[%d in %d ms]", status, took.Milliseconds()), red
	switch {
	case err != nil:
		result = fmt.Sprintf("[%v after %d ms]", err, took.Milliseconds())
	case status >= 200 && status <= 299:
		c = green
	}
	return printLine(r.env, []byte(r.line(e)+" "+paint(r.env.stdout, c, printable(result))))
}

func (r *report) line(e longline.Event) string {
	about := e.Subject
	if about == "" {
		about = e.Key
	}
	if about == "" {
		about = e.ID
	}
	return "--> " + printable(e.Type) + " " + printable(about)
}
