package auth_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

// unsteady is a broker that can be away, and whose announcements can be lost.
type unsteady struct {
	*embedded.Broker
	mu   sync.Mutex
	away bool
	deaf bool
}

func (u *unsteady) set(away, deaf bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.away, u.deaf = away, deaf
}

func (u *unsteady) err() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.away {
		return broker.ErrUnavailable
	}
	return nil
}

func (u *unsteady) Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error) {
	if err := u.err(); err != nil {
		return nil, err
	}
	return u.Broker.Append(ctx, channel, entries)
}

func (u *unsteady) Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error) {
	if err := u.err(); err != nil {
		return broker.Page{}, err
	}
	return u.Broker.Read(ctx, channel, offset, limit)
}

func (u *unsteady) Follow(ctx context.Context, channel string, f broker.Follower) (broker.State, error) {
	if err := u.err(); err != nil {
		return broker.State{}, err
	}
	u.mu.Lock()
	deaf := u.deaf
	u.mu.Unlock()
	if deaf {
		return u.Broker.State(ctx, channel)
	}
	return u.Broker.Follow(ctx, channel, f)
}

func newBroker(t *testing.T) *unsteady {
	t.Helper()
	b, err := embedded.Open(embedded.Options{Dir: t.TempDir(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return &unsteady{Broker: b}
}

// node is one node's view of the tokens.
type node struct {
	*auth.Verifier
	revocations *auth.Revocations
	heard       chan auth.Revocation
}

func newNode(t *testing.T, log auth.RevocationLog) *node {
	t.Helper()
	n := &node{heard: make(chan auth.Revocation, 100)}
	n.revocations = auth.NewRevocations(log, quiet, func(r auth.Revocation) { n.heard <- r })
	n.Verifier = newVerifier(t, auth.Options{Revocations: n.revocations})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { n.revocations.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

// until polls for what the node makes of a token.
func (n *node) until(t *testing.T, token string, code wire.Code) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for {
		_, err := n.Verify(t.Context(), token)
		var e *wire.Error
		if code == "" && err == nil || errors.As(err, &e) && e.Code == code {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("token is %v, want %q", err, code)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestRevokedTokenIsRefusedEverywhere(t *testing.T) {
	b := newBroker(t)
	one, two := newNode(t, b), newNode(t, b)
	token := must(auth.Mint(secret, auth.Mintage{Subject: "a", TTL: time.Hour}, time.Now()))
	one.until(t, token, "")
	two.until(t, token, "") // and remembers it
	g, err := two.Verify(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if err := one.revocations.Revoke(t.Context(), auth.Revocation{TokenID: g.TokenID}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Verify(t.Context(), token); err == nil {
		t.Error("the node that revoked it takes it still")
	}
	two.until(t, token, wire.CodeUnauthorized)
	if r := <-two.heard; !r.Covers(g) {
		t.Errorf("the hook heard of %+v, which doesn't cover the grant", r)
	}
	three := newNode(t, b) // begins by reading what there is
	three.until(t, token, wire.CodeUnauthorized)
}

func TestRevocationArrivesThoughAnnouncementsAreLost(t *testing.T) {
	b, deaf := newBroker(t), &unsteady{deaf: true}
	deaf.Broker = b.Broker
	one, two := newNode(t, b), newNode(t, deaf)
	token := must(auth.Mint(secret, auth.Mintage{Subject: "a", TTL: time.Hour}, time.Now()))
	two.until(t, token, "")
	before := time.Now().Add(time.Minute)
	if err := one.revocations.Revoke(t.Context(), auth.Revocation{Subject: "a", Before: &before}); err != nil {
		t.Fatal(err)
	}
	two.until(t, token, wire.CodeUnauthorized)
}

func TestNoTokenCountsUntilRevocationsAreKnown(t *testing.T) {
	b := newBroker(t)
	b.set(true, false)
	n := newNode(t, b)
	token := must(auth.Mint(secret, auth.Mintage{Subject: "a", TTL: time.Hour}, time.Now()))
	n.until(t, token, wire.CodeUnavailable)
	b.set(false, false)
	n.until(t, token, "")
	// Known once, an outage changes nothing for those who are there.
	b.set(true, false)
	if _, err := n.Verify(t.Context(), token); err != nil {
		t.Errorf("during an outage: %v", err)
	}
	if err := n.revocations.Revoke(t.Context(), auth.Revocation{TokenID: "x"}); wire.From(err).Code != wire.CodeUnavailable {
		t.Errorf("revoking during an outage: %v, want unavailable", err)
	}
}

// late is a broker whose first answer takes a while, as after a start.
type late struct {
	auth.RevocationLog
	after time.Duration
}

func (l late) Follow(ctx context.Context, _ string, _ broker.Follower) (broker.State, error) {
	select {
	case <-ctx.Done():
		return broker.State{}, ctx.Err()
	case <-time.After(l.after):
		return broker.State{}, nil
	}
}

func (late) Unfollow(string, broker.Follower) {}

func (late) Read(context.Context, string, uint64, broker.Limit) (broker.Page, error) {
	return broker.Page{}, broker.ErrNotFound
}

func TestFirstRequestsWaitForRevocations(t *testing.T) {
	for _, tt := range []struct {
		name         string
		after, waits time.Duration
		gives        time.Duration // up by itself
		code         wire.Code
	}{
		{"known soon", 1500 * time.Millisecond, 1500 * time.Millisecond, time.Minute, ""},
		{"known late", 10 * time.Second, 2 * time.Second, time.Minute, wire.CodeUnavailable},
		{"the client leaves", 10 * time.Second, time.Second, time.Second, wire.CodeUnavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newNode(t, late{after: tt.after})
				token := must(auth.Mint(secret, auth.Mintage{TTL: time.Hour}, time.Now()))
				ctx, cancel := context.WithTimeout(t.Context(), tt.gives)
				defer cancel()
				began := time.Now()
				_, err := n.Verify(ctx, token)
				if got := time.Since(began); got != tt.waits {
					t.Errorf("waited %v, want %v", got, tt.waits)
				}
				if tt.code == "" && err != nil || tt.code != "" && (err == nil || wire.From(err).Code != tt.code) {
					t.Errorf("got %v, want %q", err, tt.code)
				}
			})
		})
	}
}

func TestSubjectIsRevokedUpToATime(t *testing.T) {
	n := newNode(t, newBroker(t))
	now := time.Now().Truncate(time.Second)
	mint := func(subject string, issued time.Time) string {
		return must(auth.Mint(secret, auth.Mintage{Subject: subject, TTL: time.Hour}, issued))
	}
	old, fresh, other := mint("a", now.Add(-time.Minute)), mint("a", now), mint("b", now.Add(-time.Minute))
	n.until(t, old, "")
	if err := n.revocations.Revoke(t.Context(), auth.Revocation{Subject: "a", Before: &now}); err != nil {
		t.Fatal(err)
	}
	n.until(t, old, wire.CodeUnauthorized)
	n.until(t, fresh, "")
	n.until(t, other, "")
	// An earlier revocation takes nothing back.
	earlier := now.Add(-time.Hour)
	if err := n.revocations.Revoke(t.Context(), auth.Revocation{Subject: "a", Before: &earlier}); err != nil {
		t.Fatal(err)
	}
	n.until(t, old, wire.CodeUnauthorized)
}

func TestRevocationsThatMakeNoSense(t *testing.T) {
	now := time.Now()
	for name, r := range map[string]auth.Revocation{
		"nothing":              {},
		"subject without time": {Subject: "a"},
		"token with a time":    {TokenID: "a", Before: &now},
		"both":                 {TokenID: "a", Subject: "b", Before: &now},
	} {
		if r.Check() == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
