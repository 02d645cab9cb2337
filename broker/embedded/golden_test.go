package embedded

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/brokertest"
	"github.com/longline-push/longline/event"
)

var update = flag.Bool("update", false, "write the golden data of a new format")

// What a format stored once, each later binary reads and goes on with. Whoever
// changes what is stored raises Format, writes its golden data with -update, and
// keeps the older ones.
func TestGolden(t *testing.T) {
	present := fmt.Sprintf("testdata/format-%d.txt", Format)
	if _, err := os.Stat(present); *update && err != nil {
		b := mustOpen(t, t.TempDir())
		brokertest.FillGolden(t, b)
		if err := os.WriteFile(present, []byte(dump(t, b)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for format := 2; format <= Format; format++ {
		golden, err := os.ReadFile(fmt.Sprintf("testdata/format-%d.txt", format))
		if err != nil {
			t.Fatalf("%v: -update writes the golden data of a new format", err)
		}
		dir := t.TempDir()
		b := mustOpen(t, dir)
		load(t, b, string(golden))
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if r, err := Check(t.Context(), dir); err != nil || r.Format != uint64(format) || len(r.Damaged) > 0 {
			t.Errorf("format %d: %+v, %v", format, r, err)
		}
		b = mustOpen(t, dir)
		brokertest.WantGolden(t, b)

		// Nothing of another kind is written today.
		fresh := mustOpen(t, t.TempDir())
		brokertest.FillGolden(t, fresh)
		if got, want := kinds(dump(t, fresh)), kinds(string(golden)); format == Format && !slices.Equal(got, want) {
			t.Errorf("written are keys of the kinds %q, in format %d %q", got, format, want)
		}
	}
}

// Each kind of row is, byte for byte, what the present format has.
func TestRowsAreOfTheirFormat(t *testing.T) {
	at := event.Cursor{Channel: "a", Epoch: "k3f9zq", Offset: 1053}
	rec := record{log: 7, term: 9, epoch: "k3f9zq", forks: []broker.Fork{{Epoch: "x", Head: 5}}}
	sub := subscription{version: 3, record: []byte("r"), node: "n", channels: []string{"a", "b"}, waits: []string{"a"}, creator: "c"}
	letter := broker.Letter{Cursor: "a@x-1", Time: time.UnixMilli(5), Data: []byte("d")}
	value := make([]byte, headerSize(300)+2)
	putEvent(value, 1_772_366_400_000, 300, []byte("{}"))
	var rows strings.Builder
	for _, row := range []struct {
		kind string
		key  []byte
		row  []byte
	}{
		{"channel", channelKey("a"), rec.append(nil)},
		{"event", eventKey(7, 1), value},
		{"trimmed", eventKey(7, 0), (&trimmed{first: 5, sum: 900, time: 3}).append(nil)},
		{"subscription", rowKey(rowRecord, "crm"), sub.append(nil)},
		{"position", rowKey(rowStanding, "crm"), (&standing{broker.Progress{Generation: 4, Position: event.Position{at}}}).append(nil)},
		{"due", rowKey(rowDue, "crm"), (&dueRow{at: 1, ref: 2}).append(nil)},
		{"due by time", byTimeKey(1, "crm"), nil},
		{"waits", rowKey(rowWaits, "a", "crm"), appendCursor(nil, at)},
		{"letters", rowKey(rowLetters, "crm"), (&letterCounts{dead: 1, last: 3, bytes: 9}).append(nil)},
		{"letter", letterKey("crm", 3), appendLetter(nil, &letter)},
		{"mark", markKey("crm", 3), nil},
		{"attempts", rowKey(rowAttempts, "crm"), (&attemptRange{first: 1, last: 2, bytes: 9}).append(nil)},
		{"attempt", attemptKey("crm", 2), value},
	} {
		fmt.Fprintf(&rows, "%s %x %x\n", row.kind, row.key, row.row)
	}
	file := fmt.Sprintf("testdata/rows-%d.txt", Format)
	if _, err := os.Stat(file); *update && err != nil {
		if err := os.WriteFile(file, []byte(rows.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: -update writes the rows of a new format", err)
	}
	if got := rows.String(); got != string(want) {
		t.Errorf("rows are\n%swant, as format %d has them,\n%s", got, Format, want)
	}
}

func mustOpen(t *testing.T, dir string) *Broker {
	t.Helper()
	b, err := Open(Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// dump returns all keys and values, one pair a line, in hexadecimal.
func dump(t *testing.T, b *Broker) string {
	t.Helper()
	it, err := b.db.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	var text strings.Builder
	for ok := it.First(); ok; ok = it.Next() {
		fmt.Fprintf(&text, "%x %x\n", it.Key(), it.Value())
	}
	return text.String()
}

func load(t *testing.T, b *Broker, text string) {
	t.Helper()
	batch := b.db.NewBatch()
	defer batch.Close()
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		k, err := hex.DecodeString(key)
		if err != nil {
			t.Fatal(err)
		}
		v, err := hex.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		_ = batch.Set(k, v, nil)
	}
	if err := b.settle(batch); err != nil {
		t.Fatal(err)
	}
}

// kinds are the first letters of keys: one, two of a subscription's, all of the
// store's own.
func kinds(dump string) (kinds []string) {
	for line := range strings.Lines(dump) {
		key, _, _ := strings.Cut(line, " ")
		k, _ := hex.DecodeString(key)
		switch {
		case bytes.HasPrefix(k, []byte("s")):
			k = k[:2]
		case !bytes.HasPrefix(k, []byte("m")):
			k = k[:1]
		}
		kinds = append(kinds, string(k))
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}
