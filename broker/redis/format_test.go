package redis_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

// letterData is a dead letter's data as the gateway writes it.
func letterData(id, cursor string) []byte {
	return fmt.Appendf(nil, `{"event":{"id":%q,"type":"t","cursor":%q},"reason":"no","attempts":1}`, id, cursor)
}

// writeFormat1 leaves data as format 1 had it: no version, letters named by ids,
// nobody's creations indexed; and nodes that are up, of whose format nothing is said.
func writeFormat1(t *testing.T, s *redistest.Server, up ...string) {
	t.Helper()
	b := mustOpen(t, s.URL(), redis.Options{TrimEvery: -1})
	store := func(name, creator string) {
		t.Helper()
		record := fmt.Appendf(nil, `{"channels":["a"],"creator":%q}`, creator)
		if err := b.Store(t.Context(), broker.Update{Name: name, Generation: 1, Record: record, Due: broker.Never}); err != nil {
			t.Fatal(err)
		}
	}
	store("crm", "ann")
	store("crm/0", "")
	store("other", "bob")
	store("old", "")
	now := time.Now()
	_, err := b.Bury(t.Context(), broker.Burial{Name: "crm", Generation: 1, Letters: []broker.Letter{
		{Cursor: "e1", Time: now, Data: letterData("e1", "a@x-1")},
		{Cursor: "e2", Time: now, Data: letterData("e2", "a@x-2")},
		{Cursor: "e3", Time: now, Data: letterData("e3", "a@x-3")},
		// One in between named it by its cursor already: it is the last.
		{Cursor: "a@x-3", Time: now, Data: letterData("e3", "a@x-3")},
		{Cursor: "e5", Time: now, Data: []byte("not to be read")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Redrive(t.Context(), "crm", []string{"e2"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range up {
		if err := b.Join(t.Context(), broker.Node{ID: id}, time.Hour); err != nil {
			t.Fatal(err)
		}
		for _, key := range s.Do("KEYS", "*}nodes").([]any) {
			s.Do("HSET", key, id, fmt.Sprintf(`{"id":%q,"name":"older"}`, id))
		}
	}
	mustClose(t, b)
	for _, key := range s.Do("KEYS", "*}format").([]any) {
		s.Do("DEL", key)
	}
	for _, key := range s.Do("KEYS", "*}s:*").([]any) {
		s.Do("HDEL", key, "m")
	}
}

func wantMigrated(t *testing.T, b *redis.Broker) error {
	t.Helper()
	for creator, want := range map[string][]string{"ann": {"crm"}, "bob": {"other"}} {
		if got, err := b.Created(t.Context(), creator, "", 10); err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("created by %s: %q (%v), want %q", creator, got, err, want)
		}
	}
	letters, err := b.Dead(t.Context(), "crm", 0, 10)
	if err != nil {
		return err
	}
	var got []string
	for _, l := range letters {
		text := l.Cursor
		if l.Redrive {
			text += "!"
		}
		got = append(got, text)
	}
	if got, want := strings.Join(got, " "), "a@x-1 a@x-2! a@x-3 e5"; got != want {
		return fmt.Errorf("letters: %s, want %s", got, want)
	}
	return nil
}

func TestMigrateFromFormat1(t *testing.T) {
	s := redistest.Start(t)
	writeFormat1(t, s)
	b := mustOpen(t, s.URL(), redis.Options{TrimEvery: -1})
	if err := wantMigrated(t, b); err != nil {
		t.Error(err)
	}
	if n, err := b.Remove(t.Context(), "crm", []string{"a@x-2", "a@x-3", "e5", "e3"}); n != 3 || err != nil {
		t.Errorf("remove: %d, %v; want the three that are there", n, err)
	}
	if formats := s.Do("KEYS", "*}format").([]any); len(formats) != 256 {
		t.Errorf("%d buckets have a format, want all", len(formats))
	}
}

// While an older node is up it writes in its own way: what it left is migrated
// once it has ended.
func TestMigrateAfterARollingUpgrade(t *testing.T) {
	s := redistest.Start(t)
	writeFormat1(t, s, "n1")
	b := mustOpen(t, s.URL(), redis.Options{TrimEvery: -1, LookEvery: 10 * time.Millisecond})
	if wantMigrated(t, b) == nil {
		t.Error("migrated beside an older node")
	}
	if err := b.Leave(t.Context(), "n1"); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, func() error { return wantMigrated(t, b) })
}

// Data of a newer longline is refused with one line.
func TestNewerFormat(t *testing.T) {
	s := redistest.Start(t)
	mustClose(t, mustOpen(t, s.URL(), redis.Options{TrimEvery: -1}))
	s.Do("SET", s.Do("KEYS", "*}format").([]any)[7], redis.Format+1)
	_, err := redis.Open(t.Context(), s.URL(), redis.Options{})
	if err == nil || !strings.Contains(err.Error(), "which a newer longline wrote") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v, want one line that says what to do", err)
	}
}
