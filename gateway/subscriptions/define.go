package subscriptions

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/webhook"
	"github.com/longline-push/longline/gateway/wire"
)

// put creates or replaces a subscription; with If-None-Match: * it creates one,
// or else changes nothing.
func (a *API) put(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	d, err := durable.ParseDefinition(b)
	if err != nil {
		return wire.BadRequest("%v", err)
	}
	create := r.Header.Get("If-None-Match") == "*"
	return a.define(w, r, g, true, func(s durable.State, _ durable.Private) (durable.Definition, error) {
		if create && s.Version != 0 {
			return d, wire.Conflict("there is a subscription %q already, so If-None-Match: * changes nothing", s.Name)
		}
		return d, nil
	})
}

// patch changes one by RFC 7396.
func (a *API) patch(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	b, err := body(r)
	if err != nil {
		return err
	}
	var named struct {
		Callback json.RawMessage `json:"callback"`
	}
	_ = json.Unmarshal(b, &named) // Patch says what is wrong with it
	return a.define(w, r, g, named.Callback != nil, func(s durable.State, p durable.Private) (durable.Definition, error) {
		if s.Version == 0 {
			return durable.Definition{}, notFound(s.Name)
		}
		d := s.Definition
		if d.Callback != nil {
			c := *d.Callback
			c.Headers, c.Auth = p.Headers, p.Auth
			d.Callback = &c
		}
		d, err := d.Patch(b)
		if err != nil {
			return d, wire.BadRequest("%v", err)
		}
		return d, nil
	})
}

// mayCreate refuses one more subscription of a sub that has created what it may.
// Those who create at once may each be the last.
func (a *API) mayCreate(ctx context.Context, g *auth.Grant) error {
	if a.o.Budget == nil {
		return nil
	}
	most := a.o.Budget.Subscriptions(g)
	if most == 0 {
		return nil
	}
	names, err := a.o.Broker.Created(ctx, g.Subject, "", most)
	if err != nil {
		return err
	}
	if len(names) >= most {
		return a.o.Budget.RefuseSubscription()
	}
	return nil
}

// define gives a subscription the definition that next makes of what it is.
// enable says that its callback is given anew: a disabled one is enabled.
func (a *API) define(w http.ResponseWriter, r *http.Request, g *auth.Grant, enable bool, next func(durable.State, durable.Private) (durable.Definition, error)) error {
	n, err := name(r, g)
	if err != nil {
		return err
	}
	if durable.IsReplay(n) {
		return wire.Conflict("%q is the name of a replay, which POST /v1/subscriptions/%s/replay makes and nothing changes; delete it, or pause it", n, access.Base(n))
	}
	made, created := "", false // of the try that was stored
	err = a.o.Manager.Change(r.Context(), n, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		if err := access.Subscription(g, n, s.Definition.Channels); err != nil {
			return durable.Change{}, err
		}
		private, err := a.o.Vault.Open(n, s.Sealed)
		if err != nil {
			return durable.Change{}, err
		}
		d, err := next(s, private)
		if err != nil {
			return durable.Change{}, err
		}
		if err := a.check(g, n, d); err != nil {
			return durable.Change{}, err
		}
		private, made = secrets(d.Callback, private)
		d = public(d)
		sealed, err := a.o.Vault.Seal(n, private)
		if err != nil {
			return durable.Change{}, err
		}
		added, err := a.places(r.Context(), d, func(channel string) bool {
			_, has := s.Position.Of(channel)
			return !has
		})
		if err != nil {
			return durable.Change{}, err
		}
		if created = s.Version == 0; created {
			if err := a.mayCreate(r.Context(), g); err != nil {
				return durable.Change{}, err
			}
			_, c := durable.Create(n, durable.Record{Definition: d, Creator: g.Subject, CreatorIssued: g.Issued(), Sealed: sealed}, added, env)
			return c, nil
		}
		if enable {
			s = s.Enabled()
		}
		c, err := durable.Define(s, d, sealed, added, force, env)
		if err != nil || c.Generation == s.Generation {
			return c, err
		}
		return a.outdate(r.Context(), c)
	})
	if err != nil {
		return err
	}
	if created {
		// A revocation pauses what it finds, and this may have come after.
		if err := a.o.Revocations.Check(g); err != nil {
			mine := func(s *durable.State) bool { return s.Creator == g.Subject && s.CreatorIssued == g.Issued() }
			return errors.Join(err, a.pauseIf(context.WithoutCancel(r.Context()), n, mine))
		}
	}
	s, err := a.o.Manager.Load(r.Context(), n)
	if err != nil {
		return err
	}
	v, err := a.view(r.Context(), s)
	if err != nil {
		return err
	}
	if v.Callback != nil && made != "" {
		c := *v.Callback
		c.Secret = made
		v.Callback = &c
	}
	status := http.StatusOK
	if created {
		status = http.StatusCreated
	}
	return writeJSON(w, status, v)
}

// check is what only the gateway can say about a definition.
func (a *API) check(g *auth.Grant, name string, d durable.Definition) error {
	if err := access.Subscription(g, name, d.Channels); err != nil {
		return err
	}
	since, err := durable.ParseSince(d.Start)
	if err != nil {
		return wire.BadRequest("start: %v", err)
	}
	for _, c := range since.Position {
		if !slices.Contains(d.Channels, c.Channel) {
			return wire.BadRequest("start: cursor %q is of channel %q, which is not among channels", c, c.Channel)
		}
	}
	if d.Callback == nil {
		return nil
	}
	places := [][2]string{{"callback.url", d.Callback.URL}}
	if auth := d.Callback.Auth; auth != nil && auth.OAuth2 != nil {
		places = append(places, [2]string{"callback.auth.oauth2.token_url", auth.OAuth2.TokenURL})
	}
	for _, place := range places {
		u, err := url.Parse(place[1])
		if err == nil {
			err = a.o.CheckURL(u)
		}
		if err != nil {
			return wire.BadRequest("%s: %v", place[0], err)
		}
	}
	return nil
}

// secrets returns what is to be kept sealed, and the secret if one was made.
func secrets(c *durable.Callback, had durable.Private) (p durable.Private, made string) {
	if c == nil {
		return p, ""
	}
	p = durable.Private{Secrets: had.Secrets, Headers: c.Headers, Auth: c.Auth}
	switch {
	case c.Secret != "" && (len(p.Secrets) == 0 || p.Secrets[0].Text != c.Secret):
		p.Secrets = []durable.Secret{{Text: c.Secret}}
	case c.Secret == "" && len(p.Secrets) == 0:
		made = webhook.NewSecret()
		p.Secrets = []durable.Secret{{Text: made}}
	}
	return p, made
}

// public is d without what never comes back.
func public(d durable.Definition) durable.Definition {
	if d.Callback != nil {
		c := *d.Callback
		c.Secret, c.Headers, c.Auth = "", nil, nil
		d.Callback = &c
	}
	return d
}

// secretOverlap is how long a secret that was rotated away signs on.
const secretOverlap = 24 * time.Hour

func (a *API) rotate(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	var in struct {
		Secret string `json:"secret"`
	}
	b, err := body(r)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		if err := durable.DecodeStrict(b, &in); err != nil {
			return wire.BadRequest(`%v; want nothing, or {"secret":"whsec_…"}`, err)
		}
	}
	if in.Secret == "" {
		in.Secret = webhook.NewSecret()
	}
	if _, err := webhook.ParseSecret(in.Secret); err != nil {
		return wire.BadRequest("secret: %v", err)
	}
	err = a.change(r, g, func(s durable.State, force bool, env durable.Env) (durable.Change, error) {
		if s.Definition.Callback == nil {
			return durable.Change{}, wire.Conflict("subscription %q has no callback, so it has no secret", s.Name)
		}
		p, err := a.o.Vault.Open(s.Name, s.Sealed)
		if err != nil {
			return durable.Change{}, err
		}
		p.Rotate(in.Secret, env.Now, secretOverlap)
		sealed, err := a.o.Vault.Seal(s.Name, p)
		if err != nil {
			return durable.Change{}, err
		}
		return durable.Reseal(s, sealed), nil
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, in)
}

// view is a subscription as GET shows it.
type view struct {
	Name   string          `json:"name"`
	Replay *durable.Replay `json:"replay,omitempty"`
	durable.Definition
	Cursor string  `json:"cursor"`
	Status *status `json:"status"`
}

type status struct {
	State     string           `json:"state"`
	Consumer  string           `json:"consumer,omitempty"`
	Node      string           `json:"node,omitempty"`
	Transport string           `json:"transport,omitempty"`
	Since     *time.Time       `json:"since,omitempty"`
	Due       *time.Time       `json:"due,omitempty"` // when a callback's turn is
	Lag       behind           `json:"lag"`
	Dead      int              `json:"dead"`
	Callback  *callback.Status `json:"callback,omitempty"`
	// Of a group.
	Members    []memberView    `json:"members,omitempty"`
	Partitions []partitionView `json:"partitions,omitempty"`
}

type memberView struct {
	Consumer   string     `json:"consumer"`
	Node       string     `json:"node"`
	Transport  string     `json:"transport"`
	Partitions []int      `json:"partitions"`
	Since      *time.Time `json:"since"`
}

type partitionView struct {
	Partition int    `json:"partition"`
	Consumer  string `json:"consumer"` // "" for none
	Cursor    string `json:"cursor"`
	Lag       behind `json:"lag"`
}

type behind struct {
	Events  uint64 `json:"events"`
	Seconds int64  `json:"seconds"`
}

func (a *API) get(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	v, err := a.view(r.Context(), s)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, v)
}

func (a *API) view(ctx context.Context, s durable.State) (view, error) {
	v := view{Name: s.Name, Replay: s.Replay, Definition: s.Definition, Cursor: s.Position.String()}
	dead, err := a.countLetters(ctx, &s)
	if err != nil {
		return v, err
	}
	v.Status = &status{State: s.Status(), Due: timeOrNil(s.Grace), Dead: dead}
	if o := s.Owner; o != nil {
		v.Status.Consumer, v.Status.Transport, v.Status.Since = o.Consumer, o.Transport, timeOrNil(o.Since)
		v.Status.Node = a.o.Manager.NodeName(o.Node)
	}
	if err := a.viewGroup(ctx, v.Status, s); err != nil {
		return v, err
	}
	if v.Status.Lag, err = a.lag(ctx, s); err != nil {
		return v, err
	}
	if s.Definition.Callback != nil {
		if v.Status.Callback, err = a.note(ctx, s.Name); err != nil {
			return v, err
		}
	}
	return v, nil
}

// viewGroup adds what there is to say of a group.
func (a *API) viewGroup(ctx context.Context, v *status, s durable.State) error {
	for _, m := range s.Members {
		v.Members = append(v.Members, memberView{
			Consumer: m.Consumer, Node: a.o.Manager.NodeName(m.Node), Transport: m.Transport,
			Partitions: s.PartitionsOf(m.Consumer), Since: timeOrNil(m.Since),
		})
	}
	for p, part := range s.Parts {
		one := partitionView{Partition: p, Cursor: part.Position.String()}
		if p < len(s.Assigned) {
			one.Consumer = s.Assigned[p]
		}
		var err error
		if one.Lag, err = a.lag(ctx, durable.State{Progress: part}); err != nil {
			return err
		}
		v.Partitions = append(v.Partitions, one)
	}
	return nil
}

// note is how a callback is doing by what its owner last kept of it; nil if it
// has kept nothing yet.
func (a *API) note(ctx context.Context, name string) (*callback.Status, error) {
	b, err := a.o.Broker.Note(ctx, name)
	if err != nil || len(b) == 0 {
		return nil, err
	}
	var n callback.Note
	if err := json.Unmarshal(b, &n); err != nil {
		return nil, fmt.Errorf("the note of %s: %w", name, err)
	}
	if next := n.Status.NextAttempt; next != nil && !next.After(time.Now()) {
		n.Status.NextAttempt = nil // it has been made since
	}
	return &n.Status, nil
}
