package subscriptions

import (
	"context"
	"errors"
	"iter"
	"net/http"
	"slices"
	"strings"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

func (a *API) list(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	q := r.URL.Query()
	limit, err := limitOf(q.Get("limit"))
	if err != nil {
		return err
	}
	state := q.Get("state")
	if state != "" && !slices.Contains(states, state) {
		return wire.BadRequest("state is %.40q; want one of %q", state, states)
	}
	label, value, labelled := strings.Cut(q.Get("label"), "=")
	if q.Has("label") && !labelled {
		return wire.BadRequest("label is %.80q; want NAME=VALUE", q.Get("label"))
	}
	channel := q.Get("channel")
	if channel != "" {
		if err := event.CheckChannel(channel); err != nil {
			return wire.BadRequest("%v", err)
		}
	}
	wanted := func(s *durable.State) bool {
		had, ok := s.Definition.Labels[label]
		return (state == "" || s.Status() == state) && (!labelled || ok && had == value) &&
			(channel == "" || slices.Contains(s.Definition.Channels, channel))
	}
	out := struct {
		Subscriptions []view `json:"subscriptions"`
		Next          string `json:"next,omitempty"`
	}{Subscriptions: []view{}}
	for stretch := range visible(g, q.Get("prefix")) {
		full, err := a.listStretch(r.Context(), stretch, q.Get("cursor"), func(s *durable.State) (full bool, err error) {
			if access.Subscription(g, s.Name, s.Definition.Channels) != nil || !wanted(s) {
				return false, nil
			}
			if len(out.Subscriptions) == limit {
				out.Next = out.Subscriptions[limit-1].Name
				return true, nil
			}
			if _, err := a.o.Manager.Complete(r.Context(), s); err != nil {
				return false, err
			}
			v, err := a.view(r.Context(), *s)
			out.Subscriptions = append(out.Subscriptions, v)
			return false, err
		})
		if err != nil {
			return err
		}
		if full {
			break
		}
	}
	return writeJSON(w, http.StatusOK, out)
}

// listStretch gives take the subscriptions of a stretch that come after a cursor,
// which may lie in another one, until it is full.
func (a *API) listStretch(ctx context.Context, s stretch, after string, take func(*durable.State) (full bool, err error)) (full bool, err error) {
	switch {
	case s.covers(after):
	case s.name > after:
		after = "" // it comes after the cursor's
	default:
		return false, nil
	}
	if s.alone {
		if after != "" {
			return false, nil
		}
		one, err := a.o.Broker.Load(ctx, s.name)
		if errors.Is(err, broker.ErrNotFound) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		state, err := durable.Decode(one)
		if err != nil {
			return false, err
		}
		return take(&state)
	}
	for {
		page, err := a.o.Broker.List(ctx, s.name, after, 200)
		if err != nil || len(page) == 0 {
			return false, err
		}
		for _, one := range page {
			state, err := durable.Decode(one)
			if err != nil {
				return false, err
			}
			if full, err := take(&state); full || err != nil {
				return full, err
			}
			after = one.Name
		}
	}
}

// stretch is a run of names: those that begin with name, or that one alone.
type stretch struct {
	name  string
	alone bool
}

func (s stretch) covers(name string) bool {
	return name == s.name || !s.alone && strings.HasPrefix(name, s.name)
}

// visible are the stretches that hold all names that begin with prefix and that
// g may use, in byte order, none within another: what is listed for a tenant is to
// cost what is his, not what everybody has.
func visible(g *auth.Grant, prefix string) iter.Seq[stretch] {
	patterns := g.Subscriptions()
	if g.Admin {
		patterns = []string{"*"}
	}
	var all []stretch
	add := func(s stretch) {
		switch {
		case s.covers(prefix) && !s.alone:
			all = append(all, stretch{name: prefix})
		case strings.HasPrefix(s.name, prefix):
			all = append(all, s)
		}
	}
	for _, pattern := range patterns {
		if begin, _, open := strings.Cut(pattern, "*"); open {
			add(stretch{name: begin})
			continue
		}
		add(stretch{name: pattern, alone: true})
		add(stretch{name: durable.ReplayName(pattern, "")})
	}
	slices.SortFunc(all, func(x, y stretch) int {
		if n := strings.Compare(x.name, y.name); n != 0 || x.alone == y.alone {
			return n
		}
		if x.alone {
			return 1 // the one that covers it comes first
		}
		return -1
	})
	return func(yield func(stretch) bool) {
		var last *stretch
		for i := range all {
			if last != nil && last.covers(all[i].name) {
				continue
			}
			if last = &all[i]; !yield(all[i]) {
				return
			}
		}
	}
}

var states = []string{"live", "pull", "waiting", "callback", "offline", "paused", "disabled"}
