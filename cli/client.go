package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	longline "github.com/longline-push/longline/client/go"
)

// clientFlags are what every command needs that talks to a gateway.
type clientFlags struct {
	URL       string `name:"url" placeholder:"URL" help:"The gateway: the context's or http://127.0.0.1:8080 if not given."`
	Token     string `placeholder:"JWT" help:"The token to show it; the context's if not given."`
	TokenFile string `name:"token-file" placeholder:"FILE" help:"A file that holds that token."`
	Context   string `placeholder:"NAME" help:"A gateway and token as longline context add kept them."`
	Transport string `enum:"auto,websocket,sse" default:"auto" help:"auto, websocket or sse."`
	JSON      bool   `name:"json" help:"Print JSON on a terminal too."`
	Verbose   bool   `short:"v" help:"Say what happens to connections, on stderr."`
}

// defaultURL is where a gateway listens that wasn't told where.
const defaultURL = "http://127.0.0.1:8080"

// settle fills in what flags and environment leave to the context.
func (f *clientFlags) settle() (err error) {
	if f.URL == "" || f.Token == "" && f.TokenFile == "" {
		kept, err := contextOf(f.Context)
		if err != nil {
			return err
		}
		if f.URL == "" {
			f.URL = kept.URL
		}
		if f.Token == "" && f.TokenFile == "" {
			f.TokenFile = kept.TokenFile
		}
	}
	if f.URL == "" {
		f.URL = defaultURL
	}
	f.Token, err = secretOf("--token", f.Token, f.TokenFile)
	return err
}

func (f *clientFlags) client(env *environment) (*longline.Client, error) {
	if err := f.settle(); err != nil {
		return nil, err
	}
	level := slog.LevelWarn
	if f.Verbose {
		level = slog.LevelInfo
	}
	o := longline.Options{
		Token:  f.Token,
		Logger: slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{Level: level})),
	}
	if f.Transport != "auto" {
		o.Transport = longline.Transport(f.Transport)
	}
	client, err := longline.New(f.URL, o)
	if err != nil {
		return nil, usage("--url", "%q; want http://HOST[:PORT] or https://HOST[:PORT]", f.URL)
	}
	return client, nil
}

// call makes a call and returns the answer, nil if there is none.
func (f *clientFlags) call(env *environment, method, path string, body any) (answer json.RawMessage, err error) {
	client, err := f.client(env)
	if err != nil {
		return nil, err
	}
	if err := client.Do(env.ctx, method, path, body, &answer); err != nil {
		return nil, f.hint(err)
	}
	return answer, nil
}

// show makes a call and shows the answer, if there is one: as it is to programs,
// to people by tell.
func (f *clientFlags) show(env *environment, method, path string, body any, tell func(fields) error) error {
	answer, err := f.call(env, method, path, body)
	if err != nil || len(answer) == 0 {
		return err
	}
	if !env.people(f.JSON) {
		return printJSON(env, answer)
	}
	parsed, err := parseFields(answer)
	if err != nil {
		return err
	}
	return tell(parsed)
}

// hint adds to an error what flag or variable is likely to help.
func (f *clientFlags) hint(err error) error {
	var e *longline.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e.Code == longline.ErrUnauthorized.Code && f.Token == "":
		return fmt.Errorf("%w; give a token by --token-file, --token or LONGLINE_TOKEN (longline token makes one)", err)
	case e.Code == longline.ErrUnauthorized.Code:
		return fmt.Errorf("%w; the token is that of --token, --token-file, LONGLINE_TOKEN or --context (longline token inspect shows it)", err)
	case e.Code == longline.ErrForbidden.Code:
		return fmt.Errorf("%w; longline token inspect shows what a token may do", err)
	case e.Code == longline.ErrUnavailable.Code && e.Status == 0:
		return fmt.Errorf("%w; no gateway answers at %s: --url, LONGLINE_URL or --context say where it is", err, f.URL)
	}
	return err
}

// pages prints a list's entries, page by page: for people as a table, else one
// a line.
func (f *clientFlags) pages(env *environment, path, entries, next string, q url.Values, columns []column, none string) error {
	people := env.people(f.JSON)
	var all []json.RawMessage
	for {
		answer, err := f.call(env, http.MethodGet, path+"?"+q.Encode(), nil)
		if err != nil {
			return err
		}
		var page map[string]json.RawMessage
		var list []json.RawMessage
		if err := errors.Join(json.Unmarshal(answer, &page), json.Unmarshal(page[entries], &list)); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		for _, entry := range list {
			if people {
				all = append(all, entry)
			} else if err := printLine(env, entry); err != nil {
				return err
			}
		}
		var more string
		if err := json.Unmarshal(page["next"], &more); err != nil || more == "" {
			break
		}
		q.Set(next, more)
	}
	if !people {
		return nil
	}
	return table(env, columns, all, none)
}
