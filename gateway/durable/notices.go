package durable

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// EventsChannel is where the gateway tells of its own doings.
const EventsChannel = event.ReservedPrefix + "events"

// Notices publishes the gateway's own events. Publish may be called by any
// goroutine; Run must run beside it.
type Notices struct {
	log    Appender
	logger *slog.Logger
	source string

	mu     sync.Mutex
	queue  []broker.Entry
	missed int // more came than the log took
	some   chan struct{}
}

// Appender is what a Notices needs of a broker.Log.
type Appender interface {
	Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error)
}

const (
	maxTold   = 4096
	tellBatch = 256
)

// NewNotices makes a notices of the node with that name.
func NewNotices(log Appender, node string, logger *slog.Logger) *Notices {
	return &Notices{log: log, logger: logger, source: "/nodes/" + node, some: make(chan struct{}, 1)}
}

// Publish queues an event about a subscription, or, with kinds like node.joined,
// about a node. data becomes the event's data, beside the name.
func (h *Notices) Publish(kind, name string, data any) {
	fields := map[string]any{}
	if data != nil {
		if b, err := json.Marshal(data); err == nil {
			json.Unmarshal(b, &fields)
		}
	}
	typ := "longline." + kind
	if !strings.HasPrefix(kind, "node.") {
		typ = "longline.subscription." + kind
		fields["subscription"] = name
	}
	b, err := json.Marshal(fields)
	if err != nil {
		h.logger.Error("event of the gateway's own", "type", typ, "error", err)
		return
	}
	id, err := uuid.NewV7()
	if err != nil {
		id = uuid.New()
	}
	f := event.Fields{
		ID: id.String(), Source: h.source, Type: typ, Subject: name, Key: name,
		Time: event.FormatTime(time.Now()), ContentType: "application/json", Data: b,
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) >= maxTold {
		h.missed++
		return
	}
	h.queue = append(h.queue, broker.Entry{Data: f.AppendStored(nil)})
	select {
	case h.some <- struct{}{}:
	default:
	}
}

// Run publishes what is told until ctx ends, and then what is left.
func (h *Notices) Run(ctx context.Context) {
	for {
		select {
		case <-h.some:
			h.publish(ctx)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			h.publish(last)
			return
		}
	}
}

func (h *Notices) publish(ctx context.Context) {
	for {
		h.mu.Lock()
		batch := h.queue[:min(len(h.queue), tellBatch)]
		missed := h.missed
		h.missed = 0
		h.mu.Unlock()
		if missed > 0 {
			h.logger.Warn("events of the gateway's own were not published", "count", missed)
		}
		if len(batch) == 0 {
			return
		}
		if _, err := h.log.Append(ctx, EventsChannel, batch); err != nil {
			h.logger.Debug("publish the gateway's own events", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
				continue
			}
		}
		h.mu.Lock()
		if h.queue = h.queue[len(batch):]; len(h.queue) == 0 {
			h.queue = nil
		}
		h.mu.Unlock()
	}
}
