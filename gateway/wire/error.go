// Package wire holds the bytes that the gateway and its clients exchange: the
// errors here, each with its HTTP status and its WebSocket close code, and the
// frames beside them.
package wire

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/longline-push/longline/broker"
)

// Code names a kind of error on the wire.
type Code string

// The codes there are. Statuses and close codes are in the table below.
const (
	CodeBadRequest       Code = "bad_request"
	CodeUnauthorized     Code = "unauthorized"
	CodeForbidden        Code = "forbidden"
	CodeNotFound         Code = "not_found"
	CodeMethodNotAllowed Code = "method_not_allowed"
	CodeConflict         Code = "conflict"
	CodeUnsupportedMedia Code = "unsupported_media_type"
	CodeGone             Code = "gone"
	CodeTooLarge         Code = "too_large"
	CodeRateLimited      Code = "rate_limited"
	CodeUnavailable      Code = "unavailable"
	CodeInternal         Code = "internal"
)

// CloseCode is the status of a WebSocket close frame; `longline.bye` over SSE
// carries the same numbers.
type CloseCode int

// The close codes the gateway uses: of RFC 6455 §7.4.1, of the IANA registry,
// and Longline's own.
const (
	CloseNormal        CloseCode = 1000
	CloseGoingAway     CloseCode = 1001
	CloseProtocol      CloseCode = 1002
	CloseInvalidUTF8   CloseCode = 1007
	CloseTooLarge      CloseCode = 1009
	CloseRestart       CloseCode = 1012
	CloseBadRequest    CloseCode = 4400
	CloseUnauthorized  CloseCode = 4401
	CloseForbidden     CloseCode = 4403
	CloseNotFound      CloseCode = 4404
	CloseTimeout       CloseCode = 4408
	CloseTakenOver     CloseCode = 4409
	CloseRateLimited   CloseCode = 4429
	CloseUnavailable   CloseCode = 4503
	lowestFinalClosing CloseCode = 4000
	lowestAgainClosing CloseCode = 4500
)

// Final tells whether a client that was closed with c is told not to come back
// by itself: nothing would be different then. Load and time-outs pass.
func (c CloseCode) Final() bool {
	if c == CloseRateLimited || c == CloseTimeout {
		return false
	}
	return c == CloseNormal || c >= lowestFinalClosing && c < lowestAgainClosing
}

// kinds is the one place where codes meet statuses.
var kinds = map[Code]struct {
	status int
	close  CloseCode
}{
	CodeBadRequest:       {http.StatusBadRequest, CloseBadRequest},
	CodeUnauthorized:     {http.StatusUnauthorized, CloseUnauthorized},
	CodeForbidden:        {http.StatusForbidden, CloseForbidden},
	CodeNotFound:         {http.StatusNotFound, CloseNotFound},
	CodeMethodNotAllowed: {http.StatusMethodNotAllowed, CloseBadRequest},
	CodeConflict:         {http.StatusConflict, CloseTakenOver},
	CodeUnsupportedMedia: {http.StatusUnsupportedMediaType, CloseBadRequest},
	CodeGone:             {http.StatusGone, CloseNotFound},
	CodeTooLarge:         {http.StatusRequestEntityTooLarge, CloseTooLarge},
	CodeRateLimited:      {http.StatusTooManyRequests, CloseRateLimited},
	CodeUnavailable:      {http.StatusServiceUnavailable, CloseUnavailable},
	CodeInternal:         {http.StatusInternalServerError, CloseUnavailable},
}

// Error is what a client is told when something can't be done. Detail is for
// people: it says what was wrong and what is taken, and never holds internals.
type Error struct {
	Code       Code
	Detail     string
	RetryAfter time.Duration // with CodeRateLimited and CodeUnavailable
	cause      error
}

// Error is Code and Detail, and the cause where there is one.
func (e *Error) Error() string {
	text := string(e.Code) + ": " + e.Detail
	if e.cause != nil {
		text += ": " + e.cause.Error()
	}
	return text
}

// Unwrap returns what From made the error of, or nil.
func (e *Error) Unwrap() error { return e.cause }

// Status is the HTTP status of the error.
func (e *Error) Status() int { return kinds[e.Code].status }

// Close is the WebSocket close code of the error.
func (e *Error) Close() CloseCode { return kinds[e.Code].close }

// Errorf makes an error of the code. Format and args make its Detail.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// NotJSON says where what, e.g. a body, stops being JSON; err is jsontext's.
func NotJSON(what string, err error) *Error {
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return BadRequest("%s is not JSON (RFC 8259) at byte %d: %v", what, syntax.ByteOffset, syntax.Err)
	}
	return BadRequest("%s is not JSON (RFC 8259): it ends too early", what)
}

// One constructor for each kind that a handler decides on. Format and args
// make the Detail.

func BadRequest(format string, args ...any) *Error {
	return Errorf(CodeBadRequest, format, args...)
}

func Unauthorized(format string, args ...any) *Error {
	return Errorf(CodeUnauthorized, format, args...)
}

func Forbidden(format string, args ...any) *Error {
	return Errorf(CodeForbidden, format, args...)
}

func NotFound(format string, args ...any) *Error {
	return Errorf(CodeNotFound, format, args...)
}

func Conflict(format string, args ...any) *Error {
	return Errorf(CodeConflict, format, args...)
}

func Gone(format string, args ...any) *Error {
	return Errorf(CodeGone, format, args...)
}

func TooLarge(format string, args ...any) *Error {
	return Errorf(CodeTooLarge, format, args...)
}

func RateLimited(after time.Duration, format string, args ...any) *Error {
	return &Error{Code: CodeRateLimited, Detail: fmt.Sprintf(format, args...), RetryAfter: after}
}

func Unavailable(after time.Duration, format string, args ...any) *Error {
	return &Error{Code: CodeUnavailable, Detail: fmt.Sprintf(format, args...), RetryAfter: after}
}

// brokerRetry is how soon a client may ask again when the broker is away.
const brokerRetry = 2 * time.Second

// From returns err as what the client is told of it: an *Error in its chain,
// the broker's errors as their like, and anything else as internal, without
// its text. From(nil) is nil.
func From(err error) *Error {
	var e *Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e):
		return e
	case errors.Is(err, broker.ErrNotFound):
		return &Error{Code: CodeNotFound, Detail: "there is no such channel or subscription", cause: err}
	case errors.Is(err, broker.ErrUnavailable), errors.Is(err, broker.ErrClosed):
		return &Error{Code: CodeUnavailable, Detail: "the broker can't be reached now; a retry with the same ids is safe", RetryAfter: brokerRetry, cause: err}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return &Error{Code: CodeUnavailable, Detail: "the request took too long; a retry with the same ids is safe", RetryAfter: brokerRetry, cause: err}
	}
	return &Error{Code: CodeInternal, Detail: "something went wrong inside the gateway; its log says what", cause: err}
}
