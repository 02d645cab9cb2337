package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// What became of a subscription's events: attempts, traces, dead letters, and
// delivering them again.

type subTestCmd struct{ subName }

func (c *subTestCmd) Run(env *environment) error {
	return c.show(env, http.MethodPost, c.path("/test"), nil, func(f fields) error {
		return facts(env, "status", f.at("status"), "took", f.at("latency_ms")+" ms", "error", f.at("error"), "answer", f.at("body"),
			"sent", f.at("request.method")+" "+f.at("request.url"))
	})
}

type subRotateSecretCmd struct{ subName }

func (c *subRotateSecretCmd) Run(env *environment) error {
	return c.show(env, http.MethodPost, c.path("/rotate-secret"), nil, func(f fields) error {
		_, err := fmt.Fprintln(env.stdout, f.at("secret"))
		return err
	})
}

type subAttemptsCmd struct {
	Since  string `placeholder:"TIME" help:"Only those since then."`
	Status string `placeholder:"STATUS" help:"Only those with this status."`
	Cursor string `placeholder:"CURSOR" help:"Only those of this event."`
	Limit  int    `default:"100" placeholder:"N" help:"How many to ask for at a time."`

	subName
}

func (c *subAttemptsCmd) Run(env *environment) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	for name, value := range map[string]string{"since": c.Since, "status": c.Status, "cursor": c.Cursor} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return c.pages(env, c.path("/attempts"), "attempts", "page", q, []column{
		field("TIME", "time"), field("STATUS", "status"), {"TOOK", func(f fields) string { return f.at("latency_ms") + " ms" }},
		field("EVENTS", "ids"), field("ERROR", "error"),
	}, "no attempts")
}

type subTraceCmd struct {
	Cursor string `placeholder:"CURSOR" xor:"event" help:"The event's cursor."`
	ID     string `name:"id" placeholder:"ID" xor:"event" help:"Or its id."`

	subName
}

func (c *subTraceCmd) Run(env *environment) error {
	q := url.Values{}
	switch {
	case c.Cursor != "":
		q.Set("cursor", c.Cursor)
	case c.ID != "":
		q.Set("id", c.ID)
	default:
		return usage("--cursor, --id", "want one of them")
	}
	return c.show(env, http.MethodGet, c.path("/trace?"+q.Encode()), nil, func(f fields) error {
		attempts, _ := f["attempts"].([]any)
		tried := ""
		for i, attempt := range attempts {
			a, _ := attempt.(map[string]any)
			if i > 0 {
				tried += ", "
			}
			tried += fields(a).at("status") + " at " + fields(a).at("time")
		}
		return facts(env, "cursor", f.at("cursor"), "state", f.at("state"), "since", f.at("since"), "attempts", tried)
	})
}

type subResendCmd struct {
	subName
	Cursor []string `arg:"" help:"The cursors of the events."`
}

func (c *subResendCmd) Run(env *environment) error {
	return c.ask(env, http.MethodPost, "/resend", map[string]any{"cursors": c.Cursor})
}

// subDeadCmd is about dead letters.
type subDeadCmd struct {
	List subDeadListCmd `cmd:"" default:"withargs" help:"List them (what sub dead NAME does too)."`
	Rm   subDeadRmCmd   `cmd:"" help:"Remove all of them."`
}

type subDeadListCmd struct {
	Since string `placeholder:"SINCE" help:"Only those since then."`
	Limit int    `default:"100" placeholder:"N" help:"How many to ask for at a time."`

	subName
}

func (c *subDeadListCmd) Run(env *environment) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	if c.Since != "" {
		q.Set("since", c.Since)
	}
	return c.pages(env, c.path("/dead"), "dead", "since", q, []column{
		field("TIME", "time"), field("CURSOR", "event.cursor"), field("ID", "event.id"), field("TYPE", "event.type"),
		field("ATTEMPTS", "attempts"), field("REASON", "reason"),
	}, "no dead letters")
}

type subDeadRmCmd struct{ subName }

func (c *subDeadRmCmd) Run(env *environment) error {
	return c.ask(env, http.MethodDelete, "/dead", json.RawMessage(nil))
}
