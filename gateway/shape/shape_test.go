package shape_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/expr"
	"github.com/longline-push/longline/gateway/shape"
	"github.com/longline-push/longline/gateway/webhook"
)

const opened = `{"specversion":"1.0","id":"e1","source":"/mailshots/42","type":"email.opened","time":"2026-11-22T13:31:00.123Z","subject":"zoë/../x@example.com","partitionkey":"k","channel":"acct-42","cursor":"acct-42@k-7","datacontenttype":"application/json","tenant":"a b","weight":3,"data":{"ip":"203.0.113.7","contact":{"id":42,"vip":true},"dots":"..","nothing":""}}`

func at(n uint64) event.Cursor { return event.Cursor{Channel: "acct-42", Epoch: "k", Offset: n} }

// mustShape compiles a shape.
func mustShape(t *testing.T, s shape.Spec, url string, batch bool) *shape.Shape {
	t.Helper()
	out, err := shape.Compile(s, url, batch)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// made is the request that a shape makes of events.
func made(t *testing.T, s *shape.Shape, batch bool, texts ...string) (*http.Request, string, error) {
	t.Helper()
	var events []webhook.Event
	var seen []*expr.Event
	for i, text := range texts {
		events = append(events, webhook.Event{Cursor: at(uint64(i + 7)), ID: "e1", JSON: []byte(text)})
		seen = append(seen, expr.NewEvent([]byte(text)))
	}
	m := webhook.NewMessage("crm-42", events, batch)
	if err := s.Apply(&m, seen); err != nil {
		return nil, "", err
	}
	secret, err := webhook.ParseSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	r, err := webhook.NewRequest(t.Context(), "https://crm.example.com/in", m, []webhook.Secret{secret}, time.Unix(1614265330, 0))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r, string(body), nil
}

func TestNothingAskedForIsNoShape(t *testing.T) {
	for _, s := range []shape.Spec{{}, {Format: ""}} {
		if got := mustShape(t, s, "https://crm.example.com/in", true); got != nil {
			t.Errorf("%+v: got a shape, want none", s)
		}
	}
}

func TestURLs(t *testing.T) {
	for _, tc := range []struct{ url, want, refused string }{
		{url: "https://crm.example.com/Contact/Email__c/{subject}", want: "https://crm.example.com/Contact/Email__c/zo%C3%AB%2F..%2Fx%40example.com"},
		{url: "https://crm.example.com/c/{data.contact.id}?ip={data.ip}&v={data.contact.vip}&k={partitionkey}", want: "https://crm.example.com/c/42?ip=203.0.113.7&v=true&k=k"},
		{url: "https://crm.example.com?x={tenant}", want: "https://crm.example.com?x=a%20b"},
		{url: "https://crm.example.com/a-{id}.json", want: "https://crm.example.com/a-e1.json"},
		{url: "https://crm.example.com/{data.missing}", refused: "the event has no data.missing"},
		{url: "https://crm.example.com/{dataschema}", refused: "the event has no dataschema"},
		{url: "https://crm.example.com/{data.contact}", refused: "data.contact is neither text nor a number"},
		{url: "https://crm.example.com/{data.ip.x}", refused: "data.ip is no object"},
		{url: "https://crm.example.com/c/{data.dots}/x", refused: `{data.dots} makes the path's segment ".."`},
		{url: "https://crm.example.com/c/{data.dots}", refused: `segment ".."`},
		{url: "https://crm.example.com/c/{data.dots}?a=b", refused: `segment ".."`},
		{url: "https://crm.example.com/c/.{data.nothing}/x", refused: `segment "."`},
		{url: "https://crm.example.com/c/{data.nothing}/x", refused: `segment ""`},
		{url: "https://crm.example.com/c?x={data.dots}", want: "https://crm.example.com/c?x=.."},
	} {
		r, _, err := made(t, mustShape(t, shape.Spec{}, tc.url, false), false, opened)
		switch {
		case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused)):
			t.Errorf("%s: got %v, want it refused for %q", tc.url, err, tc.refused)
		case tc.refused == "" && err != nil:
			t.Errorf("%s: %v", tc.url, err)
		case tc.refused == "" && r.URL.String() != tc.want:
			t.Errorf("%s: got %s, want %s", tc.url, r.URL, tc.want)
		}
	}
}

func TestFormats(t *testing.T) {
	const in = "https://crm.example.com/in"
	r, body, err := made(t, mustShape(t, shape.Spec{Format: shape.Binary, Method: "PUT"}, in, false), false, opened)
	if err != nil {
		t.Fatal(err)
	}
	if r.Method != "PUT" || !strings.HasPrefix(body, `{"ip":`) {
		t.Errorf("got %s %s, want the data by PUT", r.Method, body)
	}
	for name, want := range map[string]string{
		"Ce-Specversion": "1.0", "Ce-Id": "e1", "Ce-Type": "email.opened", "Ce-Subject": "zo%C3%AB/../x@example.com", "Ce-Tenant": "a%20b",
		"Ce-Weight": "3", "Ce-Cursor": "acct-42@k-7", "Ce-Time": "2026-11-22T13:31:00.123Z", "Content-Type": "application/json", "Webhook-Id": "e1",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, tc := range []struct{ event, contentType, body string }{
		{opened, "application/json", `{"ip":"203.0.113.7","contact":{"id":42,"vip":true},"dots":"..","nothing":""}`},
		{`{"specversion":"1.0","id":"e","source":"/","type":"t","datacontenttype":"text/plain","data":"hello"}`, "text/plain", "hello"},
		{`{"specversion":"1.0","id":"e","source":"/","type":"t","data":"hello"}`, "application/json", `"hello"`},
		{`{"specversion":"1.0","id":"e","source":"/","type":"t","datacontenttype":"image/png","data_base64":"AQID"}`, "image/png", "\x01\x02\x03"},
		{`{"specversion":"1.0","id":"e","source":"/","type":"t"}`, "application/json", ""},
	} {
		r, body, err := made(t, mustShape(t, shape.Spec{Format: shape.Data}, in, false), false, tc.event)
		if err != nil || body != tc.body || r.Header.Get("Content-Type") != tc.contentType || r.Header.Get("Ce-Id") != "" {
			t.Errorf("data of %s: got %q as %s (%v), want %q as %s", tc.event, body, r.Header.Get("Content-Type"), err, tc.body, tc.contentType)
		}
	}
}

func TestBodies(t *testing.T) {
	const in = "https://crm.example.com/in"
	one := mustShape(t, shape.Spec{Body: `{"Email": event.subject, "Opened__c": event.time, "Id": event.data.contact.id}`}, in, false)
	_, body, err := made(t, one, false, opened)
	if want := `{"Email":"zoë/../x@example.com","Id":42,"Opened__c":"2026-11-22T13:31:00.123Z"}`; err != nil || body != want {
		t.Errorf("got %s (%v), want %s", body, err, want)
	}
	if _, _, err := made(t, one, false, `{"id":"e","type":"t","subject":"s","time":"x","data":{}}`); err == nil || !strings.Contains(err.Error(), "contact") {
		t.Errorf("without what the body needs: got %v, want an error that names contact", err)
	}
	all := mustShape(t, shape.Spec{Body: `{"records": events.map(e, {"Email": e.subject})}`}, in, true)
	_, body, err = made(t, all, true, `{"id":"1","type":"t","subject":"a"}`, `{"id":"2","type":"t","subject":"b"}`)
	if want := `{"records":[{"Email":"a"},{"Email":"b"}]}`; err != nil || body != want {
		t.Errorf("got %s (%v), want %s", body, err, want)
	}
}

func TestSignaturesOfOtherStyles(t *testing.T) {
	key, _ := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, key)
		io.WriteString(h, text)
		return h.Sum(nil)
	}
	for _, tc := range []struct {
		style webhook.LegacySigning
		want  func(body string) string
	}{
		{webhook.LegacySigning{Header: "X-Hub-Signature-256", Scheme: webhook.Hex, Prefix: "sha256="}, func(b string) string { return "sha256=" + hex.EncodeToString(mac(b)) }},
		{webhook.LegacySigning{Header: "x-shopify-hmac-sha256", Scheme: webhook.Base64}, func(b string) string { return base64.StdEncoding.EncodeToString(mac(b)) }},
		{webhook.LegacySigning{Header: "Stripe-Signature", Scheme: webhook.Stripe}, func(b string) string {
			return "t=1614265330,v1=" + hex.EncodeToString(mac("1614265330."+b))
		}},
	} {
		r, body, err := made(t, mustShape(t, shape.Spec{Signature: &tc.style, Format: shape.Data}, "https://crm.example.com/in", false), false, opened)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Header.Get(tc.style.Header); got != tc.want(body) {
			t.Errorf("%s: got %q, want %q", tc.style.Header, got, tc.want(body))
		}
		if r.Header.Get("Webhook-Signature") == "" {
			t.Errorf("%s took the place of the standard signature", tc.style.Header)
		}
	}
}

func TestWrongShapesAreNamed(t *testing.T) {
	const in = "https://crm.example.com/in"
	for _, tc := range []struct {
		url   string
		spec  shape.Spec
		batch bool
		says  string
	}{
		{"https://{subject}.example.com/in", shape.Spec{}, false, "url: an attribute stands in the scheme or host"},
		{"{type}://example.com/in", shape.Spec{}, false, "url: an attribute stands in the scheme or host"},
		{"https://example.com:{id}/in", shape.Spec{}, false, "scheme or host"},
		{"https://example.com/{subject", shape.Spec{}, false, `url: a "{" without "}"`},
		{"https://example.com/subject}", shape.Spec{}, false, `url: a "}" without "{"`},
		{"https://example.com/{+subject}", shape.Spec{}, false, "{+subject} is not an attribute"},
		{"https://example.com/{data}", shape.Spec{}, false, "want a member"},
		{"https://example.com/{subject.x}", shape.Spec{}, false, "is not an attribute"},
		{"https://example.com/{subject}", shape.Spec{}, true, "url: it names attributes of one event"},
		{in, shape.Spec{Method: "GET"}, false, `method is "GET"`},
		{in, shape.Spec{Format: "xml"}, false, `format is "xml"`},
		{in, shape.Spec{Format: shape.Data, Body: "event"}, false, "body: it takes the place of format"},
		{in, shape.Spec{Format: shape.Binary}, true, "format is \"binary\", which carries one event"},
		{in, shape.Spec{Body: `{"a": evnt.id}`}, false, "body: line 1, column 7: undeclared reference to 'evnt'"},
		{in, shape.Spec{Body: `{"a": events}`}, false, "body: line 1, column 7"},
		{in, shape.Spec{Body: `{"a": `}, false, "body: line 1"},
		{in, shape.Spec{Body: `event.data.a.map(x, event.data.b.map(y, event.data.c.map(z, x + y + z)))`}, false, "body: "},
		{in, shape.Spec{Outcome: `response.status == 200`}, false, "outcome: "},
		{in, shape.Spec{Outcome: `response.state`}, false, "outcome: line 1, column 9"},
		{in, shape.Spec{Signature: &webhook.LegacySigning{Header: "webhook-signature", Scheme: webhook.Hex}}, false, "signature.header"},
		{in, shape.Spec{Signature: &webhook.LegacySigning{Header: "X-Sig", Scheme: "md5"}}, false, "signature.scheme"},
		{in, shape.Spec{Signature: &webhook.LegacySigning{Header: "X-Sig", Scheme: webhook.Hex, Prefix: "a\r\n"}}, false, "signature.prefix"},
	} {
		if _, err := shape.Compile(tc.spec, tc.url, tc.batch); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s %+v: got %v, want %q", tc.url, tc.spec, err, tc.says)
		}
	}
}

func FuzzURL(f *testing.F) {
	f.Add("https://a.example/{subject}/{data.x}?q={id}", `{"subject":"..","id":"a","data":{"x":"/"}}`)
	f.Fuzz(func(t *testing.T, url, text string) {
		s, err := shape.Compile(shape.Spec{}, "https://a.example/"+url, false)
		if err != nil || s == nil {
			return
		}
		m := webhook.NewMessage("s", []webhook.Event{{Cursor: at(1), JSON: []byte(text)}}, false)
		if s.Apply(&m, []*expr.Event{expr.NewEvent([]byte(text))}) == nil && (m.URL.Host != "a.example" || m.URL.Scheme != "https") {
			t.Errorf("%q of %q leads to %s", url, text, m.URL)
		}
	})
}
