package longline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const testSecret = "whsec_YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcywgb2s="

// newCallbackSubscription is a subscription that nobody runs, with its callbacks' endpoint.
func newCallbackSubscription(t *testing.T, o SubscriptionOptions) *httptest.Server {
	t.Helper()
	c, err := New("http://gateway.test", Options{})
	if err != nil {
		t.Fatal(err)
	}
	o.Secrets = append(o.Secrets, testSecret)
	server := httptest.NewServer(mustAttach(t, c, "crm", o).CallbackHandler())
	t.Cleanup(server.Close)
	return server
}

// callback posts as a gateway does and returns the status and the answer.
func callback(t *testing.T, url string, change func(http.Header), events ...Event) (int, string) {
	t.Helper()
	kind, id := "application/cloudevents+json", events[0].ID
	var body []byte
	var err error
	if len(events) == 1 {
		body, err = json.Marshal(events[0])
	} else {
		kind, id = "application/cloudevents-batch+json", "batch-"+id
		body, err = json.Marshal(events)
	}
	if err != nil {
		t.Fatal(err)
	}
	return post(t, url, kind, id, body, change)
}

func post(t *testing.T, url, kind, id string, body []byte, change func(http.Header)) (int, string) {
	t.Helper()
	wh, err := standardwebhooks.NewWebhook(testSecret)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	signature, err := wh.Sign(id, now, body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("webhook-id", id)
	req.Header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("webhook-signature", signature)
	req.Header.Set("longline-attempt", "1")
	if change != nil {
		change(req.Header)
	}
	res, err := newHTTPClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(answer)
}

func TestCallbackAnswers(t *testing.T) {
	r := recorder{reply: func(e Event) error {
		switch e.Type {
		case "refused":
			return Reject(errors.New("no such contact"))
		case "broken":
			return fmt.Errorf("dial tcp 10.0.0.7: %w", errBroken)
		case "later":
			return RetryAfter(errBroken, 1500*time.Millisecond)
		case "panic":
			panic("nil map")
		}
		return nil
	}}
	server := newCallbackSubscription(t, SubscriptionOptions{Concurrency: 4, Handler: one(&r)})
	event := func(id int, typ string) Event {
		e := testEvent(id, "")
		e.Type = typ
		return e
	}
	set := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	for _, test := range []struct {
		name   string
		change func(http.Header)
		events []Event
		status int
		answer string
	}{
		{"handled", nil, []Event{event(1, "ok")}, 204, ""},
		{"a batch, handled", nil, []Event{event(2, "ok"), event(3, "ok")}, 204, ""},
		{"refused", nil, []Event{event(4, "refused")}, 422, "no such contact"},
		{"one of a batch refused", nil, []Event{event(5, "ok"), event(6, "refused"), event(7, "ok")}, 200, `{"rejected":["6"]}`},
		{"failed, and what went wrong stays here", nil, []Event{event(8, "broken")}, 500, "try again"},
		{"one of a batch failed", nil, []Event{event(9, "ok"), event(10, "broken")}, 500, "try again"},
		{"failed, and knows when to come back", nil, []Event{event(16, "later")}, 503, "try again"},
		{"panicked", nil, []Event{event(11, "panic")}, 500, "try again"},
		{"signed by somebody else", set("webhook-signature", "v1,AAAA"), []Event{event(12, "ok")}, 401, "signature"},
		{"signed long ago", set("webhook-timestamp", "1000000000"), []Event{event(13, "ok")}, 401, "timestamp"},
		{"not signed", func(h http.Header) { h.Del("webhook-signature") }, []Event{event(14, "ok")}, 401, "signature"},
		{"a test, which the handler does not get", nil, []Event{event(15, testType)}, 204, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			status, answer := callback(t, server.URL, test.change, test.events...)
			if status != test.status || !strings.Contains(answer, test.answer) || strings.Contains(answer, "10.0.0.7") {
				t.Errorf("got %d %q, want %d %q", status, answer, test.status, test.answer)
			}
		})
	}
	for _, id := range r.got() {
		if id == "12" || id == "13" || id == "14" || id == "15" {
			t.Errorf("the handler got event %s", id)
		}
	}
	if status, _ := post(t, server.URL, "application/cloudevents+json", "x", []byte(`{"specversion":"1.0"}`), nil); status != 400 {
		t.Errorf("no event: got %d, want 400", status)
	}
	if status, _ := post(t, server.URL, "application/cloudevents+json", "x", make([]byte, maxCallback+1), nil); status != 413 {
		t.Errorf("an endless body: got %d, want 413", status)
	}
	res, err := newHTTPClient(t).Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "POST" {
		t.Errorf("GET: got %d", res.StatusCode)
	}
}

// one makes a Handler of a recorder.
func one(r *recorder) Handler {
	return func(ctx context.Context, e Event) error { return r.handle(ctx, []Event{e}) }
}

// The gateway's time ran out and it calls again while the first call is still
// in hand: both wait for the one handling.
func TestCallbackComesAgainMeanwhile(t *testing.T) {
	release := make(chan struct{})
	r := recorder{reply: func(Event) error { <-release; return nil }}
	server := newCallbackSubscription(t, SubscriptionOptions{Handler: one(&r)})
	var calls sync.WaitGroup
	for attempt := range 3 {
		calls.Go(func() {
			status, _ := callback(t, server.URL, func(h http.Header) { h.Set("longline-attempt", strconv.Itoa(attempt+1)) }, testEvent(1, ""))
			if status != 204 {
				t.Errorf("got %d, want 204", status)
			}
		})
	}
	close(release)
	calls.Wait()
	if status, _ := callback(t, server.URL, func(h http.Header) { h.Set("longline-redelivery", "true") }, testEvent(1, "")); status != 204 {
		t.Errorf("got %d, want 204", status)
	}
	if got := len(r.got()); got < 1 || got > 2 {
		t.Errorf("handled %d times, want once, or twice where the first attempt came last", got)
	}
}

// Nobody without a secret may feed the handler.
func TestCallbackWithoutSecrets(t *testing.T) {
	c, err := New("http://gateway.test", Options{})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(mustAttach(t, c, "crm", SubscriptionOptions{Handler: nothing}).CallbackHandler())
	defer server.Close()
	if status, _ := callback(t, server.URL, nil, testEvent(1, "")); status != 401 {
		t.Errorf("got %d, want 401", status)
	}
}

// A handler learns from a callback, as from a connection, that the event is one
// that somebody asked for once more.
func TestCallbackOfAReplay(t *testing.T) {
	var replay atomic.Bool
	server := newCallbackSubscription(t, SubscriptionOptions{Handler: func(ctx context.Context, _ Event) error {
		replay.Store(DeliveryOf(ctx).Replay)
		return nil
	}})
	for n, want := range []bool{false, true} {
		status, _ := callback(t, server.URL, func(h http.Header) {
			if want {
				h.Set("longline-replay", "crm-42")
			}
		}, testEvent(n+1, ""))
		if status != 204 || replay.Load() != want {
			t.Errorf("got %d, replay %v; want 204, %v", status, replay.Load(), want)
		}
	}
}
