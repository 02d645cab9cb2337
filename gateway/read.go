package gateway

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/access"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/session"
	"github.com/longline-push/longline/gateway/wire"
)

const (
	readLimit    = 100     // events in an answer, where the query doesn't say
	maxRead      = 1000    // that it may ask for
	maxBytes     = 4 << 20 // of an answer, about
	maxScanned   = 20_000  // events looked at for one answer
	listLimit    = 100
	maxListed    = 1000
	maxBody      = 64 << 10 // of a request that isn't a publish
	defaultSince = "earliest"
)

// readEvents answers a page of a channel's log, from since on, or from its
// beginning. The answer's cursor is where the next page begins; it moves on
// over events that types or filter leave out. A gap says which events before those of the
// answer are gone, or can't be read.
func (s *Server) readEvents(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	channel, err := subscribable(r, g)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	limit, err := limitOf(q.Get("limit"), readLimit, maxRead)
	if err != nil {
		return err
	}
	filter, err := s.o.Hub.Filters().Get(session.SelectionFromQuery(q))
	if err != nil {
		return err
	}
	text := q.Get("since")
	if text == "" {
		text = defaultSince
	}
	since, err := cursor.ParseSince("since", text)
	if err != nil {
		return err
	}
	if err := since.Check([]string{channel}); err != nil {
		return err
	}
	state, err := s.o.Broker.State(r.Context(), channel)
	if err != nil {
		return channelError(channel, err)
	}
	offset, err := s.startOf(r, channel, since, state)
	if err != nil {
		return err
	}
	out := make([]byte, 0, 16<<10)
	out = append(out, `{"events":[`...)
	count, gap := 0, []byte(nil)
	at := func(offset uint64) []byte {
		return event.Cursor{Channel: channel, Epoch: state.Epoch, Offset: offset}.Append(nil)
	}
	// pass moves over events that are gone, if the answer can still say so: a
	// gap comes before its events.
	pass := func(to uint64, reason string) bool {
		if count > 0 || gap != nil {
			return false
		}
		gap = append(append(gap, `,"gap":{"from":"`...), at(offset)...)
		gap = append(append(gap, `","to":"`...), at(to)...)
		gap = append(append(append(gap, `","reason":"`...), reason...), `"}`...)
		offset = to
		return true
	}
read:
	for scanned := 0; count < limit && scanned < maxScanned && len(out) < maxBytes; {
		page, err := s.o.Broker.Read(r.Context(), channel, offset, broker.Limit{Events: min(maxRead, max(limit-count, 100)), Bytes: maxBytes - len(out)})
		if err != nil {
			return channelError(channel, err)
		}
		if page.State.Epoch != state.Epoch {
			return wire.Gone("channel %q has a new log since this request began; ask again", channel)
		}
		first := page.State.Head + 1
		if len(page.Items) > 0 {
			first = page.Items[0].Offset
		}
		if first > offset+1 && !pass(first-1, wire.GapRetention) || len(page.Items) == 0 {
			break
		}
		for _, stored := range page.Items {
			if count == limit {
				break
			}
			item, err := feed.NewItem(channel, state.Epoch, stored)
			if err != nil {
				if !pass(stored.Offset, wire.GapCorrupt) {
					break read
				}
				continue
			}
			offset = item.Offset
			scanned++
			if !filter.Match(item) {
				continue
			}
			if count > 0 {
				out = append(out, ',')
			}
			out = append(out, item.JSON()...)
			count++
		}
	}
	out = append(append(append(out, `],"cursor":"`...), at(offset)...), '"')
	return writeBody(w, append(append(out, gap...), "}\n"...))
}

// startOf says after which offset to read.
func (s *Server) startOf(r *http.Request, channel string, since cursor.Since, state broker.State) (uint64, error) {
	switch {
	case since.Earliest:
		return max(state.First, 1) - 1, nil
	case !since.Time.IsZero():
		return s.o.Broker.OffsetAt(r.Context(), channel, since.Time)
	}
	c, ok := since.Position.Of(channel)
	if !ok {
		return state.Head, nil
	}
	offset, place := state.Locate(c.Epoch, c.Offset)
	switch place {
	case broker.Forked:
		return 0, wire.Gone("cursor %s lies beyond %s@%s-%d, where its log was forked; what followed is lost", c, channel, state.Epoch, offset)
	case broker.Unknown:
		return 0, wire.Gone("cursor %s is of a log that is gone; the present one begins at %s@%s-0", c, channel, state.Epoch)
	case broker.Beyond:
		return 0, wire.Gone("cursor %s lies beyond the head, %s@%s-%d", c, channel, state.Epoch, state.Head)
	}
	return offset, nil
}

// subscribable returns the channel of the path, if the bearer may read it.
func subscribable(r *http.Request, g *auth.Grant) (string, error) {
	channel := r.PathValue("channel")
	if err := event.CheckChannel(channel); err != nil {
		return "", wire.BadRequest("%v", err)
	}
	return channel, access.Read(g, channel)
}

// channelError names the channel that isn't there.
func channelError(channel string, err error) error {
	if wire.From(err).Code == wire.CodeNotFound {
		return wire.NotFound("there is no channel %q; channels exist once something is published", channel)
	}
	return err
}

func limitOf(text string, without, most int) (int, error) {
	if text == "" {
		return without, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, wire.BadRequest("limit is %.40q; want a number from 1 to %d", text, most)
	}
	return n, nil
}

func writeBody(w http.ResponseWriter, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.Write(body)
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeBody(w, append(body, '\n'))
}
