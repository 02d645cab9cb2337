package gateway

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// channelInfo is a channel as its readers see it. First and Head are offsets;
// Connections are this node's.
type channelInfo struct {
	Channel     string `json:"channel"`
	Epoch       string `json:"epoch"`
	First       uint64 `json:"first"`
	Head        uint64 `json:"head"`
	Events      uint64 `json:"events"`
	Bytes       int64  `json:"bytes"`
	Connections int    `json:"connections"`
}

func (s *Server) showChannel(w http.ResponseWriter, r *http.Request, g *auth.Grant) error {
	channel, err := subscribable(r, g)
	if err != nil {
		return err
	}
	info, err := s.channelInfo(r.Context(), channel)
	if err != nil {
		return channelError(channel, err)
	}
	return writeJSON(w, info)
}

func (s *Server) channelInfo(ctx context.Context, channel string) (channelInfo, error) {
	state, err := s.o.Broker.State(ctx, channel)
	return channelInfo{
		Channel: channel, Epoch: state.Epoch, First: state.First, Head: state.Head,
		Events: state.Head + 1 - min(max(state.First, 1), state.Head+1), Bytes: state.Bytes,
		Connections: s.o.Hub.Feeds().Members(channel),
	}, err
}

// listChannels lists names in the broker's order, and by details=true where
// their logs stand; next is the page to ask for next.
func (s *Server) listChannels(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	q := r.URL.Query()
	limit, err := limitOf(q.Get("limit"), listLimit, maxListed)
	if err != nil {
		return err
	}
	detailed := q.Get("details")
	if detailed != "" && detailed != "true" && detailed != "false" {
		return wire.BadRequest("details is %.40q; want true or false", detailed)
	}
	page := q.Get("page")
	if page != "" {
		if err := event.CheckChannel(page); err != nil {
			return wire.BadRequest("page is %.140q; want the next of the page before", page)
		}
	}
	names, err := s.o.Broker.Channels(r.Context(), q.Get("prefix"), page, limit+1)
	if err != nil {
		return err
	}
	answer := struct {
		Channels []string      `json:"channels"`
		Details  []channelInfo `json:"details,omitempty"`
		Next     string        `json:"next,omitempty"`
	}{Channels: names}
	if len(names) > limit {
		answer.Channels = names[:limit]
		answer.Next = names[limit-1]
	}
	if answer.Channels == nil {
		answer.Channels = []string{}
	}
	for i := 0; detailed == "true" && i < len(answer.Channels); i++ {
		info, err := s.channelInfo(r.Context(), answer.Channels[i])
		if errors.Is(err, broker.ErrNotFound) {
			continue // dropped meanwhile
		}
		if err != nil {
			return err
		}
		answer.Details = append(answer.Details, info)
	}
	return writeJSON(w, answer)
}

func (s *Server) dropChannel(w http.ResponseWriter, r *http.Request, _ *auth.Grant) error {
	channel := r.PathValue("channel")
	if err := event.CheckChannel(channel); err != nil {
		return wire.BadRequest("%v", err)
	}
	if strings.HasPrefix(channel, auth.RevocationChannel) {
		return wire.Forbidden("channel %q holds which tokens are revoked; dropping it would make them good again", channel)
	}
	if err := s.o.Broker.Drop(r.Context(), channel); err != nil {
		return channelError(channel, err)
	}
	s.logger(w).Info("channel dropped", "channel", channel)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
