package longline

import (
	"testing"
	"time"
)

func TestMovedBackSoonAfter(t *testing.T) {
	start := time.Unix(1000, 0)
	for ms, want := range map[time.Duration]bool{100: false, 300: true} {
		var m moved
		m.back("a@k-10", start)
		m.acked("a@k-50", start)
		now := start.Add(ms * time.Millisecond)
		m.orderly(now)
		if got := m.back("a@k-20", now); got != want {
			t.Errorf("%d ms after the acknowledgement: got %v, want %v", ms, got, want)
		}
	}
}

func TestMovedBack(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }
	for _, test := range []struct {
		name  string
		acks  map[string]float64 // sent when
		hello string             // at second 10
		want  bool
	}{
		{"where it was", map[string]float64{"a@k-50": 1}, "a@k-50", false},
		{"an acknowledgement was lost on the way", map[string]float64{"a@k-50": 9.5}, "a@k-20", false},
		{"somebody moved it back", map[string]float64{"a@k-50": 1}, "a@k-20", true},
		{"before where it began", nil, "a@k-9", true},
		{"somebody moved it on", map[string]float64{"a@k-50": 1}, "a@k-70", false},
		{"another log", map[string]float64{"a@k-50": 1}, "a@other-1", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var m moved
			if m.back("a@k-10", start) {
				t.Error("the first connection moved nothing back")
			}
			for position, s := range test.acks {
				m.acked(position, at(s))
			}
			if got := m.back(test.hello, at(10)); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}
