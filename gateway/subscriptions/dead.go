package subscriptions

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/webhook"
	"github.com/longline-push/longline/gateway/wire"
)

func (a *API) dead(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	limit, err := limitOf(q.Get("limit"))
	if err != nil {
		return err
	}
	after := uint64(0)
	if text := q.Get("since"); text != "" {
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			return wire.BadRequest("since is %.40q; want the next of an earlier answer", text)
		}
	}
	out := struct {
		Dead []durable.DeadLetter `json:"dead"`
		Next string               `json:"next,omitempty"`
	}{Dead: []durable.DeadLetter{}}
	err = a.letters(r.Context(), &s, after, limit, func(l broker.Letter, d durable.DeadLetter) bool {
		d.Time = l.Time.UTC()
		out.Dead = append(out.Dead, d)
		if len(out.Dead) < limit {
			return true
		}
		out.Next = strconv.FormatUint(l.Seq, 10)
		return false
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, out)
}

// letterPage is how many dead letters are read, and marked, at once.
const letterPage = 500

// letters gives one dead letter after another to each, until that says no.
// Letters of channels that the subscription hasn't any more are not among
// them: what s says was checked against the bearer, those channels were not.
func (a *API) letters(ctx context.Context, s *durable.State, after uint64, page int, each func(broker.Letter, durable.DeadLetter) bool) error {
	for {
		list, err := a.o.Broker.Dead(ctx, s.Name, after, page)
		if err != nil || len(list) == 0 {
			return err
		}
		for _, l := range list {
			after = l.Seq
			var d durable.DeadLetter
			if json.Unmarshal(l.Data, &d) == nil && s.Definition.Has(d.Cursor()) && !each(l, d) {
				return nil
			}
		}
	}
}

// letterCursors are the cursors of all that letters tells of.
func (a *API) letterCursors(ctx context.Context, s *durable.State) (cursors []string, err error) {
	err = a.letters(ctx, s, 0, letterPage, func(l broker.Letter, _ durable.DeadLetter) bool {
		cursors = append(cursors, l.Cursor)
		return true
	})
	return cursors, err
}

// countLetters is how many letters tells of. Only where channels were taken off
// need they be read for it.
func (a *API) countLetters(ctx context.Context, s *durable.State) (int, error) {
	if !s.Narrowed || s.Dead == 0 {
		return s.Dead, nil
	}
	cursors, err := a.letterCursors(ctx, s)
	return len(cursors), err
}

func (a *API) redrive(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	var in struct {
		Cursors []string `json:"cursors"`
		IDs     []string `json:"ids"`
		All     bool     `json:"all"`
	}
	const want = `{"cursors":["…"]}, {"ids":["…"]} or {"all":true}`
	if err := decode(r, &in, want); err != nil {
		return err
	}
	if in.All == (len(in.Cursors)+len(in.IDs) > 0) {
		return wire.BadRequest("the body names no dead letters, or all and some; want %s", want)
	}
	for _, text := range in.Cursors {
		if _, err := event.ParseCursor(text); err != nil {
			return wire.BadRequest("cursors has %.80q: %v; want the cursors of dead letters' events", text, err)
		}
	}
	var cursors []string
	err = a.letters(r.Context(), &s, 0, letterPage, func(l broker.Letter, d durable.DeadLetter) bool {
		if in.All || slices.Contains(in.Cursors, l.Cursor) || slices.Contains(in.IDs, d.ID()) {
			cursors = append(cursors, l.Cursor)
		}
		return true
	})
	if err != nil {
		return err
	}
	n := 0
	for piece := range slices.Chunk(cursors, letterPage) {
		marked, err := a.o.Broker.Redrive(r.Context(), s.Name, piece)
		if err != nil {
			return err
		}
		n += marked
	}
	if err := a.o.Manager.Redriven(r.Context(), s.Name); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]int{"redriven": n})
}

func (a *API) removeDead(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	if !s.Narrowed {
		n, err := a.o.Broker.Remove(r.Context(), s.Name, nil)
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, map[string]int{"deleted": n})
	}
	cursors, err := a.letterCursors(r.Context(), &s)
	if err != nil {
		return err
	}
	n := 0
	for piece := range slices.Chunk(cursors, letterPage) {
		removed, err := a.o.Broker.Remove(r.Context(), s.Name, piece)
		if err != nil {
			return err
		}
		n += removed
	}
	return writeJSON(w, http.StatusOK, map[string]int{"deleted": n})
}

// test sends one event of the gateway's own by the callback, whatever its
// state, and answers with what came back.
func (a *API) test(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	s, err := a.load(r, g)
	if err != nil {
		return err
	}
	cb := s.Definition.Callback
	if cb == nil || a.o.Engine == nil {
		return wire.Conflict("subscription %q has no callback to test", s.Name)
	}
	in := struct {
		Subject string          `json:"subject"`
		Key     string          `json:"partitionkey"`
		Data    json.RawMessage `json:"data"`
	}{Data: json.RawMessage(`{}`)}
	b, err := body(r)
	if err != nil {
		return err
	}
	if len(b) > 0 {
		if err := durable.DecodeStrict(b, &in); err != nil {
			return wire.BadRequest(`%v; want nothing, or {"subject":"…","partitionkey":"…","data":{…}} of the test's event`, err)
		}
	}
	p, err := a.o.Vault.Open(s.Name, s.Sealed)
	if err != nil {
		return err
	}
	secrets, err := CallbackSecrets(p)
	if err != nil {
		return err
	}
	form, err := cb.Shape()
	if err != nil {
		return err
	}
	id, err := uuid.NewV7()
	if err != nil {
		return err
	}
	text, err := json.Marshal(event.Event{
		ID: id.String(), Source: "/subscriptions/" + s.Name, Type: "longline.test", Time: time.Now(),
		Subject: in.Subject, Key: in.Key, ContentType: "application/json", Data: in.Data,
	})
	if err != nil {
		return err
	}
	again := ""
	if s.Replay != nil {
		again = s.Replay.Of
	}
	sent, attempt, err := a.o.Engine.Try(r.Context(), callback.Subscription{
		Name: s.Name, Timeout: time.Duration(cb.Timeout), MaxEvents: cb.Batch.MaxEvents,
		Target: callback.Target{URL: cb.URL, Headers: p.Headers, Secrets: secrets, Shape: form, Auth: p.Auth, Replay: again},
	}, webhook.Event{ID: id.String(), JSON: text}, s.Position)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		Request *callback.Sent `json:"request"`
		Status  int            `json:"status"`
		Latency float64        `json:"latency_ms"`
		Error   string         `json:"error"`
		Body    string         `json:"body"`
	}{sent, attempt.Status, attempt.LatencyMS, attempt.Error, attempt.Body})
}

// CallbackSecrets are sealed secrets as a callback signs with them.
func CallbackSecrets(p durable.Private) (list []webhook.Secret, err error) {
	for _, s := range p.Secrets {
		parsed, err := webhook.ParseSecret(s.Text)
		if err != nil {
			return nil, err
		}
		parsed.Until = s.Until
		list = append(list, parsed)
	}
	return list, nil
}
