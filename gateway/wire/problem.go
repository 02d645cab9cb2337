package wire

import (
	"net/http"
	"strconv"
	"time"

	"github.com/longline-push/longline/event"
)

// AppendProblem appends e as an RFC 9457 problem. Its type is about:blank: the
// status says what is generally wrong, code and detail say the rest, and
// request, unless it is empty, is the id under which logs have it.
func (e *Error) AppendProblem(dst []byte, request string) []byte {
	status := e.Status()
	dst = append(dst, `{"type":"about:blank","title":`...)
	dst = event.AppendString(dst, http.StatusText(status))
	dst = append(dst, `,"status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"code":"`...)
	dst = append(append(dst, e.Code...), `","detail":`...)
	dst = event.AppendString(dst, e.Detail)
	if request != "" {
		dst = append(dst, `,"request_id":`...)
		dst = event.AppendString(dst, request)
	}
	return append(dst, '}')
}

// RequestIDHeader carries what a request is called in answers and in logs.
const RequestIDHeader = "X-Request-Id"

// RequestID is what the request that w answers is called, or "" where nobody
// named it.
func RequestID(w http.ResponseWriter) string { return w.Header().Get(RequestIDHeader) }

// WriteProblem answers a request with err, which must not be nil: status,
// Retry-After where there is one, and a problem as the body, which names the
// request as the header does.
func WriteProblem(w http.ResponseWriter, err error) {
	e := From(err)
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(e.RetrySeconds()))
	}
	if e.Code == CodeUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="longline"`) // RFC 6750 §3
	}
	w.WriteHeader(e.Status())
	w.Write(append(e.AppendProblem(nil, RequestID(w)), '\n'))
}

// RetrySeconds is RetryAfter as the header has it, rounded up: a client must
// not come back too early.
func (e *Error) RetrySeconds() int { return int((e.RetryAfter + time.Second - 1) / time.Second) }
