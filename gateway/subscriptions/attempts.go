package subscriptions

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/wire"
)

// attempts shows what the callback tried, newest first.
func (a *API) attempts(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	limit, err := limitOf(q.Get("limit"))
	if err != nil {
		return err
	}
	wanted, err := attemptQuery(q.Get("since"), q.Get("status"), q.Get("cursor"))
	if err != nil {
		return err
	}
	before := uint64(0)
	if text := q.Get("page"); text != "" {
		if before, err = strconv.ParseUint(text, 10, 64); err != nil || before == 0 {
			return wire.BadRequest("page is %.40q; want the next of an earlier answer", text)
		}
	}
	out := struct {
		Attempts []callback.Attempt `json:"attempts"`
		Next     string             `json:"next,omitempty"`
	}{Attempts: []callback.Attempt{}}
	var last uint64 // of those in out
	err = a.history(r.Context(), &s, before, wanted, func(seq uint64, t callback.Attempt) bool {
		if len(out.Attempts) == limit {
			out.Next = strconv.FormatUint(last, 10)
			return false
		}
		last = seq
		out.Attempts = append(out.Attempts, t)
		return true
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// attemptFilter says which attempts are wanted. Zero values leave nothing out.
type attemptFilter struct {
	since    time.Time
	statuses [2]int // from, to; to 0: all
	cursor   string // of an event in it
	id       string // likewise
}

// attemptQuery reads what a request asks for.
func attemptQuery(since, status, cursor string) (f attemptFilter, err error) {
	if since != "" {
		if f.since, err = time.Parse(time.RFC3339Nano, since); err != nil {
			return f, wire.BadRequest("since is %.80q; want an RFC 3339 time, from which on attempts are wanted", since)
		}
	}
	if status != "" {
		if f.statuses, err = statusesOf(status); err != nil {
			return f, err
		}
	}
	if cursor != "" {
		c, err := event.ParseCursor(cursor)
		if err != nil {
			return f, wire.BadRequest("%v; want the cursor of one event", err)
		}
		f.cursor = c.String()
	}
	return f, nil
}

// statusesOf reads a status, 0 for no answer, or a class like 5xx.
func statusesOf(text string) (s [2]int, err error) {
	if class, ok := strings.CutSuffix(text, "xx"); ok && len(class) == 1 && class[0] >= '1' && class[0] <= '5' {
		from := int(class[0]-'0') * 100
		return [2]int{from, from + 99}, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n != 0 && (n < 100 || n > 599) {
		return s, wire.BadRequest("status is %.40q; want one from 100 to 599, a class like 5xx, or 0 for attempts without an answer", text)
	}
	if n == 0 {
		return [2]int{0, 1}, nil // no status is 1
	}
	return [2]int{n, n}, nil
}

func (f *attemptFilter) takes(t *callback.Attempt) bool {
	return !t.Time.Before(f.since) &&
		(f.statuses[1] == 0 || t.Status >= f.statuses[0] && t.Status <= f.statuses[1]) &&
		(f.cursor == "" || slices.Contains(t.Cursors, f.cursor)) && (f.id == "" || slices.Contains(t.IDs, f.id))
}

// name is what the JSON of a wanted attempt has in it, so that not all need be
// decoded.
func (f *attemptFilter) name() []byte {
	var b bytes.Buffer
	if text := cmp.Or(f.cursor, f.id); text != "" {
		e := json.NewEncoder(&b) // as they were encoded
		e.SetEscapeHTML(false)
		_ = e.Encode(text)
	}
	return bytes.TrimSpace(b.Bytes())
}

// outOfOrder is how much earlier an attempt may have begun than one that was kept
// before it: calls end out of order, and nodes' clocks differ.
const outOfOrder = 10 * time.Minute

// attemptPage is how many attempts are read at once.
const attemptPage = 500

// history gives attempts that are wanted to each, newest first, until that says
// no: of a replay its own, of what it replays those of all its replays too. Those with an event of a channel that the subscription hasn't any more are
// not among them: nobody asked whether the bearer may read it.
func (a *API) history(ctx context.Context, s *durable.State, before uint64, f attemptFilter, each func(seq uint64, t callback.Attempt) bool) error {
	name, of := f.name(), access.Base(s.Name)
	for {
		page, err := a.o.Broker.Attempts(ctx, of, before, attemptPage)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, one := range page {
			before = one.Seq
			if one.Time.Before(f.since.Add(-outOfOrder)) {
				return nil
			}
			if !bytes.Contains(one.Data, name) {
				continue
			}
			var t callback.Attempt
			foreign := func(cursor string) bool { return !s.Definition.Has(cursor) }
			if json.Unmarshal(one.Data, &t) != nil || slices.ContainsFunc(t.Cursors, foreign) || !f.takes(&t) ||
				s.Replay != nil && t.Replay != s.Name {
				continue
			}
			if !each(one.Seq, t) {
				return nil
			}
		}
		if before <= 1 {
			return nil
		}
	}
}
