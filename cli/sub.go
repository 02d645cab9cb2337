package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// subCmd is about durable subscriptions.
type subCmd struct {
	List         subListCmd         `cmd:"" help:"List all that the token covers."`
	Get          subGetCmd          `cmd:"" help:"Print one, and how it is."`
	Put          subPutCmd          `cmd:"" help:"Create or replace one."`
	Patch        subPatchCmd        `cmd:"" help:"Change some of one."`
	Delete       subDeleteCmd       `cmd:"" help:"Delete one."`
	Seek         subSeekCmd         `cmd:"" help:"Move one's cursor, back or forward."`
	Pause        subPauseCmd        `cmd:"" help:"Hold delivery; events wait."`
	Resume       subResumeCmd       `cmd:"" help:"Deliver again."`
	Test         subTestCmd         `cmd:"" help:"Send a test event by its callback, and print what came back."`
	RotateSecret subRotateSecretCmd `cmd:"" help:"Print a new secret for its callback; the old one signs for 24 h more."`
	Attempts     subAttemptsCmd     `cmd:"" help:"List what its callback was sent, the newest first."`
	Trace        subTraceCmd        `cmd:"" help:"Print what became of an event."`
	Resend       subResendCmd       `cmd:"" help:"Deliver single events again."`
	Replay       subReplayCmd       `cmd:"" help:"Deliver a range of its events again, and print how that goes on."`
	Dead         subDeadCmd         `cmd:"" help:"Dead letters: list or remove them."`
	Redrive      subRedriveCmd      `cmd:"" help:"Deliver dead letters again."`
}

// subName is a subscription's name and where its gateway is.
type subName struct {
	Name string `arg:"" help:"The subscription's name, e.g. crm-42."`

	clientFlags `embed:""`
}

func (s *subName) path(rest string) string {
	return "/v1/subscriptions/" + url.PathEscape(s.Name) + rest
}

// ask makes a call and prints the answer, if there is one.
func (s *subName) ask(env *environment, method, rest string, body any) error {
	answer, err := s.call(env, method, s.path(rest), body)
	if err != nil || len(answer) == 0 {
		return err
	}
	if !env.people(s.JSON) {
		return printJSON(env, answer)
	}
	f, err := parseFields(answer)
	if err != nil {
		return err
	}
	if f.at("channels") == "" {
		return printJSON(env, answer)
	}
	return describeSubscription(env, f)
}

// describeSubscription prints a subscription for people.
func describeSubscription(env *environment, f fields) error {
	callback := f.at("callback.url")
	if breaker := f.at("status.callback.breaker"); breaker != "" {
		callback += " (breaker " + breaker + ")"
	}
	if err := facts(env, "name", f.at("name"), "state", stateOf(f), "channels", f.at("channels"), "types", f.at("types"), "filter", f.at("filter"),
		"cursor", f.at("cursor"), "behind", behindOf(f), "window", f.at("window"), "partitions", f.at("group.partitions"),
		"callback", callback, "last error", f.at("status.callback.last_error"), "secret", f.at("secret"),
		"dead letters", f.at("status.dead"), "description", f.at("description"), "labels", f.at("labels")); err != nil {
		return err
	}
	return describeGroup(env, f)
}

// describeGroup prints who shares a subscription, and how far each partition is.
func describeGroup(env *environment, f fields) error {
	status, _ := f["status"].(map[string]any)
	for _, list := range []struct {
		name    string
		columns []column
	}{
		{"members", []column{field("MEMBER", "consumer"), field("BY", "transport"), field("NODE", "node"), field("PARTITIONS", "partitions"), field("SINCE", "since")}},
		{"partitions", []column{field("PARTITION", "partition"), field("MEMBER", "consumer"), field("CURSOR", "cursor"), {"BEHIND", behindIn("lag")}}},
	} {
		all, _ := status[list.name].([]any)
		if len(all) == 0 {
			continue
		}
		rows := make([]json.RawMessage, len(all))
		for i := range all {
			rows[i], _ = json.Marshal(all[i]) // it was JSON a moment ago
		}
		fmt.Fprintln(env.stdout)
		if err := table(env, list.columns, rows, ""); err != nil {
			return err
		}
	}
	return nil
}

// stateOf says how a subscription is and who has it.
func stateOf(f fields) string {
	state := f.at("status.state")
	if consumer := f.at("status.consumer"); consumer != "" {
		state += " by " + f.at("status.transport") + ": " + consumer + " on " + f.at("status.node")
	}
	return state
}

// behindOf says how far a subscription is behind.
func behindOf(f fields) string { return behindIn("status.lag")(f) }

// behindIn says how far behind the lag at a path is.
func behindIn(path string) func(f fields) string {
	return func(f fields) string {
		events, seconds := f.at(path+".events"), f.at(path+".seconds")
		if events == "" || events == "0" {
			return events
		}
		return events + " events, " + seconds + " s"
	}
}

type subListCmd struct {
	Prefix string `placeholder:"TEXT" help:"Only names that begin so."`
	State  string `placeholder:"STATE" help:"Only those that are live, pull, waiting, callback, offline, paused or disabled."`
	Label  string `placeholder:"KEY=VALUE" help:"Only those with this label."`

	clientFlags `embed:""`
}

func (c *subListCmd) Run(env *environment) error {
	q := url.Values{}
	for name, value := range map[string]string{"prefix": c.Prefix, "state": c.State, "label": c.Label} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return c.pages(env, "/v1/subscriptions", "subscriptions", "cursor", q, []column{
		field("NAME", "name"), field("STATE", "status.state"), field("CONSUMER", "status.consumer"),
		field("CHANNELS", "channels"), {"BEHIND", behindOf}, field("DEAD", "status.dead"),
	}, "no subscriptions")
}

type subGetCmd struct{ subName }

func (c *subGetCmd) Run(env *environment) error { return c.ask(env, http.MethodGet, "", nil) }

type subPutCmd struct {
	Channel    []string `placeholder:"CHANNEL" help:"A channel it follows; repeat it for more."`
	Types      []string `placeholder:"PATTERN" help:"Only these types of event."`
	Filter     string   `placeholder:"EXPRESSION" help:"Only events for which this says yes, e.g. 'event.data.amount > 100'."`
	Start      string   `placeholder:"SINCE" help:"Where it starts: latest (the default), earliest, a cursor or an RFC 3339 time."`
	Window     int      `placeholder:"N" help:"How many events may be unacknowledged at once."`
	Callback   string   `placeholder:"URL" help:"Where events are posted while nobody is attached."`
	Definition string   `placeholder:"JSON|-" help:"The whole definition, in place of the other flags; - reads it from stdin."`

	subName
}

func (c *subPutCmd) Run(env *environment) error {
	flags := len(c.Channel) > 0 || len(c.Types) > 0 || c.Filter != "" || c.Start != "" || c.Window != 0 || c.Callback != ""
	if c.Definition != "" {
		if flags {
			return usage("--definition", "is the whole; want none of the other flags with it")
		}
		definition, err := jsonOf(env, "--definition", c.Definition, `{"channels":["acct-42"]}`)
		if err != nil {
			return err
		}
		return c.ask(env, http.MethodPut, "", definition)
	}
	if len(c.Channel) == 0 {
		return usage("--channel", "required, unless --definition has it")
	}
	definition := map[string]any{"channels": c.Channel}
	if len(c.Types) > 0 {
		definition["types"] = c.Types
	}
	if c.Filter != "" {
		definition["filter"] = c.Filter
	}
	if c.Start != "" {
		definition["start"] = c.Start
	}
	if c.Window != 0 {
		definition["window"] = c.Window
	}
	if c.Callback != "" {
		definition["callback"] = map[string]string{"url": c.Callback}
	}
	return c.ask(env, http.MethodPut, "", definition)
}

// jsonOf is the JSON that a flag or argument holds, or stdin where that is "-".
func jsonOf(env *environment, flag, text, example string) (json.RawMessage, error) {
	raw := []byte(text)
	if text == "-" {
		var err error
		if raw, err = io.ReadAll(env.stdin); err != nil {
			return nil, fmt.Errorf("read %s: %w", flag, err)
		}
	}
	if !json.Valid(raw) {
		return nil, usage(flag, "not JSON; want e.g. '%s', or - for stdin", example)
	}
	return raw, nil
}

type subPatchCmd struct {
	subName
	Patch string `arg:"" help:"What to change, as JSON (RFC 7396): null takes a field away; - reads it from stdin."`
}

func (c *subPatchCmd) Run(env *environment) error {
	patch, err := jsonOf(env, "<patch>", c.Patch, `{"window":64}`)
	if err != nil {
		return err
	}
	return c.ask(env, http.MethodPatch, "", patch)
}

type subDeleteCmd struct{ subName }

func (c *subDeleteCmd) Run(env *environment) error { return c.ask(env, http.MethodDelete, "", nil) }

type subSeekCmd struct {
	subName
	To string `arg:"" help:"A cursor, earliest, latest or an RFC 3339 time."`
}

func (c *subSeekCmd) Run(env *environment) error {
	return c.ask(env, http.MethodPost, "/seek", map[string]string{"to": c.To})
}

type subPauseCmd struct{ subName }

func (c *subPauseCmd) Run(env *environment) error {
	return c.ask(env, http.MethodPost, "/pause", nil)
}

type subResumeCmd struct{ subName }

func (c *subResumeCmd) Run(env *environment) error {
	return c.ask(env, http.MethodPost, "/resume", nil)
}

type subRedriveCmd struct {
	subName
	ID  []string `arg:"" optional:"" help:"The ids of the events."`
	All bool     `help:"All of them."`
}

func (c *subRedriveCmd) Run(env *environment) error {
	if c.All == (len(c.ID) > 0) {
		return usage("redrive", "want the ids of events, or --all")
	}
	body := map[string]any{"all": true}
	if !c.All {
		body = map[string]any{"ids": c.ID}
	}
	return c.ask(env, http.MethodPost, "/dead/redrive", body)
}
