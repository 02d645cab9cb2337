package callback_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
)

func TestMain(m *testing.M) {
	if os.Getenv(receiverEnv) != "" {
		serveReceiver()
		return
	}
	goleak.VerifyTestMain(m)
}

// memory is a Source and a Progress over a log in memory of one channel.
type memory struct {
	mu      sync.Mutex
	events  []callback.Event
	first   int // offset of the oldest that is left, less one
	fresh   chan struct{}
	at      uint64 // acknowledged
	acks    int    // calls of Advance
	dead    []callback.Letter
	fenced  bool
	away    error // the broker's trouble
	notices []string
	reads   int
	handed  int // events that were read
}

const (
	testChannel = "acct-42"
	testEpoch   = "k3f9zq"
)

func newMemory() *memory { return &memory{fresh: make(chan struct{}, 1)} }

// publish appends events with these keys; "" for none.
func (m *memory) publish(keys ...string) {
	m.mu.Lock()
	for _, key := range keys {
		n := len(m.events) + 1
		f := event.Fields{ID: fmt.Sprint("e", n), Source: "/test", Type: "t", Key: key, Data: fmt.Appendf(nil, `{"n":%d}`, n)}
		at := cursor(n)
		v, err := event.Stored(f.AppendStored(nil)).View()
		if err != nil {
			panic(err)
		}
		m.events = append(m.events, callback.Event{Cursor: at, ID: f.ID, Key: key, JSON: v.AppendJSON(nil, at)})
	}
	m.mu.Unlock()
	select {
	case m.fresh <- struct{}{}:
	default:
	}
}

func cursor(n int) event.Cursor {
	return event.Cursor{Channel: testChannel, Epoch: testEpoch, Offset: uint64(n)}
}

func (m *memory) Read(_ context.Context, after event.Position, limit, bytes int) (callback.Page, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	switch {
	case m.fenced:
		return callback.Page{}, broker.ErrFenced
	case m.away != nil:
		return callback.Page{}, m.away
	}
	from := int(after[0].Offset)
	var p callback.Page
	if from < m.first {
		p.Gaps = []callback.Gap{{From: cursor(from), To: cursor(m.first), Reason: "retention"}}
		from = m.first
	}
	to := min(len(m.events), from+limit)
	for i := from; i < to; i++ {
		if bytes -= len(m.events[i].JSON); bytes <= 0 {
			to = i + 1
		}
	}
	p.Events = slices.Clone(m.events[from:to])
	m.handed += to - from
	p.Position = event.Position{cursor(to)}
	return p, nil
}

func (m *memory) Rest() {}

func (m *memory) Wake() <-chan struct{} { return m.fresh }

func (m *memory) Advance(_ context.Context, to event.Position) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acks++
	switch {
	case m.fenced:
		return broker.ErrFenced
	case m.away != nil:
		return m.away
	case to[0].Offset < m.at:
		panic("position moved back")
	}
	m.at = to[0].Offset
	return nil
}

func (m *memory) Bury(_ context.Context, letters []callback.Letter) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fenced {
		return broker.ErrFenced
	}
	if m.away != nil {
		return m.away
	}
	m.dead = append(m.dead, letters...)
	return nil
}

func (m *memory) Redriven(context.Context, []string) error { return nil }

func (m *memory) Notify(n callback.Notice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notices = append(m.notices, n.Kind.String())
}

func (m *memory) fence() {
	m.mu.Lock()
	m.fenced = true
	m.mu.Unlock()
}

func (m *memory) trouble(err error) {
	m.mu.Lock()
	m.away = err
	m.mu.Unlock()
}

func (m *memory) position() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return int(m.at)
}

func (m *memory) buried() []callback.Letter {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.dead)
}

func (m *memory) commits() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.acks
}

func (m *memory) deadIDs() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var ids []string
	for _, l := range m.dead {
		ids = append(ids, l.Event.ID)
	}
	return strings.Join(ids, " ")
}

func (m *memory) noticed() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.notices, " ")
}

// call is one POST as a receiver saw it.
type call struct {
	at      time.Time
	ids     []string
	header  http.Header
	body    string
	attempt string
}

// endpoint is a receiver without a network: it answers as it is told to.
type endpoint struct {
	answer func(c call) reply // nil: 200
	forget bool               // don't keep calls

	mu    sync.Mutex
	calls []call
	now   int // calls under way
	most  int // at once
}

type reply struct {
	status int
	header http.Header
	body   string
	err    error
	takes  time.Duration
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	c := call{at: time.Now(), ids: idsOf(string(body)), header: r.Header, body: string(body), attempt: r.Header.Get("Longline-Attempt")}
	e.mu.Lock()
	if !e.forget {
		e.calls = append(e.calls, c)
	}
	e.now++
	e.most = max(e.most, e.now)
	say := e.answer
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		e.now--
		e.mu.Unlock()
	}()
	a := reply{status: 200}
	if say != nil {
		a = say(c)
	}
	if a.takes > 0 {
		select {
		case <-time.After(a.takes):
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	if a.header == nil {
		a.header = http.Header{}
	}
	return &http.Response{StatusCode: a.status, Header: a.header, Body: io.NopCloser(strings.NewReader(a.body))}, nil
}

func idsOf(body string) []string {
	var ids []string
	for part := range strings.SplitSeq(body, `{"specversion":"1.0","id":"`) {
		if id, _, ok := strings.Cut(part, `"`); ok && strings.HasPrefix(id, "e") {
			ids = append(ids, id)
		}
	}
	return ids
}

func (e *endpoint) say(answer func(c call) reply) {
	e.mu.Lock()
	e.answer = answer
	e.mu.Unlock()
}

func (e *endpoint) seen() []call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.calls)
}

// said lists what each call carried: "e1 e2+e3 e1".
func (e *endpoint) said() string {
	var b bytes.Buffer
	for i, c := range e.seen() {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(strings.Join(c.ids, "+"))
	}
	return b.String()
}

func status(n int) func(call) reply { return func(call) reply { return reply{status: n} } }

var errDown = errors.New("connection refused")

// delivery is a running worker and all around it.
type delivery struct {
	*memory
	*endpoint
	engine *callback.Engine
	worker *callback.Worker
	result chan callback.Result
}

// deliver starts a worker over a log and an endpoint in memory. It is made for
// a synctest bubble.
func deliver(t *testing.T, m *memory, e *endpoint, set func(*callback.Subscription)) *delivery {
	t.Helper()
	d := &delivery{memory: m, endpoint: e, result: make(chan callback.Result, 1)}
	d.engine = callback.New(callback.Options{Transport: e})
	sub := callback.Subscription{
		Name: "crm-42", Target: callback.Target{URL: "https://crm.example.com/longline"}, Position: event.Position{cursor(m.position())},
	}
	if set != nil {
		set(&sub)
	}
	var err error
	d.worker, err = d.engine.Deliver(sub, m, m, func(r callback.Result) { d.result <- r })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.engine.Halt)
	return d
}

func (d *delivery) ends(t *testing.T) callback.Result {
	t.Helper()
	return <-d.result
}

func wantText(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func repeat(key string, n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = key
	}
	return keys
}

func itoa(n int) string { return fmt.Sprint(n) }
