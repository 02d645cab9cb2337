package embedded

import (
	"bytes"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Whatever the disk holds, reading it yields a value or an error, and a value
// is written again in no more bytes.
func FuzzRows(f *testing.F) {
	cursor := event.Cursor{Channel: "a", Epoch: "k3f9zq", Offset: 1053}
	rec := record{log: 7, term: 9, epoch: "k3f9zq", forks: []broker.Fork{{Epoch: "x", Head: 5}}}
	sub := subscription{version: 3, record: []byte("r"), node: "n", channels: []string{"a", "b"}, waits: []string{"a"}}
	at := standing{broker.Progress{Generation: 4, Position: event.Position{cursor}}}
	letter := broker.Letter{Cursor: "e1", Time: time.UnixMilli(5), Data: []byte("d"), Redrive: true}
	value := make([]byte, headerSize(300)+2)
	putEvent(value, 1_772_366_400_000, 300, []byte("{}"))
	for _, seed := range [][]byte{
		nil, value, rec.append(nil), sub.append(nil), at.append(nil), appendLetter(nil, &letter), appendCursor(nil, cursor),
		(&trimmed{first: 5, sum: 900, time: 3}).append(nil), (&dueRow{at: 1, ref: 2}).append(nil), (&letterCounts{dead: 1, last: 3}).append(nil),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, parsed bool, again []byte) {
			t.Helper()
			if !parsed {
				return
			}
			// Numbers may have been written longer than need be.
			if len(again) > len(b) {
				t.Errorf("%s grew from %x to %x", what, b, again)
			}
		}
		if ms, sum, data, err := eventOf(b); err == nil {
			again := make([]byte, headerSize(sum)+len(data))
			putEvent(again, ms, sum, data)
			same("event", true, again)
		}
		r, err := parseRecord(b)
		same("record", err == nil, r.append(nil))
		tr, err := parseTrimmed(b)
		same("trim record", err == nil, tr.append(nil))
		var s subscription
		same("subscription", s.parse(b) == nil, s.append(nil))
		var st standing
		same("standing", st.parse(b) == nil, st.append(nil))
		var d dueRow
		same("due row", d.parse(b) == nil, d.append(nil))
		var counts letterCounts
		same("counts", counts.parse(b) == nil, counts.append(nil))
		l, err := parseLetter(make([]byte, 8), b)
		same("letter", err == nil, appendLetter(nil, &l))
		var c event.Cursor
		same("cursor", parseCursor(b, &c) == nil, appendCursor(nil, c))
	})
}

func TestKeysStandInOrder(t *testing.T) {
	log := uint64(0x0102030405060708)
	ordered := [][]byte{
		channelKey("a"), channelKey("a.b"), eventKey(log, 0), eventKey(log, 1), eventKey(log, 255), eventKey(log, 256),
		eventKey(log, 1<<63), eventKey(log, 1<<64-1), afterLog(log), eventKey(log+1, 0), eventKey(1<<64-1, 1<<64-1), afterLog(1<<64 - 1), keyBoot,
	}
	for i := 1; i < len(ordered); i++ {
		if bytes.Compare(ordered[i-1], ordered[i]) >= 0 {
			t.Errorf("%x stands before %x", ordered[i], ordered[i-1])
		}
	}
	for in, want := range map[string]string{"sra": "srb", "sw\xff": "sx", "so\xff\xff": "sp"} {
		if got := string(afterPrefix([]byte(in))); got != want {
			t.Errorf("behind %q comes %q, want %q", in, got, want)
		}
	}
}
