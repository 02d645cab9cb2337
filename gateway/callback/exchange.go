package callback

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/shape"
	"github.com/longline-push/longline/gateway/webhook"
)

// maxAnswer is how much of an answer is read, after decompression.
const maxAnswer = 64 << 10

// maxWaitAsked bounds Retry-After, only so that no number overflows.
const maxWaitAsked = 365 * 24 * time.Hour

var (
	errForbidden = errors.New("callbacks may not connect to this address or port")
	errTimeout   = errors.New("timed out")
)

// answer is what came back from one call.
type answer struct {
	status     int           // 0 if none came
	err        error         // why there is no (whole) answer
	retryAfter time.Duration // of a 429 or 503 that asks for it
	head       string        // the first 1 KiB of the body
	rejected   []string      // ids, of a 2xx that names some
	latency    time.Duration

	response *expr.Response // for the shape's outcome
	said     []string       // by the outcome, of each event; nil without one
	unsaid   error          // why the outcome said nothing
}

// roundTrip sends a request and reads the answer; keep says that an outcome is
// to read it.
func roundTrip(via http.RoundTripper, r *http.Request, lastBody string, keep bool) answer {
	resp, err := via.RoundTrip(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	a := answer{status: resp.StatusCode}
	if a.status == http.StatusTooManyRequests || a.status == http.StatusServiceUnavailable {
		a.retryAfter = parseRetryAfter(resp.Header.Get("Retry-After"), time.Now())
	}
	// 101 hands over the connection instead of a body; closing it ends that.
	if resp.Body == http.NoBody || a.status == http.StatusSwitchingProtocols {
		if keep {
			a.response = responseOf(resp, nil)
		}
		return a
	}
	buf := bodies.Get().(*bytes.Buffer)
	defer bodies.Put(buf)
	buf.Reset()
	if _, err := io.Copy(buf, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		a.err = err
	}
	body := buf.Bytes()
	a.head = headOf(body, lastBody)
	if keep {
		if a.err == nil {
			a.response = responseOf(resp, bytes.Clone(body))
		}
		return a
	}
	if a.status/100 == 2 && bytes.Contains(body, rejectedName) {
		a.rejected = parseRejected(body)
	}
	return a
}

// responseOf is an answer as an outcome sees it.
func responseOf(resp *http.Response, body []byte) *expr.Response {
	headers := make(map[string]string, len(resp.Header))
	for name, values := range resp.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return &expr.Response{Status: resp.StatusCode, Headers: headers, Body: body}
}

var bodies = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// headOf keeps a body's first KiB. Endpoints tend to say the same again and
// again, so the last one's string is taken where it fits.
func headOf(body []byte, last string) string {
	body = body[:min(len(body), 1024)]
	if last == string(body) {
		return last
	}
	return strings.ToValidUTF8(string(body), "\uFFFD")
}

var rejectedName = []byte(`"rejected"`)

// parseRejected reads {"rejected":["<id>",…]}; whatever isn't that names none.
func parseRejected(body []byte) []string {
	var said struct {
		Rejected []string `json:"rejected"`
	}
	if json.Unmarshal(body, &said) != nil {
		return nil
	}
	return said.Rejected
}

// parseRetryAfter reads seconds or an HTTP date (RFC 9110 §10.2.3); 0 if it
// is neither or past.
func parseRetryAfter(text string, now time.Time) time.Duration {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		if n > uint64(maxWaitAsked/time.Second) {
			return maxWaitAsked
		}
		return time.Duration(n) * time.Second
	}
	at, err := http.ParseTime(text)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxWaitAsked)
}

// verdict is what an answer means for the events that were sent.
type verdict int

const (
	accepted  verdict = iota // done
	refused                  // these events, by an endpoint that is well
	trouble                  // the endpoint's, not the events'
	gone                     // the endpoint wants nothing any more
	cancelled                // by ourselves; nobody knows
	stalled                  // on the way: the endpoint was not asked
)

func (a *answer) verdict(ctx context.Context) verdict {
	switch {
	case a.err != nil && ctx.Err() != nil:
		return cancelled
	case errors.Is(a.err, errShape):
		return refused
	case errors.As(a.err, new(*proxyError)), errors.Is(a.err, errNoSocket):
		return stalled
	case a.unsaid != nil:
		return trouble
	case slices.Contains(a.said, expr.Ack):
		return accepted
	case slices.Contains(a.said, expr.Retry):
		return trouble
	case a.said != nil:
		return refused
	case a.err != nil && a.status != http.StatusGone:
		return trouble
	case a.status/100 == 2:
		return accepted
	case a.status == http.StatusGone:
		return gone
	case webhook.Refuses(a.status):
		return refused
	}
	return trouble
}

// clip keeps a reason short enough to be kept beside each of ten thousand letters.
func clip(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "…"
}

const maxReason = 512 // bytes

// describe says what was wrong in words fit for the subscription's owner:
// without the addresses, names and resolvers of this network.
func (a *answer) describe() string {
	var (
		dns  *net.DNSError
		cert *tls.CertificateVerificationError
		host x509.HostnameError
		auth x509.UnknownAuthorityError
		head tls.RecordHeaderError
		op   *net.OpError
	)
	err := a.err
	var (
		token *shape.TokenError
		way   *proxyError
	)
	switch {
	case errors.As(err, &way):
		return way.Error()
	case errors.Is(err, errNoSocket):
		return errNoSocket.Error()
	case errors.Is(err, errUnreached):
		return errUnreached.Error()
	case errors.Is(err, errShape):
		return clip(err.Error()) // it may quote a key of the event's data
	case errors.As(err, &token):
		return token.Error()
	case a.unsaid != nil:
		return fmt.Sprintf("answered %d; %v", a.status, a.unsaid)
	case slices.Contains(a.said, expr.Refuse), slices.Contains(a.said, expr.Retry):
		return fmt.Sprintf("answered %d; the outcome says %s", a.status, summary(a.said))
	case a.said != nil:
		return ""
	case err == nil && a.status/100 == 2:
		return ""
	case err == nil && a.status/100 == 3:
		return fmt.Sprintf("answered %d; redirects are not followed", a.status)
	case err == nil:
		return fmt.Sprintf("answered %d", a.status)
	case errors.Is(err, errTimeout), errors.Is(err, errPanicked):
		return err.Error()
	case errors.Is(err, errForbidden):
		return errForbidden.Error()
	case errors.As(err, &dns):
		return "the name could not be resolved"
	case errors.As(err, &host), errors.As(err, &auth), errors.As(err, &cert):
		return "TLS: the certificate is not valid for this name or not trusted"
	case errors.As(err, &head):
		return "TLS: the receiver does not speak TLS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed before the whole answer"
	case errors.As(err, &op) && op.Op == "dial":
		return "could not connect"
	case strings.Contains(err.Error(), "malformed HTTP"):
		return "the answer is not HTTP"
	}
	return "the exchange failed"
}

// summary is the outcome of one event, or how many of several have which.
func summary(said []string) string {
	if len(said) == 1 {
		return said[0]
	}
	counts := map[string]int{}
	for _, s := range said {
		counts[s]++
	}
	return fmt.Sprintf("%d ack, %d refuse, %d retry", counts[expr.Ack], counts[expr.Refuse], counts[expr.Retry])
}
