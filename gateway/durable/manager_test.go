package durable_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/durable/durabletest"
	"github.com/longline-push/longline/gateway/wire"
)

var errAway = errors.New("the broker is away")

// flaky is a broker whose calls fail when a test says so.
type flaky struct {
	broker.Durable
	loseStores   atomic.Int32 // this many more Stores fail, and nothing is stored
	loseAnswers  atomic.Int32 // this many more Stores fail though they are done
	loseAdvances atomic.Int32 // this many more Advances fail
	loseMessages atomic.Bool
	panics       atomic.Int32       // this many more Stores panic
	lost         chan broker.Update // Stores that failed and did nothing
	freed        chan struct{}      // a Store left nobody as owner
}

func newFlaky(t *testing.T) *flaky {
	return &flaky{Durable: durabletest.Open(t), lost: make(chan broker.Update, 16), freed: make(chan struct{}, 16)}
}

func (f *flaky) Store(ctx context.Context, u broker.Update) error {
	if f.panics.Add(-1) >= 0 {
		panic("a mistake")
	}
	if f.loseStores.Add(-1) >= 0 {
		f.lost <- u
		return errAway
	}
	err := f.Durable.Store(ctx, u)
	if err == nil && f.loseAnswers.Add(-1) >= 0 {
		return errAway
	}
	if err == nil && u.Node == "" {
		f.freed <- struct{}{}
	}
	return err
}

func (f *flaky) Advance(ctx context.Context, moves []broker.Move) ([]int, error) {
	if f.loseAdvances.Add(-1) >= 0 {
		return nil, errAway
	}
	return f.Durable.Advance(ctx, moves)
}

func (f *flaky) Send(ctx context.Context, to string, message []byte) error {
	if f.loseMessages.Load() {
		return nil
	}
	return f.Durable.Send(ctx, to, message)
}

// line is a holder that remembers how its ownership ended.
type line struct{ ended chan wire.CloseCode }

func newLine() *line { return &line{ended: make(chan wire.CloseCode, 1)} }

func (l *line) Ended(code wire.CloseCode, _ string) { l.ended <- code }
func (*line) Yield()                                {}
func (*line) Changed(durable.State)                 {}
func (*line) Acked(event.Position)                  {}
func (*line) Redrive()                              {}
func (*line) Suspended()                            {}

// mustCreate makes a subscription of channel a, at a@e-0.
func mustCreate(t *testing.T, k *durable.Manager, name string) {
	t.Helper()
	d, err := durable.ParseDefinition([]byte(`{"channels":["a"]}`))
	if err != nil {
		t.Fatal(err)
	}
	err = k.Change(t.Context(), name, func(s durable.State, _ bool, env durable.Env) (durable.Change, error) {
		_, c := durable.Create(s.Name, durable.Record{Definition: d}, at(0), env)
		return c, nil
	})
	if err != nil {
		t.Fatalf("create %s: %v", name, err)
	}
}

func mustDelete(t *testing.T, k *durable.Manager, name string) {
	t.Helper()
	err := k.Change(t.Context(), name, func(s durable.State, _ bool, _ durable.Env) (durable.Change, error) {
		return durable.Delete(s), nil
	})
	if err != nil {
		t.Fatalf("delete %s: %v", name, err)
	}
}

func attach(t *testing.T, k *durable.Manager, name, consumer string) (*durable.Ownership, *line, error) {
	t.Helper()
	l := newLine()
	h, err := k.Acquire(t.Context(), name, durable.Claim{Connection: consumer + "-line", Consumer: consumer, Kind: durable.Live}, l)
	return h, l, err
}

func mustAttach(t *testing.T, k *durable.Manager, name, consumer string) (*durable.Ownership, *line) {
	t.Helper()
	h, l, err := attach(t, k, name, consumer)
	if err != nil {
		t.Fatalf("attach %s to %s: %v", consumer, name, err)
	}
	return h, l
}

func wantState(t *testing.T, k *durable.Manager, name, consumer, position string) {
	t.Helper()
	s, err := k.Load(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	owner := ""
	if s.Owner != nil {
		owner = s.Owner.Consumer
	}
	if owner != consumer || s.Position.String() != position {
		t.Errorf("%s: owned by %q at %s, want %q at %s", name, owner, s.Position, consumer, position)
	}
}

func cursorAt(offset int8) event.Cursor { return at(offset)[0] }

// A failover forgets that one owns a subscription; another acquires it.
func TestForgottenAcquire(t *testing.T) {
	b := newFlaky(t)
	one := durabletest.Run(t, durable.Options{Broker: b})
	other := durabletest.Run(t, durable.Options{Broker: b})
	mustCreate(t, one, "crm")
	before, err := b.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	first, line := mustAttach(t, one, "crm", "first")
	now, err := b.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	err = b.Durable.Store(t.Context(), broker.Update{Name: "crm", Version: now.Version, Generation: before.Generation,
		Record: before.Record, Channels: []string{"a"}, Due: broker.Never})
	if err != nil {
		t.Fatal(err)
	}
	second, _ := mustAttach(t, other, "crm", "second")
	if first.Generation == second.Generation {
		t.Errorf("two owners have generation %d", first.Generation)
	}
	first.Advance(cursorAt(7), 1)
	if code := <-line.ended; code != wire.CloseRestart {
		t.Errorf("the first line ended with %d, want %d: it may stand by", code, wire.CloseRestart)
	}
	wantState(t, one, "crm", "second", "a@e-0")
}

// A failover forgets that one was released: nobody serves it, and nobody could
// have it but for the node's look.
func TestForgottenRelease(t *testing.T) {
	b := newFlaky(t)
	k := durabletest.Run(t, durable.Options{Broker: b, TTL: time.Second})
	mustCreate(t, k, "crm")
	h, _ := mustAttach(t, k, "crm", "first")
	owned, err := b.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	for len(b.freed) > 0 {
		<-b.freed
	}
	h.Release(nil, 0)
	<-b.freed
	now, err := b.Load(t.Context(), "crm")
	if err != nil {
		t.Fatal(err)
	}
	err = b.Durable.Store(t.Context(), broker.Update{Name: "crm", Version: now.Version, Generation: owned.Generation,
		Record: owned.Record, Channels: []string{"a"}, Node: k.Node(), Due: broker.Never})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := attach(t, k, "crm", "second"); !errors.Is(err, durable.ErrHeld) {
		t.Errorf("attach at once: got %v, want ErrHeld", err)
	}
	<-b.freed
	mustAttach(t, k, "crm", "second")
}

// A subscription is deleted and made again while the message that ends its
// line is lost.
func TestDeletedAndMadeAgain(t *testing.T) {
	b := newFlaky(t)
	one := durabletest.Run(t, durable.Options{Broker: b})
	other := durabletest.Run(t, durable.Options{Broker: b})
	mustCreate(t, one, "crm")
	old, line := mustAttach(t, one, "crm", "me")
	b.loseMessages.Store(true)
	mustDelete(t, other, "crm")
	mustCreate(t, other, "crm")
	h, _ := mustAttach(t, other, "crm", "you")
	if h.Generation == old.Generation {
		t.Errorf("the new owner has the old one's generation %d", h.Generation)
	}
	old.Advance(cursorAt(7), 1)
	<-line.ended
	wantState(t, other, "crm", "you", "a@e-0")
}

// An acquire fails, whether its store was done or not; the client tries again.
func TestAcquireThatFailed(t *testing.T) {
	for _, test := range []struct {
		story string
		fail  func(b *flaky)
	}{
		{"its store did nothing", func(b *flaky) { b.loseStores.Store(1) }},
		{"its store was done", func(b *flaky) { b.loseAnswers.Store(1) }},
	} {
		t.Run(test.story, func(t *testing.T) {
			b := newFlaky(t)
			k := durabletest.Run(t, durable.Options{Broker: b})
			mustCreate(t, k, "crm")
			mustCreate(t, k, "erp")
			test.fail(b)
			if _, _, err := attach(t, k, "crm", "me"); !errors.Is(err, errAway) {
				t.Fatalf("attach while the broker is away: got %v", err)
			}
			_, line := mustAttach(t, k, "crm", "me")
			// What the first one left behind is settled before what comes later is.
			other, _ := mustAttach(t, k, "erp", "me")
			for len(b.freed) > 0 {
				<-b.freed
			}
			other.Release(nil, 0)
			for {
				<-b.freed
				if s, err := k.Load(t.Context(), "erp"); err == nil && s.Owner == nil {
					break
				}
			}
			wantState(t, k, "crm", "me", "a@e-0")
			select {
			case code := <-line.ended:
				t.Errorf("the line ended with %d", code)
			default:
			}
		})
	}
}

// The store of an acquire that was given up comes late: it must do nothing,
// for nobody would serve what it takes.
func TestLateStore(t *testing.T) {
	b := newFlaky(t)
	k := durabletest.Run(t, durable.Options{Broker: b})
	mustCreate(t, k, "crm")
	for len(b.freed) > 0 {
		<-b.freed
	}
	b.loseStores.Store(1)
	if _, _, err := attach(t, k, "crm", "me"); !errors.Is(err, errAway) {
		t.Fatalf("attach while the broker is away: got %v", err)
	}
	<-b.freed // it was given up
	if err := b.Durable.Store(t.Context(), <-b.lost); !errors.Is(err, broker.ErrConflict) {
		t.Errorf("the late store: got %v, want ErrConflict", err)
	}
	wantState(t, k, "crm", "", "a@e-0")
}

// Acks can't be committed for a while; the line goes meanwhile.
func TestReleaseKeepsAcks(t *testing.T) {
	b := newFlaky(t)
	k := durabletest.Run(t, durable.Options{Broker: b})
	mustCreate(t, k, "crm")
	h, _ := mustAttach(t, k, "crm", "me")
	for len(b.freed) > 0 {
		<-b.freed
	}
	b.loseAdvances.Store(3)
	h.Advance(cursorAt(7), 1)
	h.Release(nil, 0)
	<-b.freed
	wantState(t, k, "crm", "", "a@e-7")
}

// Whoever gives something up says who he is.
func TestOnlyTheOwnerGivesUp(t *testing.T) {
	env := durable.Env{Now: start, Alive: func(string) bool { return true }}
	s := durable.State{Name: "s", Progress: broker.Progress{Generation: 3}}
	s.Definition = modelDefinition
	s.Owner = &durable.Owner{Node: "n1", Connection: "c1", Kind: durable.Live}
	for _, test := range []struct {
		story string
		right durable.Right
		want  error
	}{
		{"the owner", durable.Right{Generation: 3, Node: "n1", Connection: "c1"}, nil},
		{"one of another generation", durable.Right{Generation: 2, Node: "n1", Connection: "c1"}, durable.ErrFenced},
		{"another node", durable.Right{Generation: 3, Node: "n2", Connection: "c1"}, durable.ErrFenced},
		{"another connection", durable.Right{Generation: 3, Node: "n1", Connection: "c2"}, durable.ErrFenced},
	} {
		_, release := durable.Release(s, test.right, nil, false, 0, env)
		_, park := durable.Park(s, test.right, env)
		_, disable := durable.Disable(s, test.right, env)
		for what, err := range map[string]error{"release": release, "park": park, "disable": disable} {
			if !errors.Is(err, test.want) {
				t.Errorf("%s by %s: got %v, want %v", what, test.story, err, test.want)
			}
		}
	}
}
