package brokertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
)

// attemptsNewestFirst: a history is read page by page from its end, is each
// subscription's own, and goes with it.
func attemptsNewestFirst(t *testing.T, b Durable) {
	mustStore(t, b, broker.Update{Name: "crm", Generation: 1, Due: broker.Never})
	mustStore(t, b, broker.Update{Name: "erp", Generation: 1, Due: broker.Never})
	wantAttempts(t, b, "crm", 0, 10, "")
	at := time.Now().Truncate(time.Millisecond)
	mustRecord(t, b, broker.Attempt{Name: "crm", Time: at, Data: []byte("a \x00b")},
		broker.Attempt{Name: "erp", Time: at, Data: []byte("x")},
		broker.Attempt{Name: "none", Time: at, Data: []byte("y")},
		broker.Attempt{Name: "crm", Time: at, Data: []byte("c")})
	mustRecord(t, b, broker.Attempt{Name: "crm", Time: at, Data: []byte("d")})
	wantAttempts(t, b, "crm", 0, 10, "3:d 2:c 1:a \x00b")
	wantAttempts(t, b, "crm", 0, 2, "3:d 2:c")
	wantAttempts(t, b, "crm", 2, 2, "1:a \x00b")
	wantAttempts(t, b, "crm", 1, 2, "")
	wantAttempts(t, b, "crm", 99, 1, "3:d")
	wantAttempts(t, b, "erp", 0, 10, "1:x")
	wantAttempts(t, b, "none", 0, 10, "")
	list, err := b.Attempts(t.Context(), "erp", 0, 1)
	if err != nil || len(list) != 1 || list[0].Name != "erp" || !list[0].Time.Equal(at) {
		t.Errorf("got %v, %v, want the attempt of erp at %v", list, err, at)
	}

	if err := b.Delete(t.Context(), "crm", mustVersion(t, b, "crm")); err != nil {
		t.Fatal(err)
	}
	wantAttempts(t, b, "crm", 0, 10, "")
	mustStore(t, b, broker.Update{Name: "crm", Version: mustVersion(t, b, "crm"), Generation: 9, Due: broker.Never})
	wantAttempts(t, b, "crm", 0, 10, "")
	wantAttempts(t, b, "erp", 0, 10, "1:x")
}

// attemptsBounded: in number, age and bytes.
func attemptsBounded(t *testing.T, b Durable) {
	for _, name := range []string{"many", "large", "old"} {
		mustStore(t, b, broker.Update{Name: name, Generation: 1, Due: broker.Never})
	}
	now := time.Now()
	for from := 1; from <= broker.MaxAttempts+400; from += 400 {
		list := make([]broker.Attempt, 400)
		for i := range list {
			list[i] = broker.Attempt{Name: "many", Time: now, Data: []byte(fmt.Sprint("a", from+i))}
		}
		mustRecord(t, b, list...)
	}
	list, err := b.Attempts(t.Context(), "many", 0, 2*broker.MaxAttempts)
	if err != nil || len(list) != broker.MaxAttempts || string(list[0].Data) != fmt.Sprint("a", list[0].Seq) {
		t.Fatalf("got %d attempts, %v, want %d", len(list), err, broker.MaxAttempts)
	}
	if last := list[len(list)-1]; string(last.Data) != fmt.Sprint("a", last.Seq) || last.Seq != list[0].Seq-broker.MaxAttempts+1 {
		t.Errorf("the oldest left is %d: %s", last.Seq, last.Data)
	}

	data := []byte(strings.Repeat("x", 4096))
	for range 3 * broker.MaxAttemptBytes / len(data) / 64 {
		piece := make([]broker.Attempt, 64)
		for i := range piece {
			piece[i] = broker.Attempt{Name: "large", Time: now, Data: data}
		}
		mustRecord(t, b, piece...)
	}
	if list, err = b.Attempts(t.Context(), "large", 0, broker.MaxAttempts); err != nil {
		t.Fatal(err)
	}
	// A broker may remove them some hundreds at a time.
	if got, most := len(list)*len(data), 3*broker.MaxAttemptBytes/2; got > most || got < broker.MaxAttemptBytes*9/10 {
		t.Errorf("kept are %d bytes, want some %d", got, broker.MaxAttemptBytes)
	}

	mustRecord(t, b, broker.Attempt{Name: "old", Time: now.Add(-broker.MaxAttemptAge - time.Minute), Data: []byte("long ago")},
		broker.Attempt{Name: "old", Time: now, Data: []byte("now")})
	wantAttempts(t, b, "old", 0, 10, "2:now")
}

func mustRecord(t *testing.T, b Durable, list ...broker.Attempt) {
	t.Helper()
	if err := b.Record(t.Context(), list); err != nil {
		t.Fatalf("record %d attempts: %v", len(list), err)
	}
}

func wantAttempts(t *testing.T, b Durable, name string, before uint64, limit int, want string) {
	t.Helper()
	list, err := b.Attempts(t.Context(), name, before, limit)
	if err != nil {
		t.Fatalf("attempts of %s: %v", name, err)
	}
	texts := make([]string, len(list))
	for i, a := range list {
		texts[i] = fmt.Sprintf("%d:%s", a.Seq, a.Data)
	}
	if got := strings.Join(texts, " "); got != want {
		t.Errorf("attempts of %s before %d, %d at most: got %q, want %q", name, before, limit, got, want)
	}
}

// mustVersion is the version of a subscription that may be gone.
func mustVersion(t *testing.T, b Durable, name string) uint64 {
	t.Helper()
	s, _ := b.Load(t.Context(), name)
	return s.Version
}
