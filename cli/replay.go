package cli

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	longline "github.com/longline-push/longline/client/go"
)

type subReplayCmd struct {
	From     string   `required:"" placeholder:"SINCE" help:"After which event: earliest, a cursor or an RFC 3339 time."`
	To       string   `default:"latest" placeholder:"SINCE" help:"Up to which event: latest (the default), a cursor or an RFC 3339 time."`
	Types    []string `placeholder:"PATTERN" help:"Only these types of event, in place of the subscription's."`
	Filter   string   `placeholder:"EXPRESSION" help:"Only events for which this says yes, in place of the subscription's."`
	Callback bool     `help:"By the subscription's callback; without it, by whoever attaches to the name that is printed."`
	Rate     float64  `placeholder:"N" help:"Calls a second; half the subscription's if not given."`
	Follow   bool     `short:"f" help:"Print how it goes on, and end with it."`

	subName
}

func (c *subReplayCmd) Run(env *environment) error {
	body := map[string]any{"from": c.From, "to": c.To}
	if len(c.Types) > 0 {
		body["types"] = c.Types
	}
	if c.Filter != "" {
		body["filter"] = c.Filter
	}
	if c.Callback {
		body["callback"] = true
	}
	if c.Rate != 0 {
		body["rate"] = c.Rate
	}
	answer, err := c.call(env, http.MethodPost, c.path("/replay"), body)
	if err != nil {
		return err
	}
	f, err := parseFields(answer)
	if err != nil {
		return err
	}
	if !env.people(c.JSON) {
		err = printJSON(env, answer)
	} else {
		err = facts(env, "replay", f.at("name"), "from", f.at("from"), "to", f.at("to"))
	}
	if err != nil || !c.Follow {
		return err
	}
	return c.follow(env, f.at("name"))
}

// followEvery is how often it is asked how far a replay is.
const followEvery = time.Second

// follow prints, on stderr, how far a replay is until it is complete, as often
// as that changes.
func (c *subReplayCmd) follow(env *environment, name string) error {
	replay := subName{Name: name, clientFlags: c.clientFlags}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for said := ""; ; {
		answer, err := replay.call(env, http.MethodGet, replay.path(""), nil)
		if errors.Is(err, longline.ErrNotFound) {
			_, err = fmt.Fprintln(env.stderr, name, "is complete")
			return err
		}
		if err != nil {
			return err
		}
		f, err := parseFields(answer)
		if err != nil {
			return err
		}
		if now := progressOf(f); now != said {
			said = now
			if _, err := fmt.Fprintln(env.stderr, now); err != nil {
				return fmt.Errorf("print: %w", err)
			}
		}
		select {
		case <-env.ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// progressOf says how far a replay is, for people.
func progressOf(f fields) string {
	left, _ := strconv.ParseUint(f.at("status.lag.events"), 10, 64)
	text := fmt.Sprintf("%d events to go, %s", left, stateOf(f))
	if dead := f.at("status.dead"); dead != "" && dead != "0" {
		text += ", " + dead + " dead letters"
	}
	if trouble := f.at("status.callback.last_error"); trouble != "" {
		text += ", last error: " + trouble
	}
	return text
}
