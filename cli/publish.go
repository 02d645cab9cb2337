package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/longline-push/longline/event"

	longline "github.com/longline-push/longline/client/go"
)

// publishCmd appends events to a channel and prints where they are.
type publishCmd struct {
	Channel string `arg:"" help:"The channel, e.g. acct-42."`

	Type    string `placeholder:"TYPE" help:"What happened, e.g. email.opened."`
	Data    string `placeholder:"JSON|-" help:"The event's data; - reads it from stdin."`
	ID      string `name:"id" placeholder:"ID" help:"The event's id; made up if not given."`
	Source  string `placeholder:"URI" help:"Where it happened."`
	Subject string `placeholder:"TEXT" help:"To whom or what it happened."`
	Key     string `placeholder:"KEY" help:"Events of one key stay in order (partitionkey)."`
	NDJSON  bool   `name:"ndjson" help:"Publish the events on stdin, one JSON object a line, as listen prints them or in the short form."`

	clientFlags `embed:""`
}

// Run publishes.
func (c *publishCmd) Run(env *environment) error {
	if err := event.CheckChannel(c.Channel); err != nil {
		return usage("<channel>", "%v", err)
	}
	client, err := c.client(env)
	if err != nil {
		return err
	}
	if c.NDJSON {
		if c.Type != "" || c.Data != "" || c.ID != "" || c.Source != "" || c.Subject != "" || c.Key != "" {
			return usage("--ndjson", "reads whole events; want none of --type, --data, --id, --source, --subject and --key with it")
		}
		return c.stream(env, client, env.stdin)
	}
	if c.Type == "" {
		return usage("--type", "required, e.g. --type email.opened")
	}
	e := longline.Event{Type: c.Type, ID: c.ID, Source: c.Source, Subject: c.Subject, Key: c.Key}
	if c.Data != "" {
		e.Data = json.RawMessage(c.Data)
		if c.Data == "-" {
			if e.Data, err = io.ReadAll(env.stdin); err != nil {
				return fmt.Errorf("read data: %w", err)
			}
		}
		if !json.Valid(e.Data) {
			return usage("--data", "not JSON; want e.g. '{\"ip\":\"203.0.113.7\"}', or - for stdin")
		}
	}
	return c.send(env, client, []longline.Event{e})
}

// maxPublish is how many lines go into one request: fewer than a request
// takes, so that the first of many are under way soon.
const maxPublish = 500

// stream publishes lines as they come, several at once where they come fast.
func (c *publishCmd) stream(env *environment, client *longline.Client, stdin io.Reader) error {
	in := bufio.NewReaderSize(stdin, 1<<16)
	var events []longline.Event
	for number := 1; ; number++ {
		line, err := in.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			e, bad := readEvent(line)
			if bad != nil {
				// What came before is published: it was read as well.
				return errors.Join(c.send(env, client, events), fmt.Errorf("line %d: %w", number, bad))
			}
			events = append(events, e)
		}
		if err != nil || len(events) == maxPublish || in.Buffered() == 0 {
			if failed := c.send(env, client, events); failed != nil {
				return failed
			}
			events = events[:0]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read stdin: %w", err)
		}
	}
}

func (c *publishCmd) send(env *environment, client *longline.Client, events []longline.Event) error {
	if len(events) == 0 {
		return nil
	}
	people := env.people(c.JSON)
	published, err := client.Publish(env.ctx, c.Channel, events...)
	for _, p := range published {
		if people {
			again := ""
			if p.Duplicate {
				again = " (was published before)"
			}
			if err := printLine(env, []byte(p.Cursor+" "+printable(p.ID)+again)); err != nil {
				return err
			}
			continue
		}
		line, encodeErr := json.Marshal(p)
		if encodeErr != nil {
			return encodeErr
		}
		if err := printLine(env, line); err != nil {
			return err
		}
	}
	return c.hint(err)
}

// readEvent reads an event in the short form or as it was received.
func readEvent(line []byte) (longline.Event, error) {
	var e longline.Event
	var rest map[string]json.RawMessage
	if err := json.Unmarshal(line, &rest); err != nil || rest == nil {
		return e, errors.New("not a JSON object")
	}
	// These are the gateway's to set.
	for _, name := range []string{"specversion", "channel", "cursor"} {
		delete(rest, name)
	}
	var when time.Time
	for name, to := range map[string]any{
		"type": &e.Type, "id": &e.ID, "source": &e.Source, "subject": &e.Subject, "partitionkey": &e.Key,
		"datacontenttype": &e.ContentType, "dataschema": &e.DataSchema, "time": &when, "data_base64": &e.Binary,
	} {
		if value, ok := rest[name]; ok {
			if err := json.Unmarshal(value, to); err != nil {
				return e, fmt.Errorf("%s: %w", name, err)
			}
			delete(rest, name)
		}
	}
	e.Time = when
	e.Data = rest["data"]
	delete(rest, "data")
	if e.Type == "" {
		return e, errors.New("event has no type")
	}
	e.Extensions = rest
	return e, nil
}
