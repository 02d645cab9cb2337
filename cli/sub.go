package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
)

// subCmd is about durable subscriptions.
type subCmd struct {
	List    subListCmd    `cmd:"" help:"Print all that the token covers, one a line."`
	Get     subGetCmd     `cmd:"" help:"Print one, and how it is."`
	Put     subPutCmd     `cmd:"" help:"Create or replace one."`
	Delete  subDeleteCmd  `cmd:"" help:"Delete one."`
	Seek    subSeekCmd    `cmd:"" help:"Move one's cursor, back or forward."`
	Pause   subPauseCmd   `cmd:"" help:"Hold delivery; events wait."`
	Resume  subResumeCmd  `cmd:"" help:"Deliver again."`
	Dead    subDeadCmd    `cmd:"" help:"Print the dead letters, one a line."`
	Redrive subRedriveCmd `cmd:"" help:"Deliver dead letters again."`
}

// subName is a subscription's name and where its gateway is.
type subName struct {
	Name string `arg:"" help:"The subscription's name, e.g. crm-42."`

	clientFlags `embed:""`
}

func (s *subName) path(rest string) string {
	return "/v1/subscriptions/" + url.PathEscape(s.Name) + rest
}

// call makes a call and prints the answer, if there is one.
func (s *subName) call(env *environment, method, rest string, body any) error {
	client, err := s.client(env)
	if err != nil {
		return err
	}
	var answer json.RawMessage
	if err := client.Do(env.ctx, method, s.path(rest), body, &answer); err != nil {
		return err
	}
	if len(answer) == 0 {
		return nil
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, answer, "", "  "); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return printLine(env, indented.Bytes())
}

type subListCmd struct {
	Prefix string `placeholder:"TEXT" help:"Only names that begin so."`
	State  string `placeholder:"STATE" help:"Only those that are live, pull, waiting, callback, offline, paused or disabled."`

	clientFlags `embed:""`
}

func (c *subListCmd) Run(env *environment) error {
	q := url.Values{}
	if c.Prefix != "" {
		q.Set("prefix", c.Prefix)
	}
	if c.State != "" {
		q.Set("state", c.State)
	}
	return pages(env, &c.clientFlags, "/v1/subscriptions", "subscriptions", "cursor", q)
}

// pages prints a list's entries, one a line, page by page.
func pages(env *environment, f *clientFlags, path, entries, next string, q url.Values) error {
	client, err := f.client(env)
	if err != nil {
		return err
	}
	for {
		var page map[string]json.RawMessage
		if err := client.Do(env.ctx, http.MethodGet, path+"?"+q.Encode(), nil, &page); err != nil {
			return err
		}
		var list []json.RawMessage
		if err := json.Unmarshal(page[entries], &list); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		for _, entry := range list {
			if err := printLine(env, entry); err != nil {
				return err
			}
		}
		var more string
		if err := json.Unmarshal(page["next"], &more); err != nil || more == "" {
			return nil
		}
		q.Set(next, more)
	}
}

type subGetCmd struct{ subName }

func (c *subGetCmd) Run(env *environment) error { return c.call(env, http.MethodGet, "", nil) }

type subPutCmd struct {
	Channel  []string `placeholder:"CHANNEL" help:"A channel it follows; repeat it for more."`
	Types    []string `placeholder:"PATTERN" help:"Only these types of event."`
	Filter   string   `placeholder:"EXPRESSION" help:"Only events for which this says yes, e.g. 'event.data.amount > 100'."`
	Start    string   `placeholder:"SINCE" help:"Where it starts: latest (the default), earliest, a cursor or an RFC 3339 time."`
	Window   int      `placeholder:"N" help:"How many events may be unacknowledged at once."`
	Callback string   `placeholder:"URL" help:"Where events are posted while nobody is attached."`
	JSON     string   `name:"json" placeholder:"JSON|-" help:"The whole definition, in place of the other flags; - reads it from stdin."`

	subName
}

func (c *subPutCmd) Run(env *environment) error {
	flags := len(c.Channel) > 0 || len(c.Types) > 0 || c.Filter != "" || c.Start != "" || c.Window != 0 || c.Callback != ""
	if c.JSON != "" {
		if flags {
			return usage("--json", "is the whole definition; want none of the other flags with it")
		}
		definition := []byte(c.JSON)
		if c.JSON == "-" {
			var err error
			if definition, err = io.ReadAll(env.stdin); err != nil {
				return fmt.Errorf("read definition: %w", err)
			}
		}
		if !json.Valid(definition) {
			return usage("--json", "not JSON; want e.g. '{\"channels\":[\"acct-42\"]}', or - for stdin")
		}
		return c.call(env, http.MethodPut, "", json.RawMessage(definition))
	}
	if len(c.Channel) == 0 {
		return usage("--channel", "required, unless --json has it")
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
	return c.call(env, http.MethodPut, "", definition)
}

type subDeleteCmd struct{ subName }

func (c *subDeleteCmd) Run(env *environment) error { return c.call(env, http.MethodDelete, "", nil) }

type subSeekCmd struct {
	subName
	To string `arg:"" help:"A cursor, earliest, latest or an RFC 3339 time."`
}

func (c *subSeekCmd) Run(env *environment) error {
	return c.call(env, http.MethodPost, "/seek", map[string]string{"to": c.To})
}

type subPauseCmd struct{ subName }

func (c *subPauseCmd) Run(env *environment) error {
	return c.call(env, http.MethodPost, "/pause", nil)
}

type subResumeCmd struct{ subName }

func (c *subResumeCmd) Run(env *environment) error {
	return c.call(env, http.MethodPost, "/resume", nil)
}

type subDeadCmd struct {
	Since string `placeholder:"SINCE" help:"Only those since then."`
	Limit int    `default:"100" placeholder:"N" help:"How many to ask for at a time."`

	subName
}

func (c *subDeadCmd) Run(env *environment) error {
	q := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	if c.Since != "" {
		q.Set("since", c.Since)
	}
	return pages(env, &c.clientFlags, c.path("/dead"), "dead", "since", q)
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
	return c.call(env, http.MethodPost, "/dead/redrive", body)
}
