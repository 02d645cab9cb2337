package wire_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/wire"
)

func TestErrorsOnTheWire(t *testing.T) {
	for _, tt := range []struct {
		err    error
		status int
		close  wire.CloseCode
		code   string
		final  bool
	}{
		{wire.BadRequest("no"), 400, 4400, "bad_request", true},
		{wire.Unauthorized("no"), 401, 4401, "unauthorized", true},
		{wire.Forbidden("no"), 403, 4403, "forbidden", true},
		{wire.NotFound("no"), 404, 4404, "not_found", true},
		{wire.Errorf(wire.CodeMethodNotAllowed, "no"), 405, 4400, "method_not_allowed", true},
		{wire.Conflict("no"), 409, 4409, "conflict", true},
		{wire.Gone("no"), 410, 4404, "gone", true},
		{wire.TooLarge("no"), 413, 1009, "too_large", false},
		{wire.Errorf(wire.CodeUnsupportedMedia, "no"), 415, 4400, "unsupported_media_type", true},
		{wire.RateLimited(time.Second, "no"), 429, 4429, "rate_limited", false},
		{wire.Unavailable(time.Second, "no"), 503, 4503, "unavailable", false},
		{fmt.Errorf("append: %w", broker.ErrUnavailable), 503, 4503, "unavailable", false},
		{fmt.Errorf("append: %w", broker.ErrClosed), 503, 4503, "unavailable", false},
		{fmt.Errorf("append: %w", context.DeadlineExceeded), 503, 4503, "unavailable", false},
		{fmt.Errorf("read: %w", broker.ErrNotFound), 404, 4404, "not_found", true},
		{errors.New("disk is on fire"), 500, 4503, "internal", false},
	} {
		e := wire.From(tt.err)
		if e.Status() != tt.status || e.Close() != tt.close || string(e.Code) != tt.code || e.Close().Final() != tt.final {
			t.Errorf("%v: got %d, %d, %s, final %v; want %d, %d, %s, %v", tt.err,
				e.Status(), e.Close(), e.Code, e.Close().Final(), tt.status, tt.close, tt.code, tt.final)
		}
	}
	if got := wire.From(nil); got != nil {
		t.Errorf("From(nil) = %v, want nil", got)
	}
}

func TestProblemTellsNoInternals(t *testing.T) {
	w := httptest.NewRecorder()
	wire.WriteProblem(w, errors.New("password is hunter2"))
	var got struct {
		Type, Title, Code, Detail string
		Status                    int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("problem is not JSON: %v: %s", err, w.Body)
	}
	if got.Status != 500 || got.Code != "internal" || got.Title != "Internal Server Error" || got.Type != "about:blank" {
		t.Errorf("got %+v", got)
	}
	if want := "something went wrong inside the gateway; its log says what"; got.Detail != want {
		t.Errorf("detail = %q, want %q", got.Detail, want)
	}
}

func TestProblemHeaders(t *testing.T) {
	w := httptest.NewRecorder()
	wire.WriteProblem(w, wire.RateLimited(1500*time.Millisecond, "500 events a second"))
	if got, want := w.Header().Get("Retry-After"), "2"; got != want {
		t.Errorf("Retry-After = %q, want %q", got, want)
	}
	if got, want := w.Header().Get("Content-Type"), "application/problem+json"; got != want {
		t.Errorf("Content-Type = %q, want %q", got, want)
	}
	w = httptest.NewRecorder()
	wire.WriteProblem(w, wire.Unauthorized("no token"))
	if w.Header().Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
}

func TestAReasonTooLongIsCutBetweenCharacters(t *testing.T) {
	for reason, want := range map[string]string{
		"bye":                          "bye",
		strings.Repeat("x", 123):       strings.Repeat("x", 123),
		strings.Repeat("x", 124):       strings.Repeat("x", 123),
		"x" + strings.Repeat("é", 100): "x" + strings.Repeat("é", 61),
		strings.Repeat("é", 100):       strings.Repeat("é", 61),
	} {
		frame := wire.AppendCloseFrame(nil, wire.CloseBadRequest, reason)
		if got := string(frame[4:]); got != want || int(frame[1]) != 2+len(want) {
			t.Errorf("%q in a frame of %d bytes, want %q", got, frame[1], want)
		}
	}
}

// What answers a publish is made by hand, and is what encoding/json makes.
func TestAnswerToAPublish(t *testing.T) {
	ref := int64(-7)
	c := wire.Control{Op: wire.OpOK, Ref: &ref, Events: json.RawMessage(`[{"id":"a","cursor":"b@c-1"}]`)}
	want, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.AppendTextFrame(nil)[2:]; string(got) != string(want) {
		t.Errorf("got %s, want %s", got, want)
	}
}
