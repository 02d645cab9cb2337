package node_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

const (
	oneKey     = "one key of at least thirty-two bytes"
	anotherKey = "another key, of thirty-two bytes too"
	jwtSecret  = "a secret for tokens, thirty-two bytes"
)

// startsWith makes a node, which never runs, and returns what it warned of.
func startsWith(t *testing.T, o node.Options) (warned string, err error) {
	t.Helper()
	var log bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.New(t.Context(), o)
	if err == nil {
		err = n.Shutdown()
	}
	return log.String(), err
}

// seal has a node keep a callback's secret.
func seal(t *testing.T, o node.Options) {
	t.Helper()
	n, err := node.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	token, err := n.Mint(auth.Mintage{Admin: true, TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	redistest.Eventually(t, func() error { // once the node has joined
		r, err := http.NewRequest("PUT", n.URL()+"/v1/subscriptions/crm", strings.NewReader(`{"channels":["a"],"callback":{"url":"https://example.com/"}}`))
		if err != nil {
			return err
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := client.Do(r)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusCreated {
			return errors.New(answer.Status)
		}
		return nil
	})
	cancel()
	if err := errors.Join(<-ended, n.Shutdown()); err != nil {
		t.Error(err)
	}
}

func wantRefusedKey(t *testing.T, err error) {
	t.Helper()
	var wrong *node.OptionError
	if !errors.As(err, &wrong) || wrong.Options[0] != "secret-key" || strings.Contains(err.Error(), "\n") ||
		!strings.Contains(err.Error(), "--replace-secret-key") {
		t.Errorf("with another key: %v; want one line about secret-key and the way out", err)
	}
}

// What one key sealed isn't served with another, until an operator says that the
// first is lost.
func TestDataSealedWithAnotherKey(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	for name, broker := range map[string]string{"embedded": "embedded:" + t.TempDir(), "redis": redis.URL()} {
		t.Run(name, func(t *testing.T) {
			with := node.Options{Broker: broker, JWTSecret: jwtSecret, SecretKey: oneKey}
			for range 2 {
				if warned, err := startsWith(t, with); err != nil || warned != "" {
					t.Fatalf("with the key: %v, %s", err, warned)
				}
			}
			other := with
			other.SecretKey = anotherKey
			if name == "embedded" { // nobody else's, and nothing is sealed
				if _, err := startsWith(t, other); err != nil {
					t.Fatalf("with another key, before anything is sealed: %v", err)
				}
			}
			seal(t, with)
			_, err := startsWith(t, other)
			wantRefusedKey(t, err)
			if name == "embedded" {
				kept := with
				kept.SecretKey = "" // one of its own, in the directory
				_, err := startsWith(t, kept)
				wantRefusedKey(t, err)
			}
			other.ReplaceSecretKey = true
			if _, err := startsWith(t, other); err != nil {
				t.Fatalf("replacing the key: %v", err)
			}
			other.ReplaceSecretKey = false
			if _, err := startsWith(t, other); err != nil {
				t.Fatalf("with the new key: %v", err)
			}
			_, err = startsWith(t, with)
			wantRefusedKey(t, err)
		})
	}
}

// What was sealed before there were marks: a key that opens none of it isn't noted
// as the one it was sealed with, and the one that does goes on.
func TestWrongKeyForDataWithoutAMark(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	for name, broker := range map[string]string{"embedded": "embedded:" + t.TempDir(), "redis": redis.URL()} {
		t.Run(name, func(t *testing.T) {
			with := node.Options{Broker: broker, JWTSecret: jwtSecret, SecretKey: oneKey}
			seal(t, with)
			node.Unmark(t, with)
			other := with
			other.SecretKey = anotherKey
			_, err := startsWith(t, other)
			wantRefusedKey(t, err)
			if _, err := startsWith(t, with); err != nil {
				t.Fatalf("with the key: %v", err)
			}
			node.Unmark(t, with)
			other.ReplaceSecretKey = true
			if _, err := startsWith(t, other); err != nil {
				t.Fatalf("replacing the key: %v", err)
			}
			_, err = startsWith(t, with)
			wantRefusedKey(t, err)
		})
	}
}

// Nodes that start at once on an empty Redis, each with a key of its own: one of
// them starts.
func TestKeysThatComeAtOnce(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = startsWith(t, node.Options{Broker: redis.URL(), JWTSecret: jwtSecret, SecretKey: strings.Repeat(string(rune('a'+i)), 32)})
		})
	}
	wg.Wait()
	started := 0
	for _, err := range errs {
		if err == nil {
			started++
		} else {
			wantRefusedKey(t, err)
		}
	}
	if started != 1 {
		t.Errorf("%d nodes started, want 1: %v", started, errs)
	}
}

// Another secret for tokens is what replacing it looks like: it is told.
func TestAnotherSecretForTokensIsTold(t *testing.T) {
	t.Parallel()
	with := node.Options{Broker: redistest.Start(t).URL(), JWTSecret: jwtSecret, SecretKey: oneKey}
	other := with
	other.JWTSecret = anotherKey
	for i, step := range []struct {
		o    node.Options
		told bool
	}{{with, false}, {with, false}, {other, true}, {other, false}, {with, true}} {
		warned, err := startsWith(t, step.o)
		if err != nil || strings.Contains(warned, "--jwt-secret") != step.told {
			t.Errorf("start %d: %v, warned %q; want that it is told: %v", i, err, warned, step.told)
		}
	}
}
