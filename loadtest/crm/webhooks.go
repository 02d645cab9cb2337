package crm

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Webhooks are what most services do: a POST per event, at once, tried four
// times over some twenty seconds, each time for ten. Safe for concurrent use.
type Webhooks struct {
	client  *http.Client
	scale   float64
	pending atomic.Int64
	wait    sync.WaitGroup
}

// NewWebhooks makes a sender whose times are multiplied by scale.
func NewWebhooks(scale float64) *Webhooks {
	return &Webhooks{scale: scale, client: &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 100},
		Timeout:   time.Duration(float64(10*time.Second) * scale),
	}}
}

// Send begins to deliver body to url and returns. gaveUp, if there is one, is
// called when that was in vain; not where ctx ended it.
func (h *Webhooks) Send(ctx context.Context, url string, body []byte, gaveUp func()) {
	h.pending.Add(1)
	h.wait.Go(func() {
		defer h.pending.Add(-1)
		if !h.deliver(ctx, url, body) && ctx.Err() == nil && gaveUp != nil {
			gaveUp()
		}
	})
}

// Pending is how many events were neither delivered nor given up.
func (h *Webhooks) Pending() int { return int(h.pending.Load()) }

// Wait waits until there are none, and closes idle connections.
func (h *Webhooks) Wait() {
	h.wait.Wait()
	h.client.CloseIdleConnections()
}

func (h *Webhooks) deliver(ctx context.Context, url string, body []byte) bool {
	for _, delay := range []time.Duration{0, time.Second, 5 * time.Second, 15 * time.Second} {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(time.Duration(float64(delay) * h.scale)):
		}
		if h.try(ctx, url, body) {
			return true
		}
	}
	return false
}

func (h *Webhooks) try(ctx context.Context, url string, body []byte) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // for the connection's sake
	return resp.StatusCode/100 == 2
}
