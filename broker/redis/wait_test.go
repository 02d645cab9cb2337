package redis_test

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/broker/redis/redistest"
)

// An append that is to reach a replica fails where nobody can tell that it did.
func TestWaitThatFails(t *testing.T) {
	t.Run("for want of a right", func(t *testing.T) {
		s := redistest.Start(t)
		s.Do("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-wait")
		b := mustOpen(t, strings.Replace(s.URL(), "redis://", "redis://app:secret@", 1)+"?wait_replicas=1", redis.Options{})
		wantNoPlace(t, b)
	})
	t.Run("since the master is demoted meanwhile", func(t *testing.T) {
		s, other := redistest.Start(t), redistest.Start(t)
		b := mustOpen(t, s.URL()+"?wait_replicas=1", redis.Options{})
		done := make(chan error, 1)
		go func() {
			_, err := b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("e")}})
			done <- err
		}()
		redistest.Eventually(t, func() error {
			if text := s.Do("INFO", "clients").(string); !strings.Contains(text, "blocked_clients:1\r\n") {
				return errors.New("nobody waits yet")
			}
			return nil
		})
		host, port, _ := net.SplitHostPort(other.Addr)
		s.Do("REPLICAOF", host, port)
		if err := <-done; !errors.Is(err, broker.ErrUnavailable) {
			t.Errorf("append: got %v, want ErrUnavailable", err)
		}
	})
}

func wantNoPlace(t *testing.T, b broker.Log) {
	t.Helper()
	places, err := b.Append(t.Context(), "a", []broker.Entry{{Data: []byte("e")}})
	if !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("append: got %s, %v, want ErrUnavailable", fmt.Sprint(places), err)
	}
}
