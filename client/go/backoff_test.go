package longline

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBackoffHasFullJitter(t *testing.T) {
	const least, most = 100 * time.Millisecond, 5 * time.Second
	for n := range 80 {
		ceiling := most
		if n < 6 {
			ceiling = least << n
		}
		low, high := ceiling, time.Duration(0)
		for range 200 {
			wait := jitter(least, most, n)
			low, high = min(low, wait), max(high, wait)
		}
		if high > ceiling {
			t.Errorf("failure %d: got a wait of %v, want at most %v", n, high, ceiling)
		}
		if low > ceiling/4 || high < ceiling*3/4 {
			t.Errorf("failure %d: got waits from %v to %v, want all from 0 to %v", n, low, high, ceiling)
		}
	}
	if wait := jitter(0, 0, 3); wait != 0 {
		t.Errorf("got %v, want 0", wait)
	}
}

func TestPaceAllowsOneSecondsBurst(t *testing.T) {
	p := newPace(10)
	now := time.Unix(1000, 0)
	for n := range 10 {
		if wait := p.take(now); wait != 0 {
			t.Fatalf("call %d of the burst: got a wait of %v", n+1, wait)
		}
	}
	for n := 1; n <= 30; n++ {
		if got, want := p.take(now), time.Duration(n)*100*time.Millisecond; got != want {
			t.Fatalf("call %d after it: got a wait of %v, want %v", n, got, want)
		}
	}
	if wait := p.take(now.Add(time.Hour)); wait != 0 {
		t.Errorf("an hour later: got a wait of %v", wait)
	}
	if wait := newPace(0).take(now); wait != 0 {
		t.Errorf("no limit: got a wait of %v", wait)
	}
	slow := newPace(0.5)
	slow.take(now)
	if got := slow.take(now); got != 2*time.Second {
		t.Errorf("one call in 2 s: got a wait of %v, want 2s", got)
	}
}

func TestRetryAfterTakesBothForms(t *testing.T) {
	now := time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"7": 7 * time.Second, "0": 0, "": 0, "-3": 0, "soon": 0, "99999999": 24 * time.Hour,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Minute).Format(http.TimeFormat):     0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q: got %v, want %v", value, got, want)
		}
	}
}

func TestNewIDs(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := newID()
		if len(id) != 36 || id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("got %q, want a UUIDv7", id)
		}
		if seen[id] {
			t.Fatalf("got %q twice", id)
		}
		seen[id] = true
	}
}
