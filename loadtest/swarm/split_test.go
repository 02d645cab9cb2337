package swarm

import (
	"testing"
	"time"

	"github.com/longline-push/longline/loadtest/floor"
	"github.com/longline-push/longline/loadtest/pump"
)

func TestSharesCoverAllClientsOnce(t *testing.T) {
	spec := Spec{Clients: 50_001, First: 7, PerSecond: 300, InFlight: 256, Lane: 5}.withDefaults()
	next := spec.First
	lanes := map[int]bool{}
	for _, share := range spec.split(3) {
		if share.First != next || share.Channels != 50_001 || share.PerSecond != 100 || lanes[share.Lane] {
			t.Errorf("share %+v follows %d", share, next)
		}
		lanes[share.Lane] = true
		next += share.Clients
	}
	if next != spec.First+spec.Clients {
		t.Errorf("shares end at %d, want %d", next, spec.First+spec.Clients)
	}
}

// TestClientsInChildren runs a swarm as it runs past a process's descriptors.
func TestClientsInChildren(t *testing.T) {
	f, err := floor.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	s := &Swarm{spec: Spec{Target: f.Addr, Transport: WebSocket, Clients: 40, Channels: 4, Base: "t"}.withDefaults()}
	t.Cleanup(s.Stop)
	if err := s.fork(3); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(t.Context(), 10*time.Second, nil); err != nil {
		t.Fatal(err)
	}
	p, err := pump.Start(pump.Options{Target: f.Addr, Base: "t", Channels: 4, Limit: 80})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	latencies := int64(0)
	for deadline := time.Now().Add(10 * time.Second); ; {
		st, err := s.State()
		if err != nil {
			t.Fatal(err)
		}
		latencies += st.Latency.Count()
		if st.Delivered == 800 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %d deliveries, want 800", st.Delivered)
		}
	}
	if latencies != 800 {
		t.Errorf("got %d latencies, want 800", latencies)
	}
	st, err := s.Settle([]uint64{20, 20, 20, 21})
	if err != nil || st.Faults.Lost != 10 {
		t.Errorf("got %+v, error %v, want 10 lost", st.Faults, err)
	}
}

func TestChildThatCannotStartSaysWhy(t *testing.T) {
	s := &Swarm{spec: Spec{Target: "nowhere", Transport: SSE, Clients: 2}.withDefaults()}
	t.Cleanup(s.Stop)
	if err := s.fork(1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.State(); err == nil {
		t.Error("got no error")
	}
}
