package callback_test

import (
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/callback"
)

func FuzzRetryAfter(f *testing.F) {
	for _, text := range []string{"", "0", "120", "-1", "1e9", "99999999999999999999", "Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT"} {
		f.Add(text)
	}
	now := time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		if d := callback.ParseRetryAfter(text, now); d < 0 || now.Add(d).Before(now) {
			t.Errorf("%q means %v", text, d)
		}
	})
}

func FuzzRejected(f *testing.F) {
	for _, text := range []string{`{"rejected":["a","b"]}`, `{"rejected":"a"}`, `{"rejected":[1]}`, `"rejected"`, `{"rejected":null}`, `[`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) { callback.ParseRejected(body) })
}

func TestRetryAfterTexts(t *testing.T) {
	now := time.Date(2026, 11, 22, 13, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-5": 0, "0": 0, "120": 2 * time.Minute, " 7 ": 7 * time.Second,
		"Sun, 22 Nov 2026 13:05:00 GMT": 5 * time.Minute, "Sun, 06 Nov 1994 08:49:37 GMT": 0,
		"99999999999999999999": 365 * 24 * time.Hour,
	} {
		if got := callback.ParseRetryAfter(text, now); got != want {
			t.Errorf("%q means %v, want %v", text, got, want)
		}
	}
}

func TestBackoffIsJitteredAndCapped(t *testing.T) {
	start := time.Now()
	for _, tc := range []struct {
		n     int
		since time.Duration
		most  time.Duration
	}{
		{1, 0, time.Second}, {2, 0, 2 * time.Second}, {4, 0, 8 * time.Second}, {5, 0, 15 * time.Second},
		{200, 9 * time.Minute, 15 * time.Second}, {200, 10 * time.Minute, 10 * time.Minute}, {1, time.Hour, time.Second},
	} {
		var least, most time.Duration = time.Hour, 0
		for range 2000 {
			d := callback.Backoff(tc.n, start.Add(-tc.since), start)
			least, most = min(least, d), max(most, d)
		}
		if least <= 0 || least > tc.most/10 || most > tc.most || most < tc.most*9/10 {
			t.Errorf("failure %d after %v: waits from %v to %v, want from 0 to %v", tc.n, tc.since, least, most, tc.most)
		}
	}
}
