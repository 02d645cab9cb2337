package ledger_test

import (
	"math/rand/v2"
	"testing"

	"github.com/longline-push/longline/loadtest/ledger"
)

// arrival is a sequence number at an offset.
type arrival struct{ seq, offset uint64 }

func TestLedgerFindsFaults(t *testing.T) {
	for _, tc := range []struct {
		name     string
		arrivals []arrival
		head     uint64
		want     ledger.Faults
	}{
		{"all, once, in order", []arrival{{1, 5}, {2, 6}, {3, 7}}, 3, ledger.Faults{}},
		{"nothing was published", nil, 0, ledger.Faults{}},
		{"nothing arrived", nil, 4, ledger.Faults{Lost: 4}},
		{"the first is lost", []arrival{{2, 6}, {3, 7}}, 3, ledger.Faults{Lost: 1}},
		{"one in the middle is lost", []arrival{{1, 5}, {3, 7}}, 3, ledger.Faults{Lost: 1, Holes: 1}},
		{"one in the middle never got an offset", []arrival{{1, 5}, {3, 6}}, 3, ledger.Faults{Lost: 1}},
		{"the end is lost", []arrival{{1, 5}, {2, 6}}, 5, ledger.Faults{Lost: 3}},
		{"one comes twice at once", []arrival{{1, 5}, {1, 5}, {2, 6}}, 2, ledger.Faults{Duplicated: 1}},
		{"one comes again later", []arrival{{1, 5}, {2, 6}, {3, 7}, {1, 5}}, 3, ledger.Faults{Duplicated: 1}},
		{"two change places", []arrival{{1, 5}, {3, 7}, {2, 6}, {4, 8}}, 4, ledger.Faults{Disordered: 1, Holes: 1}},
		{"a late one comes twice", []arrival{{1, 5}, {3, 7}, {2, 6}, {2, 6}}, 3, ledger.Faults{Disordered: 1, Duplicated: 1, Holes: 1}},
		{"published twice: new offset", []arrival{{1, 5}, {2, 6}, {2, 7}, {3, 8}}, 3, ledger.Faults{Duplicated: 1, Holes: 1}},
		{"two gaps, one filled in its middle", []arrival{{1, 1}, {5, 5}, {9, 9}, {3, 3}}, 9, ledger.Faults{Lost: 5, Disordered: 1, Holes: 2}},
		{"an offset is left out", []arrival{{1, 5}, {2, 7}}, 2, ledger.Faults{Holes: 1}},
		{"more than was published", []arrival{{1, 5}, {2, 6}}, 1, ledger.Faults{Strange: 1}},
		{"no sequence number", []arrival{{0, 5}}, 0, ledger.Faults{Strange: 1}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := ledger.From(1)
			for _, a := range tc.arrivals {
				l.See(a.seq, a.offset)
			}
			if got := l.Close(tc.head); got != tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
			if got, want := l.Close(tc.head).Err() != nil, tc.want != (ledger.Faults{}); got != want {
				t.Errorf("reports an error: got %v, want %v", got, want)
			}
		})
	}
}

func TestLedgerThatStartsAnywhere(t *testing.T) {
	var l ledger.Ledger
	if got := l.Close(9); got != (ledger.Faults{}) {
		t.Errorf("before anything came: got %+v, want no faults", got)
	}
	l.See(7, 70)
	l.See(9, 72)
	if got, want := l.Close(10), (ledger.Faults{Lost: 2, Holes: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestLedgerAgainstSets damages streams at random and compares the ledger with
// a plain count of what arrived.
func TestLedgerAgainstSets(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		const head = 40
		var stream []uint64
		for seq := uint64(1); seq <= head; seq++ {
			switch r.IntN(6) {
			case 0: // lost
			case 1:
				stream = append(stream, seq, seq)
			default:
				stream = append(stream, seq)
			}
		}
		for range r.IntN(4) {
			if len(stream) > 1 {
				i, j := r.IntN(len(stream)), r.IntN(len(stream))
				stream[i], stream[j] = stream[j], stream[i]
			}
		}
		l, seen, high := ledger.From(1), map[uint64]bool{}, uint64(0)
		var want ledger.Faults
		for _, seq := range stream {
			switch {
			case seen[seq]:
				want.Duplicated++
			case seq < high:
				want.Disordered++
			}
			seen[seq] = true
			high = max(high, seq)
			l.See(seq, 0)
		}
		want.Lost = head - uint64(len(seen))
		if got := l.Close(head); got != want {
			t.Fatalf("stream %v: got %+v, want %+v", stream, got, want)
		}
	}
}
