package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// RevocationChannel is where revocations are kept, and how nodes tell each
// other. Its retention must be long: a revocation that is forgotten makes a
// token good again.
const RevocationChannel = "longline.revocations"

// Revocation ends one token, by its jti, or all of a subject's that were
// issued before a time.
type Revocation struct {
	TokenID string     `json:"jti,omitempty"`
	Subject string     `json:"sub,omitempty"`
	Before  *time.Time `json:"before,omitempty"` // with Subject
}

// Check returns a *wire.Error unless r names either a token or a subject.
func (r Revocation) Check() error {
	if (r.TokenID == "") == (r.Subject == "") || (r.Before != nil) != (r.Subject != "") {
		return wire.BadRequest(`want {"jti":"…"}, or {"sub":"…","before":"<RFC 3339 time>"}`)
	}
	return nil
}

// Covers tells whether r ends g. A token that doesn't say when it was issued
// counts as old.
func (r Revocation) Covers(g *Grant) bool {
	if r.TokenID != "" {
		return r.TokenID == g.TokenID
	}
	return r.CoversIssued(g.Subject, g.issued)
}

// CoversIssued tells whether r ends all tokens of a subject that were issued
// then, in Unix seconds; 0 is a token that doesn't say when.
func (r Revocation) CoversIssued(subject string, issued int64) bool {
	return r.Subject != "" && r.Subject == subject && r.Before != nil && issued*1000 < r.Before.UnixMilli()
}

// RevocationLog is what Revocations needs of a broker.
type RevocationLog interface {
	Append(ctx context.Context, channel string, entries []broker.Entry) ([]broker.Appended, error)
	Read(ctx context.Context, channel string, offset uint64, limit broker.Limit) (broker.Page, error)
	Follow(ctx context.Context, channel string, f broker.Follower) (broker.State, error)
	Unfollow(channel string, f broker.Follower)
}

// Revocations knows which tokens are revoked, on this node and every other. A
// nil *Revocations knows none.
type Revocations struct {
	log    RevocationLog
	logger *slog.Logger
	hook   func(Revocation)
	wake   chan struct{}

	loaded chan struct{} // closed by Run once it has read all there are

	mu       sync.RWMutex
	tokens   map[string]struct{}
	subjects map[string]int64 // Unix milliseconds: issued before
}

// NewRevocations makes the node's set; Run fills it. The hook, which may be
// nil, is called by Run and Revoke for each revocation as it becomes known, so
// that live connections can be ended; it must be quick, and may hear of one
// twice.
func NewRevocations(log RevocationLog, logger *slog.Logger, hook func(Revocation)) *Revocations {
	if hook == nil {
		hook = func(Revocation) {}
	}
	return &Revocations{
		log: log, logger: logger, hook: hook, wake: make(chan struct{}, 1),
		loaded: make(chan struct{}), tokens: make(map[string]struct{}), subjects: make(map[string]int64),
	}
}

// Revoke makes r hold on this node at once and on every other within 2
// seconds, for good. It returns when the broker has it.
func (v *Revocations) Revoke(ctx context.Context, r Revocation) error {
	if err := r.Check(); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode revocation: %w", err)
	}
	f := event.Fields{
		ID: uuid.NewString(), Source: "/tokens", Type: "longline.token.revoked",
		Time: event.FormatTime(time.Now()), Data: data,
	}
	if _, err := v.log.Append(ctx, RevocationChannel, []broker.Entry{{Data: f.AppendStored(nil)}}); err != nil {
		return fmt.Errorf("append revocation: %w", err)
	}
	v.apply(r)
	return nil
}

// lookEvery bounds how late a node hears of a revocation whose announcement
// was lost.
const lookEvery = time.Second

// Run follows revocations until ctx ends. It is called once. Until it has read
// all there are, no token counts.
func (v *Revocations) Run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	defer v.log.Unfollow(RevocationChannel, v)
	following, complained := false, false
	var at place
	for {
		var err error
		if !following {
			_, err = v.log.Follow(ctx, RevocationChannel, v)
			following = err == nil
		}
		if err == nil {
			err = v.catchUp(ctx, &at)
		}
		if err != nil && ctx.Err() == nil && !complained {
			v.logger.Warn("revocations can't be read; trying on", "error", err)
		}
		complained = err != nil
		select {
		case <-ctx.Done():
			return
		case <-v.wake:
		case <-tick.C:
		}
	}
}

// place is how far the revocations were read.
type place struct {
	epoch  string
	offset uint64
}

func (v *Revocations) catchUp(ctx context.Context, at *place) error {
	for {
		page, err := v.log.Read(ctx, RevocationChannel, at.offset, broker.Limit{})
		if errors.Is(err, broker.ErrNotFound) {
			page, err = broker.Page{}, nil
		}
		if err != nil {
			return fmt.Errorf("read revocations: %w", err)
		}
		if page.State.Epoch != at.epoch {
			// Another log, or the same one with its tail forgotten.
			offset, _ := page.State.Locate(at.epoch, at.offset)
			again := offset != at.offset
			*at = place{page.State.Epoch, offset}
			if again {
				continue
			}
		}
		if len(page.Items) == 0 {
			break
		}
		for _, item := range page.Items {
			at.offset = item.Offset
			r, err := decodeRevocation(item.Data)
			if err != nil {
				v.logger.Error("revocation can't be read", "offset", item.Offset, "error", err)
				continue
			}
			v.apply(r)
		}
	}
	select {
	case <-v.loaded:
	default:
		close(v.loaded)
	}
	return nil
}

func decodeRevocation(stored event.Stored) (Revocation, error) {
	var r Revocation
	view, err := stored.View()
	if err != nil {
		return r, err
	}
	var e event.Event
	if err := json.Unmarshal(view.AppendDetached(nil), &e); err != nil {
		return r, err
	}
	if err := e.DataAs(&r); err != nil {
		return r, err
	}
	return r, r.Check()
}

// Announce is the broker's call: something was revoked.
func (v *Revocations) Announce(broker.Announcement) {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

func (v *Revocations) apply(r Revocation) {
	v.mu.Lock()
	if r.TokenID != "" {
		v.tokens[r.TokenID] = struct{}{}
	} else {
		v.subjects[r.Subject] = max(v.subjects[r.Subject], r.Before.UnixMilli())
	}
	v.mu.Unlock()
	v.hook(r)
}

// readyWithin is how long a request waits for revocations to be known. A node
// that has just begun to listen knows them within that, unless its broker is
// away.
const readyWithin = 2 * time.Second

// ready returns nil once revocations are known.
func (v *Revocations) ready(ctx context.Context) error {
	if v == nil {
		return nil
	}
	select {
	case <-v.loaded:
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	select {
	case <-v.loaded:
		return nil
	case <-ctx.Done():
		return wire.Unavailable(lookEvery, "revoked tokens are not known yet; the broker can't be reached")
	}
}

// Check returns an unauthorized *wire.Error if the grant's token was revoked.
// Of a revocation that is becoming known either Check tells, or the hook is
// called after Check returned.
func (v *Revocations) Check(g *Grant) error {
	if v.covers(g) {
		return wire.Unauthorized("token was revoked")
	}
	return nil
}

func (v *Revocations) covers(g *Grant) bool {
	if v == nil {
		return false
	}
	v.mu.RLock()
	defer v.mu.RUnlock()
	if _, ok := v.tokens[g.TokenID]; ok && g.TokenID != "" {
		return true
	}
	before, ok := v.subjects[g.Subject]
	return ok && g.issued*1000 < before
}
