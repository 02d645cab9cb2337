package durable

import (
	"fmt"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
)

// What a position jumped over is told by the last jump that says anything of it.
func TestJumps(t *testing.T) {
	c := Change{}
	for i, j := range []Jump{
		{Kind: Start, To: "a@x-10,b@x-0"},
		{Kind: Sought, From: "a@x-20", To: "a@x-30"},
		{Kind: Missing, From: "b@x-0", To: "b@x-5"},
		{Kind: Sought, From: "a@x-40", To: "a@x-25"},
		{Kind: Sought, From: "a@x-26", To: "a@x-28"},
		{Kind: Missing, From: "b@x-9", To: "b@y-2"}, // a log that began anew
	} {
		j.Time = time.Unix(int64(i), 0)
		c.jump(j)
	}
	present := func(c event.Cursor) uint64 { return c.Offset }
	for _, test := range []struct {
		at, want string
	}{
		{"a@x-10", "start 0"}, {"a@x-11", ""}, {"a@x-21", "seek 1"}, {"a@x-25", "seek 1"},
		{"a@x-26", ""}, {"a@x-27", "seek 4"}, {"a@x-28", "seek 4"}, {"a@x-29", ""}, {"a@x-41", ""},
		{"b@y-1", "gap 5"}, {"b@y-2", "gap 5"}, {"b@y-4", "gap 2"}, {"b@y-6", ""}, {"c@x-1", ""},
	} {
		at, err := event.ParseCursor(test.at)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if j, ok := c.Record.Jumped(at, present); ok {
			got = fmt.Sprintf("%s %d", j.Kind, j.Time.Unix())
		}
		if got != test.want {
			t.Errorf("over %s: got %q, want %q", test.at, got, test.want)
		}
	}

	before := c.Record.Jumps
	for range 3 * maxJumps {
		c.jump(Jump{Kind: Sought, From: "a@x-50", To: "a@x-60"})
	}
	if got := c.Record.Jumps; len(got) != maxJumps || got[0].Kind != Start || len(before) != 6 || before[5].Kind != Missing {
		t.Errorf("kept are %d jumps from %v on, want %d and the start", len(got), got[0], maxJumps)
	}
}
