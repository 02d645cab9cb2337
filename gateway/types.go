package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/feed"
)

// seenType is a type of event and how often it was seen.
type seenType struct {
	Type   string `json:"type"`
	Events int    `json:"events"`
	Last   string `json:"last"` // the newest one's cursor
}

// listTypes answers which types the newest events of a channel have, the
// commonest first.
func (s *Server) listTypes(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	channel, err := subscribable(r, g)
	if err != nil {
		return err
	}
	limit, err := limitOf(r.URL.Query().Get("limit"), maxRead, maxRead)
	if err != nil {
		return err
	}
	state, err := s.o.Broker.State(r.Context(), channel)
	if err != nil {
		return channelError(channel, err)
	}
	seen := make(map[string]*seenType)
	events := 0
	offset := max(state.First, 1) - 1
	if last := uint64(limit); state.Head > last {
		offset = max(offset, state.Head-last)
	}
	for scanned := 0; scanned < limit; {
		page, err := s.o.Broker.Read(r.Context(), channel, offset, broker.Limit{Events: limit - scanned, Bytes: maxBytes})
		if err != nil {
			return channelError(channel, err)
		}
		if len(page.Items) == 0 {
			break
		}
		for _, stored := range page.Items {
			scanned++
			offset = stored.Offset
			item, err := feed.NewItem(channel, page.State.Epoch, stored)
			if err != nil {
				continue // whoever reads it is told
			}
			events++
			one := seen[item.Type()]
			if one == nil {
				one = &seenType{Type: item.Type()}
				seen[one.Type] = one
			}
			one.Events++
			one.Last = event.Cursor{Channel: channel, Epoch: page.State.Epoch, Offset: offset}.String()
		}
	}
	list := make([]seenType, 0, len(seen))
	for _, one := range seen {
		list = append(list, *one)
	}
	slices.SortFunc(list, func(a, b seenType) int {
		if a.Events != b.Events {
			return b.Events - a.Events
		}
		return strings.Compare(a.Type, b.Type)
	})
	return writeJSON(w, struct {
		Types  []seenType `json:"types"`
		Events int        `json:"events"` // looked at
	}{list, events})
}
