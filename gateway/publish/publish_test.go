package publish_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/auth/authtest"
	"github.com/longline-push/longline/gateway/publish"
	"github.com/longline-push/longline/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a log that remembers what was appended.
type recorder struct {
	mu      sync.Mutex
	entries map[string][]broker.Entry
	fail    map[string]error // by channel
}

func (l *recorder) Append(_ context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fail[channel]; err != nil {
		return nil, err
	}
	if l.entries == nil {
		l.entries = make(map[string][]broker.Entry)
	}
	var out []broker.Appended
next:
	for _, e := range entries {
		for i, old := range l.entries[channel] {
			if e.Identity != "" && old.Identity == e.Identity {
				out = append(out, broker.Appended{Epoch: "e1", Offset: uint64(i + 1), Duplicate: true})
				continue next
			}
		}
		l.entries[channel] = append(l.entries[channel], e)
		out = append(out, broker.Appended{Epoch: "e1", Offset: uint64(len(l.entries[channel]))})
	}
	return out, nil
}

// events are a channel's, as JSON without channel and cursor.
func (l *recorder) events(t *testing.T, channel string) []string {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, e := range l.entries[channel] {
		view, err := event.Stored(e.Data).View()
		if err != nil {
			t.Fatalf("what was appended can't be read: %v", err)
		}
		out = append(out, string(view.AppendDetached(nil)))
	}
	return out
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func newPublisher(log publish.Log) *publish.Publisher {
	return publish.New(log, publish.Options{Now: func() time.Time { return noon }})
}

func admin(t testing.TB) *auth.Grant { return authtest.Grant(t, auth.Mintage{Admin: true}) }

func post(body string, header map[string]string) *http.Request {
	r := httptest.NewRequest("POST", "/", strings.NewReader(body))
	for k, v := range header {
		r.Header.Set(k, v)
	}
	return r
}

var (
	asJSON  = map[string]string{"Content-Type": "application/json"}
	asEvent = map[string]string{"Content-Type": "application/cloudevents+json; charset=utf-8"}
	asBatch = map[string]string{"Content-Type": "application/cloudevents-batch+json"}
	asLines = map[string]string{"Content-Type": "application/x-ndjson"}
)

func ce(more ...string) map[string]string {
	h := map[string]string{"ce-specversion": "1.0", "ce-type": "t", "ce-id": "1", "ce-source": "/s", "Content-Type": "application/json"}
	for i := 0; i < len(more); i += 2 {
		if h[more[i]] = more[i+1]; more[i+1] == "" {
			delete(h, more[i])
		}
	}
	return h
}

func TestWhatBecomesOfAnEvent(t *testing.T) {
	const head = `{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-11-22T12:00:00.000Z"`
	for _, tt := range []struct {
		name   string
		header map[string]string
		body   string
		want   []string
	}{
		{"short form", asJSON, `{"type":"t","id":"1","source":"/s"}`, []string{head + `}`}},
		{"source left out", asJSON, `{"type":"t","id":"1"}`, []string{strings.Replace(head, "/s", "/channels/acct-42", 1) + `}`}},
		{"an array", asJSON, ` [ {"type":"t","id":"1","source":"/s"} , {"type":"t","id":"1","source":"/s2"} ] `, []string{head + `}`, strings.Replace(head, "/s", "/s2", 1) + `}`}},
		{"data stays as it is but for white space", asJSON, `{"type":"t","id":"1","source":"/s","data": { "n" : 1.0e+2 , "s":" a\u0041\n\\\" b " , "big":123456789012345678901234567890, "d":1,"d":2 } }`,
			[]string{head + `,"data":{"n":1.0e+2,"s":" a\u0041\n\\\" b ","big":123456789012345678901234567890,"d":1,"d":2}}`}},
		{"data of null", asJSON, `{"type":"t","id":"1","source":"/s","data":null}`, []string{head + `,"data":null}`}},
		{"all attributes", asJSON, `{"data":1,"dataschema":"https://x/s","datacontenttype":"application/json","partitionkey":"k","subject":"s","time":"2026-01-02T03:04:05+01:00","type":"t","source":"/s","id":"1","specversion":"1.0"}`,
			[]string{`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-01-02T03:04:05+01:00","subject":"s","partitionkey":"k","datacontenttype":"application/json","dataschema":"https://x/s","data":1}`}},
		{"extensions", asJSON, `{"type":"t","id":"1","source":"/s","traceparent":"00-ab","n":7,"b":false,"none":null,"subject":null}`, []string{head + `,"traceparent":"00-ab","n":7,"b":false}`}},
		{"escapes in attributes", asJSON, `{"t\u0079pe":"t","id":"\u0031","source":"\/s"}`, []string{head + `}`}},
		{"data_base64", asJSON, `{"type":"t","id":"1","source":"/s","datacontenttype":"image/png","data_base64":"AP8="}`, []string{head + `,"datacontenttype":"image/png","data_base64":"AP8="}`}},
		{"no bytes of data_base64", asJSON, `{"type":"t","id":"1","source":"/s","data_base64":""}`, []string{head + `,"data_base64":""}`}},
		{"structured", asEvent, `{"specversion":"1.0","type":"t","id":"1","source":"/s"}`, []string{head + `}`}},
		{"batch", asBatch, `[{"specversion":"1.0","type":"t","id":"1","source":"/s"}]`, []string{head + `}`}},
		{"lines", asLines, "{\"type\":\"t\",\"id\":\"1\",\"source\":\"/s\"}\n\r\n{\"type\":\"t\",\"id\":\"1\",\"source\":\"/s2\"}\n", []string{head + `}`, strings.Replace(head, "/s", "/s2", 1) + `}`}},
		{"binary mode", ce(), ` {"a": 1} `, []string{head + `,"datacontenttype":"application/json","data":{"a":1}}`}},
		{"binary mode without data", ce("Content-Type", ""), ``, []string{head + `}`}},
		{"binary mode, text", ce("Content-Type", "text/plain"), "a\n\"b\"", []string{head + `,"datacontenttype":"text/plain","data":"a\u000a\"b\""}`}},
		{"binary mode, bytes", ce("Content-Type", "image/png"), "\x00\xff", []string{head + `,"datacontenttype":"image/png","data_base64":"AP8="}`}},
		{"binary mode, text of another charset", ce("Content-Type", "text/plain; charset=iso-8859-1"), "\xe4", []string{head + `,"datacontenttype":"text/plain; charset=iso-8859-1","data_base64":"5A=="}`}},
		{"binary mode, percent-encoded", ce("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80%25", "ce-zz", "%22", "ce-aa", "x"), ``,
			[]string{head + `,"subject":"Euro € 😀%","aa":"x","zz":"\"","datacontenttype":"application/json"}`}},
		{"binary mode, quoted as in older versions", ce("ce-subject", `"a \"b\" c%20d"`), ``, []string{head + `,"subject":"a \"b\" c d","datacontenttype":"application/json"}`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := new(recorder)
			w := httptest.NewRecorder()
			if err := newPublisher(log).ServeChannel(w, post(tt.body, tt.header), admin(t), "acct-42"); err != nil {
				t.Fatalf("refused: %v", err)
			}
			got := log.events(t, "acct-42")
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
			for _, e := range got {
				if err := json.Unmarshal([]byte(e), new(event.Event)); err != nil {
					t.Errorf("what was appended is no event: %v", err)
				}
			}
		})
	}
}

func TestPublishesThatAreRefused(t *testing.T) {
	big := strings.Repeat("x", 257<<10)
	many := strings.Repeat(`{"type":"t"},`, 1001)
	for _, tt := range []struct {
		name   string
		header map[string]string
		body   string
		status int
		saying string
	}{
		{"not JSON", asJSON, `hello`, 400, "not JSON"},
		{"JSON that ends too early", asJSON, `{"type":"t"`, 400, "not JSON"},
		{"JSON with a comma too many", asJSON, `[{"type":"t"},]`, 400, "not JSON"},
		{"empty body", asJSON, ``, 400, "body is empty"},
		{"data that few parsers take", asJSON, `{"type":"t","data":` + strings.Repeat("[", 501) + strings.Repeat("]", 501) + `}`, 400, "nested more than 500"},
		{"nothing but white space", asJSON, ` `, 400, "no event"},
		{"empty array", asJSON, `[]`, 400, "no event"},
		{"no lines", asLines, "\n", 400, "no event"},
		{"a number", asJSON, `1`, 400, "neither an object nor an array"},
		{"two objects", asJSON, `{"type":"t"}{"type":"t"}`, 400, "something follows"},
		{"one bad event among good ones", asJSON, `[{"type":"t"},{"type":1},{"type":"t"}]`, 400, "event 1: type is not a string"},
		{"one bad line among good ones", asLines, "{\"type\":\"t\"}\n[]\n", 400, "event 1: it is not an object"},
		{"missing type", asJSON, `{"data":1}`, 400, "event 0: type is missing"},
		{"empty type", asJSON, `{"type":""}`, 400, "type is empty; want what happened"},
		{"empty id", asJSON, `{"type":"t","id":""}`, 400, "id is empty; leave it out"},
		{"type twice", asJSON, `{"type":"t","type":"u"}`, 400, "type is there twice"},
		{"extension twice", asJSON, `{"type":"t","x":1,"x":2}`, 400, "x is there twice"},
		{"line break in type", asJSON, `{"type":"t\nevent: longline.bye"}`, 400, "control character"},
		{"C1 control in id", asJSON, `{"type":"t","id":"\u0085"}`, 400, "control character"},
		{"unknown specversion", asJSON, `{"type":"t","specversion":"0.3"}`, 400, `specversion is "0.3"; want "1.0"`},
		{"structured without specversion", asEvent, `{"type":"t"}`, 400, "specversion is missing"},
		{"structured array", asEvent, `[]`, 400, "not an object"},
		{"batch of one object", asBatch, `{}`, 400, "not an array"},
		{"own cursor", asJSON, `{"type":"t","cursor":"a@b-1"}`, 400, "cursor is set by the gateway"},
		{"own channel", asJSON, `{"type":"t","channel":"a"}`, 400, "channel is set by the gateway"},
		{"data and data_base64", asJSON, `{"type":"t","data":1,"data_base64":""}`, 400, "both data and data_base64"},
		{"data_base64 and data", asJSON, `{"type":"t","data_base64":"","data":1}`, 400, "both data and data_base64"},
		{"not base64", asJSON, `{"type":"t","data_base64":"?"}`, 400, "not base64"},
		{"time of another form", asJSON, `{"type":"t","time":"yesterday"}`, 400, `time is "yesterday"; want RFC 3339`},
		{"bad datacontenttype", asJSON, `{"type":"t","datacontenttype":"a/b/c"}`, 400, "want a media type"},
		{"attribute name in capitals", asJSON, `{"type":"t","traceParent":"x"}`, 400, `attribute name "traceParent"`},
		{"attribute that is an object", asJSON, `{"type":"t","x":{}}`, 400, "attribute x is an object or array"},
		{"257 KiB", asJSON, `{"type":"t","data":"` + big + `"}`, 413, "want at most 262144"},
		{"1,001 events", asJSON, `[` + strings.TrimSuffix(many, ",") + `]`, 413, "more than 1000 events"},
		{"1,001 lines", asLines, strings.ReplaceAll(many, ",", "\n"), 413, "more than 1000 events"},
		{"more than 4 MiB", asJSON, strings.Repeat(" ", 4<<20+1), 413, "longer than 4194304 bytes"},
		{"invalid UTF-8", asJSON, "{\"type\":\"t\",\"data\":\"\xff\"}", 400, "UTF-8"},
		{"half a surrogate pair", asJSON, `{"type":"\ud800"}`, 400, "not JSON"},
		{"form of curl -d", map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, `{"type":"t"}`, 415, "want application/json"},
		{"no content type", nil, `{"type":"t"}`, 415, "want application/json"},
		{"compressed", map[string]string{"Content-Type": "application/json", "Content-Encoding": "gzip"}, `{}`, 415, "gzip"},
		{"CloudEvents in XML", map[string]string{"Content-Type": "application/cloudevents+xml", "ce-type": "t"}, `<a/>`, 415, "cloudevents+xml"},
		{"binary without specversion", ce("ce-specversion", ""), `1`, 400, "ce-specversion is missing"},
		{"binary of unknown specversion", ce("ce-specversion", "0.3"), `1`, 400, `"0.3"`},
		{"binary without type", ce("ce-type", ""), `1`, 400, "type is missing"},
		{"binary, body not JSON", ce(), `hello`, 400, "not JSON"},
		{"binary, two values", ce(), `1 2`, 400, "something follows"},
		{"binary, text not UTF-8", ce("Content-Type", "text/plain"), "\xff", 400, "not UTF-8"},
		{"binary, header not UTF-8", ce("ce-subject", "%ff"), `1`, 400, "ce-subject is not UTF-8"},
		{"binary, raw header not UTF-8", ce("ce-subject", "\xff"), `1`, 400, "ce-subject is not UTF-8"},
		{"binary, bad percent-encoding", ce("ce-subject", "100%"), `1`, 400, `"%"`},
		{"binary, line break by percent-encoding", ce("ce-subject", "a%0ab"), `1`, 400, "control character"},
		{"binary, open quote", ce("ce-subject", `"a`), `1`, 400, "quoted string"},
		{"binary, own cursor", ce("ce-cursor", "a@b-1"), `1`, 400, "cursor is set by the gateway"},
		{"binary, data as a header", ce("ce-data", "1"), `1`, 400, "the data is the body"},
		{"a type of the gateway's own", asJSON, `[{"type":"t"},{"type":"longline.bye"}]`, 403, `event 1: type "longline.bye"`},
		{"… structured", asEvent, `{"specversion":"1.0","id":"1","source":"/x","type":"longline.gap"}`, 403, "gateway's own"},
		{"… by lines", asLines, `{"type":"longline.hello"}`, 403, "gateway's own"},
		{"… escaped", asJSON, `{"type":"\u006congline.bye"}`, 403, "gateway's own"},
		{"… in binary mode", ce("ce-type", "longline.subscription.gap"), `1`, 403, "gateway's own"},
		{"… percent-encoded", ce("ce-type", "%6congline.bye"), `1`, 403, "gateway's own"},
		{"binary, bad attribute name", ce("ce-a-b", "1"), `1`, 400, `"a-b"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := new(recorder)
			w := httptest.NewRecorder()
			err := newPublisher(log).ServeChannel(w, post(tt.body, tt.header), admin(t), "acct-42")
			wantError(t, err, tt.status, tt.saying)
			if got := log.events(t, "acct-42"); len(got) != 0 {
				t.Errorf("refused, and yet appended: %q", got)
			}
		})
	}
}

func wantError(t *testing.T, err error, status int, saying string) {
	t.Helper()
	if err == nil {
		t.Fatal("taken")
	}
	if e := wire.From(err); e.Status() != status || !strings.Contains(e.Detail, saying) {
		t.Errorf("got %d %q, want %d saying %q", e.Status(), e.Detail, status, saying)
	}
}

func TestChannelsThatAreRefused(t *testing.T) {
	p := newPublisher(new(recorder))
	reader := authtest.Grant(t, auth.Mintage{Subscribe: []string{"**"}, Publish: []string{"acct-42"}, TTL: time.Hour})
	for _, tt := range []struct {
		channel string
		g       *auth.Grant
		status  int
		saying  string
	}{
		{"a/b", admin(t), 400, `channel "a/b"`},
		{"..", admin(t), 400, "empty segment"},
		{"a b", admin(t), 400, `channel "a b"`},
		{"", admin(t), 400, "0 bytes"},
		{strings.Repeat("a", 129), admin(t), 400, "129 bytes"},
		{"longline.events", admin(t), 403, "gateway's own"},
		{"acct-43", reader, 403, `token may not publish to "acct-43"`},
	} {
		t.Run(tt.channel, func(t *testing.T) {
			err := p.ServeChannel(httptest.NewRecorder(), post(`{"type":"t"}`, asJSON), tt.g, tt.channel)
			wantError(t, err, tt.status, tt.saying)
		})
	}
}

func TestAnswerNamesIDsAndCursors(t *testing.T) {
	p := newPublisher(new(recorder))
	w := httptest.NewRecorder()
	body := `[{"type":"t","id":"\"1\""},{"type":"t","id":"2"},{"type":"t","id":"2"},{"type":"t"}]`
	if err := p.ServeChannel(w, post(body, asJSON), admin(t), "acct-42"); err != nil {
		t.Fatal(err)
	}
	var got struct{ Events []struct{ ID, Cursor string } }
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if len(got.Events) != 4 || len(got.Events[3].ID) != 36 {
		t.Fatalf("got %s", w.Body)
	}
	want := fmt.Sprintf(`{"events":[{"id":"\"1\"","cursor":"acct-42@e1-1"},{"id":"2","cursor":"acct-42@e1-2"},{"id":"2","cursor":"acct-42@e1-2","duplicate":true},{"id":"%s","cursor":"acct-42@e1-3"}]}`, got.Events[3].ID)
	if strings.TrimSpace(w.Body.String()) != want {
		t.Errorf("got  %s\nwant %s", w.Body, want)
	}
}

func TestMadeUpIDsAreNoIdentity(t *testing.T) {
	log := new(recorder)
	p := newPublisher(log)
	for _, body := range []string{`{"type":"t"}`, `{"type":"t","id":"1"}`, `{"type":"t","id":"1","source":"/other"}`} {
		if err := p.ServeChannel(httptest.NewRecorder(), post(body, asJSON), admin(t), "c"); err != nil {
			t.Fatal(err)
		}
	}
	got := []string{log.entries["c"][0].Identity, log.entries["c"][1].Identity, log.entries["c"][2].Identity}
	if want := []string{"", "/channels/c\x001", "/other\x001"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("identities = %q, want %q", got, want)
	}
}

func TestPublishToSeveralChannels(t *testing.T) {
	log := &recorder{fail: map[string]error{"down": broker.ErrUnavailable}}
	p := newPublisher(log)
	w := httptest.NewRecorder()
	if err := p.ServeSeveral(w, post(`{"type":"t","id":"1","channels":["acct-42","firehose"],"data":{}}`, asJSON), admin(t)); err != nil {
		t.Fatal(err)
	}
	want := `{"events":[{"id":"1","channel":"acct-42","cursor":"acct-42@e1-1"},{"id":"1","channel":"firehose","cursor":"firehose@e1-1"}]}`
	if got := strings.TrimSpace(w.Body.String()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := log.events(t, "firehose")[0]; !strings.Contains(got, `"source":"/channels/firehose"`) {
		t.Errorf("source is not the channel's own: %s", got)
	}

	// One channel's broker is away: the answer says which, and a retry is safe.
	w = httptest.NewRecorder()
	if err := p.ServeSeveral(w, post(`{"type":"t","id":"1","channels":["acct-42","down"]}`, asJSON), admin(t)); err != nil {
		t.Fatal(err)
	}
	if w.Code != 503 || w.Header().Get("Retry-After") == "" || !json.Valid(w.Body.Bytes()) {
		t.Errorf("got %d, Retry-After %q, %s", w.Code, w.Header().Get("Retry-After"), w.Body)
	}
	for _, want := range []string{`"code":"unavailable"`, `{"id":"1","channel":"acct-42","cursor":"acct-42@e1-1","duplicate":true}`, `"channel":"down","error":{`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("answer lacks %s: %s", want, w.Body)
		}
	}

	// What is less than a second is not none.
	log.fail["down"] = wire.RateLimited(300*time.Millisecond, "slowly")
	w = httptest.NewRecorder()
	if err := p.ServeSeveral(w, post(`{"type":"t","id":"2","channels":["acct-42","down"]}`, asJSON), admin(t)); err != nil {
		t.Fatal(err)
	}
	if got := w.Header().Get("Retry-After"); got != "1" {
		t.Errorf("Retry-After of 300 ms is %q, want 1", got)
	}
}

func TestPublishesToSeveralThatAreRefused(t *testing.T) {
	hundred := make([]string, 101)
	for i := range hundred {
		hundred[i] = fmt.Sprintf(`"c%d"`, i)
	}
	one := authtest.Grant(t, auth.Mintage{Publish: []string{"a"}, TTL: time.Hour})
	for _, tt := range []struct {
		name   string
		g      *auth.Grant
		body   string
		status int
		saying string
	}{
		{"no channels", admin(t), `{"type":"t","id":"1"}`, 400, "channels is missing"},
		{"empty channels", admin(t), `{"type":"t","id":"1","channels":[]}`, 400, "channels is missing or empty"},
		{"channels not strings", admin(t), `{"type":"t","id":"1","channels":[1]}`, 400, "not an array of strings"},
		{"channel twice", admin(t), `{"type":"t","id":"1","channels":["a","a"]}`, 400, "named twice"},
		{"101 channels", admin(t), `{"type":"t","id":"1","channels":[` + strings.Join(hundred, ",") + `]}`, 413, "101 channels"},
		{"no id", admin(t), `{"type":"t","channels":["a"]}`, 400, "id is missing"},
		{"no type", admin(t), `{"id":"1","channels":["a"]}`, 400, "type is missing"},
		{"an array", admin(t), `[{"type":"t","id":"1","channels":["a"]}]`, 400, "not an object"},
		{"one channel not allowed", one, `{"type":"t","id":"1","channels":["a","b"]}`, 403, `"b"`},
		{"a type of the gateway's own", admin(t), `{"type":"longline.bye","id":"1","channels":["a"]}`, 403, "gateway's own"},
		{"a reserved channel", admin(t), `{"type":"t","id":"1","channels":["a","longline.x"]}`, 403, "gateway's own"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := new(recorder)
			wantError(t, newPublisher(log).ServeSeveral(httptest.NewRecorder(), post(tt.body, asJSON), tt.g), tt.status, tt.saying)
			if len(log.entries) != 0 {
				t.Errorf("refused, and yet appended: %v", log.entries)
			}
		})
	}
	err := newPublisher(new(recorder)).ServeSeveral(httptest.NewRecorder(), post("{}", asLines), admin(t))
	wantError(t, err, 415, "want application/json or application/cloudevents+json")
}

func TestChannelsInASingleChannelPublishIsAnError(t *testing.T) {
	err := newPublisher(new(recorder)).ServeChannel(httptest.NewRecorder(), post(`{"type":"t","channels":["a"]}`, asJSON), admin(t), "c")
	wantError(t, err, 400, "channels is an object or array")
}

func TestPublishJSON(t *testing.T) {
	log := new(recorder)
	p := newPublisher(log)
	events := []byte(`[{"type":"t","id":"1"}]`)
	got, err := p.PublishJSON(t.Context(), admin(t), "c", events)
	if err != nil {
		t.Fatal(err)
	}
	clear(events)
	if want := `[{"id":"1","cursor":"c@e1-1"}]`; string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := log.events(t, "c")[0]; !strings.Contains(got, `"id":"1"`) {
		t.Errorf("appended bytes are the caller's: %s", got)
	}
	_, err = p.PublishJSON(t.Context(), admin(t), "c", []byte(`{}`))
	wantError(t, err, 400, "type is missing")
}

func TestAdmissionComesBeforeTheAppend(t *testing.T) {
	log := new(recorder)
	p := publish.New(log, publish.Options{Admit: func(_ *auth.Grant, events, bytes int) error {
		if events != 2 || bytes < 100 {
			t.Errorf("asked for %d events, %d bytes", events, bytes)
		}
		return wire.RateLimited(time.Second, "too fast")
	}})
	err := p.ServeChannel(httptest.NewRecorder(), post(`[{"type":"t"},{"type":"t"}]`, asJSON), admin(t), "c")
	wantError(t, err, 429, "too fast")
	if len(log.entries) != 0 {
		t.Error("refused, and yet appended")
	}
}

// TestBodyOfUnknownLength: chunked bodies are read to the same limits.
func TestBodyOfUnknownLength(t *testing.T) {
	for _, tt := range []struct {
		size   int
		status int
	}{{1 << 20, 200}, {4<<20 + 1, 413}} {
		r := httptest.NewRequest("POST", "/", io.NopCloser(strings.NewReader(`{"type":"t"}`+strings.Repeat(" ", tt.size-12))))
		r.Header.Set("Content-Type", "application/json")
		r.ContentLength = -1
		err := newPublisher(new(recorder)).ServeChannel(httptest.NewRecorder(), r, admin(t), "c")
		if got := status(err); got != tt.status {
			t.Errorf("%d bytes: status %d, want %d (%v)", tt.size, got, tt.status, err)
		}
	}
}

func status(err error) int {
	if err == nil {
		return 200
	}
	return wire.From(err).Status()
}

// discard is a log that costs nothing.
type discard struct{ out []broker.Appended }

func (d *discard) Append(_ context.Context, _ string, entries []broker.Entry) ([]broker.Appended, error) {
	for len(d.out) < len(entries) {
		d.out = append(d.out, broker.Appended{Epoch: "e1", Offset: uint64(len(d.out) + 1)})
	}
	return d.out[:len(entries)], nil
}

func hundredEvents() []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range 100 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"type":"email.opened","subject":"user%d@example.com","data":{"ip":"203.0.113.7","agent":"%s"}}`, i, strings.Repeat("x", 150))
	}
	b.WriteByte(']')
	return b.Bytes()
}

func TestAnEventCostsTwoAllocations(t *testing.T) {
	p, g, body := newPublisher(new(discard)), admin(t), hundredEvents()
	got := testing.AllocsPerRun(50, func() {
		if _, err := p.PublishJSON(context.Background(), g, "acct-42", body); err != nil {
			t.Fatal(err)
		}
	})
	// The bytes that are kept, and 16 within the making of an id.
	if got > 210 && !raceEnabled {
		t.Errorf("%v allocations for 100 events, want at most 210", got)
	}
}

func BenchmarkBatchOf100(b *testing.B) {
	p, g, body := newPublisher(new(discard)), admin(b), hundredEvents()
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := p.PublishJSON(context.Background(), g, "acct-42", body); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
}

// FuzzBody: whatever the body, either it is refused and nothing is appended,
// or what is appended is events.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{``, `{}`, `[]`, `{"type":"t"}`, `[{"type":"t","data":{"a":[1,2,{"b":" \\\" "}]}}]`, `{"type":"t","data_base64":"AA=="}`, "{\"type\":\"t\"}\n{\"type\":\"u\"}", `{"type":"\u0074","id":"\ud83d\ude00","x":-1.5e9}`, "{\"type\":\"\xff\"}", `{"type":"t","channels":["a","b"],"id":"1"}`} {
		for kind := range 4 {
			f.Add(kind, seed)
		}
	}
	g := admin(f)
	f.Fuzz(func(t *testing.T, kind int, body string) {
		header := []map[string]string{asJSON, asEvent, asBatch, asLines}[uint(kind)%4]
		log := new(recorder)
		p := newPublisher(log)
		err := p.ServeChannel(httptest.NewRecorder(), post(body, header), g, "c")
		wantEventsOrError(t, log, "c", err)
		several := new(recorder)
		if err := newPublisher(several).ServeSeveral(httptest.NewRecorder(), post(body, header), g); err != nil {
			wantEventsOrError(t, several, "a", err)
		}
	})
}

// FuzzBinaryMode is the same for ce- headers.
func FuzzBinaryMode(f *testing.F) {
	f.Add("ce-subject", "Euro%20%E2%82%AC", "text/plain", "hello")
	f.Add("ce-time", "2026-11-22T13:31:00Z", "application/json", `{"a":1}`)
	f.Add("ce-x", `"a\"b"`, "image/png", "\x00\xff")
	f.Add("ce-partitionkey", "%", "", "1")
	f.Add("ce-data_base64", "", "a/b; charset=\"", "")
	g := admin(f)
	f.Fuzz(func(t *testing.T, name, value, contentType, body string) {
		r := post(body, ce("Content-Type", contentType))
		r.Header[http.CanonicalHeaderKey(name)] = []string{value}
		log := new(recorder)
		err := newPublisher(log).ServeChannel(httptest.NewRecorder(), r, g, "c")
		wantEventsOrError(t, log, "c", err)
	})
}

func wantEventsOrError(t *testing.T, log *recorder, channel string, err error) {
	t.Helper()
	got := log.events(t, channel)
	if err != nil {
		if s := status(err); s < 400 || s > 499 {
			t.Fatalf("status %d: %v", s, err)
		}
		if len(got) > 0 {
			t.Fatalf("refused (%v), and yet appended: %q", err, got)
		}
		return
	}
	if len(got) == 0 {
		t.Fatal("taken, and nothing appended")
	}
	for _, e := range got {
		var back event.Event
		if err := json.Unmarshal([]byte(e), &back); err != nil {
			t.Fatalf("appended what is no event: %v: %s", err, e)
		}
		if strings.ContainsAny(e, "\n\r") {
			t.Fatalf("a line break in %s", e)
		}
	}
}
