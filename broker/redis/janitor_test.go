package redis_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/event"
)

// A master that forgot that somebody waits for a channel, and forgot to wake it
// therefore: once it is another master, who waits is looked after.
func TestForgottenWait(t *testing.T) {
	s := redistest.Start(t, "appendonly", "yes", "appendfsync", "always")
	b := mustOpen(t, s.URL(), redis.Options{TrimEvery: 100 * time.Millisecond})
	at := mustAppend(t, b, "a", "1")[0]
	cursor := event.Position{{Channel: "a", Epoch: at.Epoch, Offset: at.Offset}}
	err := b.Store(t.Context(), broker.Update{Name: "crm", Generation: 1, Channels: []string{"a"}, Set: cursor, Wait: cursor, Due: broker.Never})
	if err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, func() error { // what was new at the start was seen to
		if seen, _ := s.Do("KEYS", "*repaired").([]any); len(seen) < 256 {
			return fmt.Errorf("only %d buckets were seen to", len(seen))
		}
		return nil
	})
	for _, key := range s.Do("KEYS", "*waiting").([]any) {
		s.Do("DEL", key)
	}
	mustAppend(t, b, "a", "2")
	if tickets, _, err := b.Due(t.Context(), nil, 10, time.Hour); err != nil || len(tickets) > 0 {
		t.Fatalf("due: %v, %v, want none yet", tickets, err)
	}
	s.Kill()
	s.Restart()
	redistest.Eventually(t, func() error {
		tickets, _, err := b.Due(t.Context(), nil, 10, time.Hour)
		if err == nil && len(tickets) != 1 {
			err = errors.New("nothing is due")
		}
		return err
	})
}

// What belongs to nobody any more goes: that a subscription which never came to
// be follows a channel, and changes of channels that were dropped.
func TestTidyUp(t *testing.T) {
	s := redistest.Start(t)
	short := broker.Options{Retention: func(string) broker.Retention { return broker.Retention{ReplayEvents: 1} }}
	b := mustOpen(t, s.URL(), redis.Options{Options: short, TrimEvery: 100 * time.Millisecond})
	mustAppend(t, b, "a", "1")
	mustAppend(t, b, "b", "1")
	if err := b.Drop(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	meta, _ := s.Do("KEYS", "*m:a").([]any)
	follows := strings.Replace(meta[0].(string), "m:a", "f:a", 1)
	s.Do("HSET", follows, "never-stored", 1)
	redistest.Eventually(t, func() error {
		mustAppend(t, b, "a", "more than is kept")
		if left, _ := s.Do("HKEYS", follows).([]any); len(left) > 0 {
			return fmt.Errorf("still follow a: %v", left)
		}
		for _, key := range s.Do("KEYS", "*changed").([]any) {
			if s.Do("ZSCORE", key, "b") != nil {
				return errors.New("a dropped channel's change is still there")
			}
		}
		return nil
	})
}

// One node at a time applies retention; when it goes, another does.
func TestOneJanitor(t *testing.T) {
	s := redistest.Start(t)
	short := broker.Options{Retention: func(string) broker.Retention { return broker.Retention{ReplayEvents: 1} }}
	trimmed := func(b broker.Log, channel string) {
		t.Helper()
		mustAppend(t, b, channel, "1", "2", "3")
		redistest.Eventually(t, func() error {
			if s := mustState(t, b, channel); s.First != 3 {
				return fmt.Errorf("%s begins at %d", channel, s.First)
			}
			return nil
		})
	}
	one := mustOpen(t, s.URL(), redis.Options{Options: short, TrimEvery: 100 * time.Millisecond})
	trimmed(one, "a")
	two := mustOpen(t, s.URL(), redis.Options{Options: short, TrimEvery: 100 * time.Millisecond})
	trimmed(two, "b")
	mustClose(t, one)
	trimmed(two, "c")
}
