package cursor_test

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// mustItem is an event as a feed holds it.
func mustItem(t testing.TB, offset uint64, typ, data string) *feed.Item {
	t.Helper()
	f := event.Fields{ID: fmt.Sprint(offset), Source: "/test", Type: typ, Time: event.FormatTime(time.Now()), ContentType: "application/json", Data: []byte(data)}
	item, err := feed.NewItem("a", "e1", broker.Item{Offset: offset, Time: time.Now(), Data: f.AppendStored(nil)})
	if err != nil {
		t.Fatal(err)
	}
	return item
}

func mustGet(t testing.TB, fs *cursor.Filters, types, filter string) *cursor.Filter {
	t.Helper()
	f, err := fs.Get(cursor.Selection{Types: types, Filter: filter})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFilters(t *testing.T) {
	var fs cursor.Filters
	paid := mustItem(t, 1, "order.paid", `{"amount":120}`)
	for _, tt := range []struct {
		types, filter string
		want          bool
	}{
		{"", "", true},
		{"order.*", "", true},
		{"email.*,order.paid", "event.data.amount > 100", true},
		{"email.*", "event.data.amount > 100", false},
		{"order.*", "event.data.amount > 200", false},
		{"", "event.data.missing > 200", false},
	} {
		for range 2 { // asked, and remembered
			if got := mustGet(t, &fs, tt.types, tt.filter).Match(paid); got != tt.want {
				t.Errorf("%q %q: %v", tt.types, tt.filter, got)
			}
		}
	}
	if n := fs.Failed(); n != 1 {
		t.Errorf("%d errors counted; one was made, once", n)
	}
}

// TestFiltersAreAskedAnew: what a filter remembers of an event is never taken
// for another event's, whoever asks in what order.
func TestFiltersAreAskedAnew(t *testing.T) {
	var fs cursor.Filters
	f := mustGet(t, &fs, "", "event.data.even")
	items := make([]*feed.Item, 500)
	for i := range items {
		items[i] = mustItem(t, uint64(i), "t", fmt.Sprintf(`{"even":%v}`, i%2 == 0))
	}
	var readers sync.WaitGroup
	for start := range 4 {
		readers.Go(func() {
			for i := range items {
				at := (i*(2*start+1) + start) % len(items)
				if f.Match(items[at]) != (at%2 == 0) {
					t.Errorf("%d: wrong", at)
				}
			}
		})
	}
	readers.Wait()
}

// TestFiltersAreShared by whoever selects the same, and forgotten after.
func TestFiltersAreShared(t *testing.T) {
	var fs cursor.Filters
	a, b := mustGet(t, &fs, "a.*", "event.data.x"), mustGet(t, &fs, "a.*", "event.data.x")
	if a != b {
		t.Error("the same selection made two filters")
	}
	if c := mustGet(t, &fs, "b.*", "event.data.x"); a == c {
		t.Error("another selection has the same filter")
	}
	runtime.KeepAlive(a)
}

func TestMatchingAgainDoesNotAllocate(t *testing.T) {
	var fs cursor.Filters
	f, item := mustGet(t, &fs, "t", `event.data.x == "y"`), mustItem(t, 1, "t", `{"x":"y"}`)
	if n := testing.AllocsPerRun(100, func() { f.Match(item) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkFilters is what a delivery costs with a filter that others have too,
// and with one of one's own.
func BenchmarkFilters(b *testing.B) {
	const order = `{"amount":120,"customer":"alice@example.com","items":[{"sku":"a"},{"sku":"b"}]}`
	items := make([]*feed.Item, 64)
	for i := range items {
		items[i] = mustItem(b, uint64(i), "order.paid", order)
	}
	for _, filters := range []int{1, 10, 10_000} {
		b.Run(fmt.Sprint(filters, " filters"), func(b *testing.B) {
			var fs cursor.Filters
			all := make([]*cursor.Filter, filters)
			for i := range all {
				all[i] = mustGet(b, &fs, "", fmt.Sprintf(`event.data.amount > %d.0 && event.type.startsWith("order.")`, i))
			}
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				all[i%filters].Match(items[i/10_000%len(items)])
			}
		})
	}
}

func FuzzSelection(f *testing.F) {
	f.Add("order.*", "event.data.x > 1", "order.paid", `{"x":2}`)
	f.Fuzz(func(t *testing.T, types, filter, typ, data string) {
		if strings.ContainsAny(data, "\n") || len(data) == 0 || len(typ) == 0 {
			return
		}
		var fs cursor.Filters
		got, err := fs.Get(cursor.Selection{Types: types, Filter: filter})
		if err != nil {
			return
		}
		item := mustItem(t, 1, "t", `{}`)
		if first := got.Match(item); got.Match(item) != first {
			t.Fatal("the same event was answered twice differently")
		}
	})
}

// An expression that was cut off takes no event, and is told of: for each event,
// and that it is the first.
func TestFiltersThatAreCutOffAreToldOf(t *testing.T) {
	var told []bool
	fs := cursor.Filters{OnCutOff: func(_ cursor.Selection, _ *feed.Item, first bool) { told = append(told, first) }}
	f := mustGet(t, &fs, "", `event.data.a.split("").all(x, x == "a")`)
	for offset := range uint64(2) {
		if f.Match(mustItem(t, offset+1, "t", `{"a":"`+strings.Repeat("a", 200<<10)+`"}`)) {
			t.Error("taken, though it was cut off")
		}
	}
	if f.Match(mustItem(t, 3, "t", `{}`)) || !f.Match(mustItem(t, 4, "t", `{"a":"aa"}`)) || len(told) != 2 || !told[0] || told[1] {
		t.Errorf("told %v, want of the first two events", told)
	}
}
