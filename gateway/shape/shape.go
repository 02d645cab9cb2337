// Package shape makes a callback the API call that its receiver knows: the
// method, the place, the body and the signature that a subscription asks for,
// and what an answer means. Without any of that a callback is a CloudEvent by
// POST, and this package has nothing to do.
package shape

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"

	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/webhook"
)

// Format is how an event is put into a request.
type Format string

// Structured is the event as JSON, Binary its data with the attributes in ce-*
// headers, Data its data alone.
const (
	Structured Format = "structured"
	Binary     Format = "binary"
	Data       Format = "data"
)

// Spec is what a subscription says of its callback's requests, in its own JSON.
// The zero value, with a constant URL, asks for nothing.
type Spec struct {
	Method    string                 `json:"method,omitempty"`    // POST (default), PUT or PATCH
	Format    Format                 `json:"format,omitempty"`    // Structured (default), Binary, Data
	Body      string                 `json:"body,omitempty"`      // an expression, instead of Format
	Outcome   string                 `json:"outcome,omitempty"`   // an expression that reads the answer
	Signature *webhook.LegacySigning `json:"signature,omitempty"` // beside the standard one
}

// Shape is a Spec made ready. It is immutable and may be used by many
// goroutines at once. A nil Shape is that of a Spec that asks for nothing.
type Shape struct {
	method  string
	format  Format
	url     *template // nil: it is constant
	body    *expr.Body
	outcome *expr.Outcome
	legacy  *webhook.LegacySigning
}

// Compile makes a shape of what a callback says of its requests, to this URL;
// batch says that a request carries several events. Errors are for the user and
// begin with the name of the field.
func Compile(s Spec, url string, batch bool) (*Shape, error) {
	out := &Shape{format: s.Format, legacy: s.Signature}
	var err error
	if out.url, err = parseTemplate(url); err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	if out.url != nil && batch {
		return nil, errors.New("url: it names attributes of one event, want batch.max_events 1 or a constant url")
	}
	switch s.Method {
	case "", http.MethodPost, http.MethodPut, http.MethodPatch:
		out.method = s.Method
	default:
		return nil, fmt.Errorf("method is %.20q, want POST, PUT or PATCH", s.Method)
	}
	switch {
	case s.Format != "" && s.Format != Structured && s.Format != Binary && s.Format != Data:
		return nil, fmt.Errorf("format is %.20q, want structured, binary or data", s.Format)
	case s.Format != "" && s.Body != "":
		return nil, errors.New("body: it takes the place of format, want one of them")
	case (s.Format == Binary || s.Format == Data) && batch:
		return nil, fmt.Errorf("format is %q, which carries one event, want batch.max_events 1", s.Format)
	}
	if s.Body != "" {
		if out.body, err = expr.CompileBody(s.Body, batch); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	}
	if s.Outcome != "" {
		if out.outcome, err = expr.CompileOutcome(s.Outcome, batch); err != nil {
			return nil, fmt.Errorf("outcome: %w", err)
		}
	}
	if s.Signature != nil {
		if err := checkSignature(s.Signature); err != nil {
			return nil, fmt.Errorf("signature.%w", err)
		}
	}
	if *out == (Shape{}) {
		return nil, nil
	}
	return out, nil
}

func checkSignature(l *webhook.LegacySigning) error {
	if err := CheckHeaderName(l.Header); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	if strings.EqualFold(l.Header, "Authorization") {
		return errors.New("header: Authorization is for credentials")
	}
	return l.Check()
}

// taken are headers that the gateway sets itself, besides webhook-*, longline-*
// and ce-*.
var taken = map[string]bool{
	"Host": true, "Content-Length": true, "Content-Type": true, "Content-Encoding": true,
	"Transfer-Encoding": true, "Connection": true, "Keep-Alive": true, "Proxy-Connection": true,
	"Upgrade": true, "Te": true, "Trailer": true, "Expect": true, "Accept-Encoding": true,
	"Proxy-Authorization": true,
}

// CheckHeaderName refuses names of headers that a user may not set.
func CheckHeaderName(name string) error {
	canonical := textproto.CanonicalMIMEHeaderKey(name)
	switch {
	case !token(name):
		return fmt.Errorf("%q is not a header name", name)
	case taken[canonical], strings.HasPrefix(canonical, "Webhook-"), strings.HasPrefix(canonical, "Longline-"), strings.HasPrefix(canonical, "Ce-"):
		return fmt.Errorf("%q is set by the gateway and can't be given", name)
	}
	return nil
}

// token tells whether s is one by RFC 9110 §5.6.2.
func token(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return s != ""
}

// Apply gives a message its shape; events are those that it delivers, as
// expressions see them. An error is the reason why the events can't be
// delivered in this shape: they are refused, not the endpoint in trouble.
func (s *Shape) Apply(m *webhook.Message, events []*expr.Event) error {
	m.Method, m.Legacy = s.method, s.legacy
	if s.url != nil {
		u, err := s.url.expand(events[0])
		if err != nil {
			return fmt.Errorf("url: %w", err)
		}
		m.URL = u
	}
	switch {
	case s.body != nil:
		body, err := s.body.JSON(events...)
		if err != nil {
			return fmt.Errorf("body: %w", err)
		}
		m.Body, m.ContentType = body, "application/json"
	case s.format == Binary, s.format == Data:
		if err := unwrap(m, s.format == Binary); err != nil {
			return fmt.Errorf("format %s: %w", s.format, err)
		}
	}
	return nil
}

// Reads tells whether the shape reads answers.
func (s *Shape) Reads() bool { return s != nil && s.outcome != nil }

// Verdicts returns what an answer says of each event, as expr.Outcome does.
func (s *Shape) Verdicts(r *expr.Response, events []*expr.Event) ([]string, error) {
	verdicts, err := s.outcome.Of(r, events...)
	if err != nil {
		return nil, fmt.Errorf("outcome: %w", err)
	}
	return verdicts, nil
}
