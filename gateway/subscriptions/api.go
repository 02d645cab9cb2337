// Package subscriptions is the HTTP API of durable subscriptions: what they
// are, where they stand, and what their consumers left undone.
package subscriptions

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/wire"
)

// Broker is what the API needs of one.
type Broker interface {
	broker.Log
	broker.Tail
	broker.Durable
}

// Options of New; all but Engine, CheckURL and Revocations are required.
type Options struct {
	Broker  Broker
	Manager *durable.Manager
	Vault   *durable.Vault
	// Engine sends test events. nil: none can be sent.
	Engine *callback.Engine
	// CheckURL refuses callback URLs that could never be called. nil: none.
	CheckURL func(*url.URL) error
	// Budget bounds what one sub creates. nil: nothing does.
	Budget *quota.Budget
	// Revocations are asked after a subscription was created. nil: nothing is
	// ever revoked.
	Revocations *auth.Revocations
}

// API answers requests about durable subscriptions. Its methods may be called
// by many goroutines at once.
type API struct {
	o       Options
	filters cursor.Filters
}

// New makes an API.
func New(o Options) *API {
	if o.CheckURL == nil {
		o.CheckURL = func(*url.URL) error { return nil }
	}
	return &API{o: o}
}

// Route is a line of the gateway's table.
type Route struct {
	Method, Path string
	Handle       func(w http.ResponseWriter, r *http.Request, g *auth.Grant) error
}

// Routes are the API's lines in the gateway's table.
func (a *API) Routes() []Route {
	const all, one = "/v1/subscriptions", "/v1/subscriptions/{name}"
	return []Route{
		{Method: "GET", Path: all, Handle: a.list},
		{Method: "PUT", Path: one, Handle: a.put},
		{Method: "PATCH", Path: one, Handle: a.patch},
		{Method: "GET", Path: one, Handle: a.get},
		{Method: "DELETE", Path: one, Handle: a.delete},
		{Method: "POST", Path: one + "/ack", Handle: a.ack},
		{Method: "POST", Path: one + "/reject", Handle: a.reject},
		{Method: "POST", Path: one + "/seek", Handle: a.seek},
		{Method: "POST", Path: one + "/pause", Handle: a.pause},
		{Method: "POST", Path: one + "/resume", Handle: a.resume},
		{Method: "GET", Path: one + "/dead", Handle: a.dead},
		{Method: "DELETE", Path: one + "/dead", Handle: a.removeDead},
		{Method: "POST", Path: one + "/dead/redrive", Handle: a.redrive},
		{Method: "GET", Path: one + "/attempts", Handle: a.attempts},
		{Method: "GET", Path: one + "/trace", Handle: a.trace},
		{Method: "POST", Path: one + "/resend", Handle: a.resend},
		{Method: "POST", Path: one + "/replay", Handle: a.replay},
		{Method: "POST", Path: one + "/test", Handle: a.test},
		{Method: "POST", Path: one + "/rotate-secret", Handle: a.rotate},
	}
}

const maxBody = 64 << 10

func body(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, wire.BadRequest("the body could not be read to its end")
	case len(b) > maxBody:
		return nil, wire.TooLarge("the body has more than %d bytes", maxBody)
	}
	return b, nil
}

// decode reads a small JSON object without unknown fields. want says what is
// taken.
func decode(r *http.Request, into any, want string) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	if err := durable.DecodeStrict(b, into); err != nil {
		return wire.BadRequest("%v; want %s", err, want)
	}
	return nil
}

// name is the subscription of the path, if the bearer may use that name.
func name(r *http.Request, g *auth.Grant) (string, error) {
	n := r.PathValue("name")
	if err := durable.CheckUsed(n); err != nil {
		return "", wire.BadRequest("%v", err)
	}
	return n, access.Name(g, n)
}

// load returns the subscription of the path, if the bearer may use it.
func (a *API) load(r *http.Request, g *auth.Grant) (durable.State, error) {
	n, err := name(r, g)
	if err != nil {
		return durable.State{}, err
	}
	s, err := a.o.Manager.Load(r.Context(), n)
	if errors.Is(err, broker.ErrNotFound) {
		return s, notFound(n)
	}
	if err != nil {
		return s, err
	}
	return s, access.Subscription(g, n, s.Definition.Channels)
}

func notFound(name string) error {
	if durable.IsReplay(name) {
		return wire.NotFound("there is no replay %q any longer: it is complete, or was deleted", name)
	}
	return wire.NotFound("there is no subscription %q; PUT /v1/subscriptions/%s makes it", name, name)
}

// change applies a rule to the subscription of the path.
func (a *API) change(r *http.Request, g *auth.Grant, rule func(s durable.State, force bool, env durable.Env) (durable.Change, error)) error {
	n, err := name(r, g)
	if err != nil {
		return err
	}
	return a.o.Manager.Change(r.Context(), n, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		if s.Version == 0 {
			return durable.Change{}, notFound(n)
		}
		if err := access.Subscription(g, n, s.Definition.Channels); err != nil {
			return durable.Change{}, err
		}
		return rule(s, force, env)
	})
}

func (a *API) delete(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	err := a.change(r, g, func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) {
		return durable.Delete(s), nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (a *API) pause(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	err := a.change(r, g, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		return durable.Pause(s, force, env)
	})
	if err != nil {
		return err
	}
	return a.get(w, r, g)
}

func (a *API) resume(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	err := a.change(r, g, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		return durable.Resume(s, env), nil
	})
	if err != nil {
		return err
	}
	return a.get(w, r, g)
}

// PauseOf pauses what tokens that a revocation covers created. A revocation of
// one token, by its jti, pauses nothing: whoever holds the sub still has others.
func (a *API) PauseOf(ctx context.Context, r auth.Revocation) error {
	if r.Subject == "" {
		return nil
	}
	covered := func(s *durable.State) bool { return r.CoversIssued(s.Creator, s.CreatorIssued) }
	for after := ""; ; {
		names, err := a.o.Broker.Created(ctx, r.Subject, after, 200)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, after = range names {
			if err := a.pauseIf(ctx, after, covered); err != nil {
				return err
			}
		}
	}
}

// pauseIf pauses a subscription of which the condition holds.
func (a *API) pauseIf(ctx context.Context, name string, holds func(*durable.State) bool) error {
	err := a.o.Manager.Change(ctx, name, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		if s.Version == 0 || s.Paused || !holds(&s) {
			return durable.Change{}, durable.ErrNotDue
		}
		return durable.Pause(s, force, env)
	})
	if errors.Is(err, durable.ErrNotDue) {
		return nil
	}
	return err
}

func limitOf(text string) (int, error) {
	const without, most = 100, 1000
	if text == "" {
		return without, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, wire.BadRequest("limit is %.40q; want a number from 1 to %d", text, most)
	}
	return n, nil
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	w.Write(append(b, '\n'))
	return nil
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
