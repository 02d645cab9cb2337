package brokertest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
)

func testAppendPlaces(t *testing.T, f *fixture) {
	f.start()
	first := f.mustAppend("a", text("e1"), text("e2"))
	second := f.mustAppend("a", text("e3"))
	other := f.mustAppend("b", text("f1"))
	for i, got := range append(first, second...) {
		want := broker.Appended{Epoch: first[0].Epoch, Offset: uint64(i + 1)}
		if got != want {
			t.Errorf("place of e%d: got %+v, want %+v", i+1, got, want)
		}
	}
	if first[0].Epoch == "" || first[0].Epoch == other[0].Epoch {
		t.Errorf("epochs of two logs: %q and %q, want different ones", first[0].Epoch, other[0].Epoch)
	}
	if other[0].Offset != 1 {
		t.Errorf("first offset of another channel is %d, want 1", other[0].Offset)
	}
	f.wantLog("a", 1, "e1", "e2", "e3")
	f.wantLog("b", 1, "f1")
	s := f.mustState("a")
	if s.Epoch != first[0].Epoch || len(s.Forks) != 0 || s.Bytes <= 0 {
		t.Errorf("state %+v, want epoch %s, no forks and some bytes", s, first[0].Epoch)
	}
}

// A batch of a thousand is there as a whole or not at all, whenever one looks.
func testAppendAllOrNothing(t *testing.T, f *fixture) {
	f.start()
	const size, batches = 1000, 8
	batch := make([]broker.Entry, size)
	for i := range batch {
		batch[i] = text("x")
	}
	done := make(chan error, 1)
	go func() {
		for range batches {
			if _, err := f.Append(f.ctx, "a", batch); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		s, err := f.State(f.ctx, "a")
		if err == nil && s.Head%size != 0 {
			t.Fatalf("head is %d, in the middle of a batch of %d", s.Head, size)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if s := f.mustState("a"); s.Head != size*batches {
				t.Fatalf("head is %d, want %d", s.Head, size*batches)
			}
			return
		default:
		}
	}
}

func testAppendNothing(t *testing.T, f *fixture) {
	f.start()
	f.mustAppend("a", text("e1"))
	f.mustAppend("a")
	f.wantLog("a", 1, "e1")
}

func testAppendBytes(t *testing.T, f *fixture) {
	f.start()
	big := bytes.Repeat([]byte("0123456789abcdef"), 256<<10/16)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	want := [][]byte{{}, {0}, every, big}
	for _, data := range want {
		f.mustAppend("a", broker.Entry{Data: data})
	}
	p := f.mustRead("a", 0, broker.Limit{Bytes: 4 << 20})
	if len(p.Items) != len(want) {
		t.Fatalf("read %d events, want %d", len(p.Items), len(want))
	}
	for i, item := range p.Items {
		if !bytes.Equal(item.Data, want[i]) {
			t.Errorf("event %d: %d bytes came back changed (%d)", i+1, len(want[i]), len(item.Data))
		}
	}
}

func testAppendersOneChannel(t *testing.T, f *fixture)   { testAppenders(t, f, 1) }
func testAppendersManyChannels(t *testing.T, f *fixture) { testAppenders(t, f, 16) }

// Sixty-four appenders with batches of one to three events: each batch stands
// together where its answer says, and no offset is left out or given twice.
func testAppenders(t *testing.T, f *fixture, channels int) {
	f.start()
	const appenders, rounds = 64, 30
	var mu sync.Mutex
	at := make([]map[uint64]string, channels)
	for i := range at {
		at[i] = map[uint64]string{}
	}
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			for r := range rounds {
				c := (a + r) % channels
				entries := make([]broker.Entry, 1+(a+r)%3)
				for i := range entries {
					entries[i] = text(fmt.Sprintf("%d/%d/%d", a, r, i))
				}
				got, err := f.Append(f.ctx, fmt.Sprintf("many.%d", c), entries)
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				mu.Lock()
				for i, place := range got {
					if place.Offset != got[0].Offset+uint64(i) {
						t.Errorf("a batch was split: %+v", got)
					}
					if was, taken := at[c][place.Offset]; taken {
						t.Errorf("offset %d was given to %s and to %s", place.Offset, was, entries[i].Data)
					}
					at[c][place.Offset] = string(entries[i].Data)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for c := range channels {
		want := make([]string, len(at[c]))
		for i := range want {
			data, ok := at[c][uint64(i+1)]
			if !ok {
				t.Fatalf("offset %d of %d was never given", i+1, len(want))
			}
			want[i] = data
		}
		f.wantLog(fmt.Sprintf("many.%d", c), 1, want...)
	}
}

// Who gives an append up uses the slice for something else at once: it may yet
// be appended, but as it was given.
func testAppendGivenUp(t *testing.T, f *fixture) {
	f.start()
	const appenders, each = 32, 8
	var wg sync.WaitGroup
	for range appenders {
		wg.Go(func() {
			entries := make([]broker.Entry, 1)
			for i := range each {
				ctx, cancel := context.WithCancel(f.ctx)
				stop := time.AfterFunc(time.Duration(i)*100*time.Microsecond, cancel) // at any point of it
				entries[0] = named(fmt.Sprintf("%p-%d", &entries[0], i), "given")
				_, err := f.Append(ctx, "a", entries)
				if err != nil && ctx.Err() == nil {
					t.Errorf("append: %v", err)
				}
				entries[0] = text("another's")
				stop.Stop()
				cancel()
			}
		})
	}
	wg.Wait()
	f.mustAppend("a", text("last"))
	want := slices.Repeat([]string{"given"}, int(f.mustState("a").Head)-1)
	f.wantLog("a", 1, append(want, "last")...)
}

// A caller that gives up leaves a log in which the event is or isn't, once.
func testAppendCancelled(t *testing.T, f *fixture) {
	f.start()
	for i := range 50 {
		ctx, cancel := context.WithCancel(f.ctx)
		go cancel()
		_, _ = f.Append(ctx, "a", []broker.Entry{named(fmt.Sprint(i), fmt.Sprint(i))})
		f.mustAppend("a", named(fmt.Sprint(i), fmt.Sprint(i)))
	}
	var want []string
	for i := range 50 {
		want = append(want, fmt.Sprint(i))
	}
	f.wantLog("a", 1, want...)
}

func wantDuplicate(t *testing.T, got, of broker.Appended) {
	t.Helper()
	if !got.Duplicate || got.Offset != of.Offset {
		t.Fatalf("got %+v, want a duplicate of %+v", got, of)
	}
}

func testDedupe(t *testing.T, f *fixture) {
	f.start()
	first := f.mustAppend("a", named("src id1", "e1"))
	f.mustAppend("a", text("e2"))
	again := f.mustAppend("a", named("src id1", "other"))
	wantDuplicate(t, again[0], first[0])
	if again[0].Epoch != first[0].Epoch {
		t.Errorf("epoch of the duplicate is %s, want %s", again[0].Epoch, first[0].Epoch)
	}
	mixed := f.mustAppend("a", named("src id2", "e3"), named("src id1", "other"), text("e4"))
	wantDuplicate(t, mixed[1], first[0])
	if mixed[0].Duplicate || mixed[0].Offset != 3 || mixed[2].Duplicate || mixed[2].Offset != 4 {
		t.Errorf("places around a duplicate: %+v, want offsets 3 and 4", mixed)
	}
	f.wantLog("a", 1, "e1", "e2", "e3", "e4")
}

func testDedupeBatch(t *testing.T, f *fixture) {
	f.start()
	got := f.mustAppend("a", named("x", "e1"), named("y", "e2"), named("x", "other"), text("e3"), text("e4"))
	wantDuplicate(t, got[2], got[0])
	f.wantLog("a", 1, "e1", "e2", "e3", "e4")
}

func testDedupeConcurrent(t *testing.T, f *fixture) {
	f.start()
	const appenders, ids = 32, 20
	var mu sync.Mutex
	offsets := map[string]uint64{}
	var wg sync.WaitGroup
	for a := range appenders {
		wg.Go(func() {
			for i := range ids {
				id := fmt.Sprint((a + i) % ids)
				got, err := f.Append(f.ctx, "a", []broker.Entry{named(id, id)})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				mu.Lock()
				if was, ok := offsets[id]; ok && was != got[0].Offset {
					t.Errorf("id %s is at %d and at %d", id, was, got[0].Offset)
				}
				offsets[id] = got[0].Offset
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if s := f.mustState("a"); s.Head != ids {
		t.Fatalf("%d events for %d ids", s.Head, ids)
	}
}

func testDedupePerChannel(t *testing.T, f *fixture) {
	f.start()
	f.mustAppend("a", named("x", "e1"))
	if got := f.mustAppend("b", named("x", "f1")); got[0].Duplicate {
		t.Fatal("an id of another channel counted as seen")
	}
	f.wantLog("b", 1, "f1")
}

func testDedupeWindow(t *testing.T, f *fixture) {
	f.open(broker.Options{DedupeWindow: time.Minute})
	first := f.mustAppend("a", named("x", "e1"))
	f.clock.Move(59 * time.Second)
	wantDuplicate(t, f.mustAppend("a", named("x", "other"))[0], first[0])
	f.clock.Move(2 * time.Second)
	again := f.mustAppend("a", named("x", "e2"))
	if again[0].Duplicate {
		t.Fatal("an id was remembered beyond the window")
	}
	f.clock.Move(30 * time.Second)
	wantDuplicate(t, f.mustAppend("a", named("x", "other"))[0], again[0])
	f.wantLog("a", 1, "e1", "e2")
}

func testDedupeDrop(t *testing.T, f *fixture) {
	f.start()
	f.mustAppend("a", named("x", "e1"))
	if err := f.Drop(f.ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if got := f.mustAppend("a", named("x", "f1")); got[0].Duplicate {
		t.Fatal("an id of a dropped log counted as seen")
	}
	f.wantLog("a", 1, "f1")
}

func testDedupeReopen(t *testing.T, f *fixture) {
	f.open(broker.Options{DedupeWindow: time.Minute})
	first := f.mustAppend("a", named("x", "e1"), named("y", "e2"))
	f.clock.Move(50 * time.Second)
	f.reopen()
	again := f.mustAppend("a", named("x", "other"), named("z", "e3"))
	wantDuplicate(t, again[0], first[0])
	f.clock.Move(11 * time.Second)
	f.reopen()
	later := f.mustAppend("a", named("y", "e4"), named("z", "other"))
	if later[0].Duplicate {
		t.Fatal("an id was remembered beyond the window")
	}
	wantDuplicate(t, later[1], again[1])
	f.wantLog("a", 1, "e1", "e2", "e3", "e4")
}
