package longline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// The kinds of refusal. Compare with errors.Is; errors.As with *Error gives
// the detail.
var (
	ErrBadRequest   = &Error{Code: "bad_request"}
	ErrUnauthorized = &Error{Code: "unauthorized"}
	ErrForbidden    = &Error{Code: "forbidden"}
	ErrNotFound     = &Error{Code: "not_found"}
	ErrConflict     = &Error{Code: "conflict"}
	ErrGone         = &Error{Code: "gone"} // the cursor's log is gone
	ErrTooLarge     = &Error{Code: "too_large"}
	ErrRateLimited  = &Error{Code: "rate_limited"}
	ErrUnavailable  = &Error{Code: "unavailable"}
	ErrTimeout      = &Error{Code: "timeout"}
	ErrInternal     = &Error{Code: "internal"}

	// ErrTakenOver ends a subscription whose subscription the same consumer attached
	// to again, elsewhere.
	ErrTakenOver = &Error{Code: "taken_over"}
	// ErrMalformed is a frame, an event or a callback body that can't be read.
	ErrMalformed = &Error{Code: "malformed"}
	// ErrSignature is a callback that none of the secrets signed.
	ErrSignature = &Error{Code: "signature"}
	// ErrTimestamp is a callback signed too long ago, or ahead of our clock.
	ErrTimestamp = &Error{Code: "timestamp"}
)

// Error is what the gateway, or this package in its place, has to say about
// something that didn't work.
type Error struct {
	Code       string        // the kind, e.g. "forbidden"
	Status     int           // HTTP status or WebSocket close code, or 0
	Detail     string        // for people
	RetryAfter time.Duration // when to come back, if the gateway said so
	// RequestID is what the HTTP request was called, if there was one: the
	// gateway's log has it as "request".
	RequestID string
	final     bool // trying again is no use
	gateway   bool // it was the gateway that said so, no proxy
	goodbye   bool // the gateway ended a connection, and said so
	cause     error
}

// Error names the kind, the detail and the request.
func (e *Error) Error() string {
	text := e.Code
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return text
}

// Is makes errors of one code equal, whatever their detail.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// Unwrap returns what led to the error, if anything.
func (e *Error) Unwrap() error { return e.cause }

// Temporary tells whether the same thing may work later.
func (e *Error) Temporary() bool {
	switch e.Code {
	case "rate_limited", "unavailable", "timeout", "internal":
		return true
	}
	return false
}

func malformed(format string, args ...any) *Error {
	return &Error{Code: ErrMalformed.Code, Detail: fmt.Sprintf(format, args...)}
}

// codeOfClose maps WebSocket close codes to kinds.
func codeOfClose(status int) string {
	switch status {
	case 1007, 1002, 4400:
		return "bad_request"
	case 1009:
		return "too_large"
	case 4401:
		return "unauthorized"
	case 4403:
		return "forbidden"
	case 4404:
		return "not_found"
	case 4408:
		return "timeout"
	case 4409:
		return "taken_over"
	case 4429:
		return "rate_limited"
	}
	return "unavailable"
}

// codeOfStatus maps HTTP statuses to kinds, for answers that name none.
func codeOfStatus(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "unauthorized"
	case http.StatusForbidden:
		return "forbidden"
	case http.StatusNotFound:
		return "not_found"
	case http.StatusConflict:
		return "conflict"
	case http.StatusGone:
		return "gone"
	case http.StatusRequestEntityTooLarge:
		return "too_large"
	case http.StatusTooManyRequests:
		return "rate_limited"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "unavailable"
	case http.StatusRequestTimeout:
		return "timeout"
	}
	if status >= 500 {
		return "internal"
	}
	return "bad_request"
}

// requestIDHeader carries what a request is called. It is named here and not by
// the gateway, so that one that got no answer has a name too.
const requestIDHeader = "X-Request-Id"

// answerError makes an error of an HTTP answer that isn't 2xx. fromGateway
// tells whether it is a problem document, that is not some proxy's answer.
func answerError(res *http.Response) (err *Error, fromGateway bool) {
	e := &Error{Status: res.StatusCode, RequestID: res.Header.Get(requestIDHeader)}
	if e.RequestID == "" && res.Request != nil { // some proxy's answer
		e.RequestID = res.Request.Header.Get(requestIDHeader)
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind == "application/problem+json" {
		var problem struct{ Code, Title, Detail string }
		body, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if json.Unmarshal(body, &problem) == nil && problem.Code != "" {
			fromGateway = true
			e.Code, e.Detail = problem.Code, problem.Detail
			if e.Detail == "" {
				e.Detail = problem.Title
			}
		}
	}
	if e.Code == "" {
		e.Code = codeOfStatus(res.StatusCode)
		e.Detail = "answered " + res.Status
	}
	e.RetryAfter = retryAfter(res.Header.Get("Retry-After"), time.Now())
	return e, fromGateway
}

// retryAfter reads the header's two forms (RFC 9110 §10.2.3); 0 is none.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, 86400)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil && at.After(now) {
		return min(at.Sub(now), 24*time.Hour)
	}
	return 0
}

// Reject tells that an event can't be handled, now or later. A handler that
// returns it is not tried again: the event is dead-lettered and the subscription goes
// on. A batch handler may name the ids of the events it means; the others
// count as handled. Without ids all of the batch is meant.
func Reject(err error, ids ...string) error {
	if err == nil {
		err = errors.New("rejected")
	}
	return &rejection{err: err, ids: ids}
}

// RetryAfter tells when to try an event again, for a handler whose own peer
// said so, e.g. by Retry-After. The subscription waits at least that long; a callback
// is answered with it. It counts as a try.
func RetryAfter(err error, wait time.Duration) error {
	if err == nil {
		err = errors.New("asked to come back later")
	}
	return &later{err: err, wait: wait}
}

type later struct {
	err  error
	wait time.Duration
}

func (l *later) Error() string { return l.err.Error() }
func (l *later) Unwrap() error { return l.err }

// waitOf returns how long err says to wait, or 0.
func waitOf(err error) time.Duration {
	var l *later
	if errors.As(err, &l) {
		return l.wait
	}
	return 0
}

type rejection struct {
	err error
	ids []string
}

func (r *rejection) Error() string { return r.err.Error() }
func (r *rejection) Unwrap() error { return r.err }
