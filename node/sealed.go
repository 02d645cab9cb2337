package node

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/durable"
)

// sealedChannel says with which key the data's secrets are sealed. Its last event
// counts.
const sealedChannel = event.ReservedPrefix + "sealed"

// sealed is the data of its events: marks of keys, which tell two keys apart and
// give neither away.
type sealed struct {
	SecretKey string `json:"secret_key"`
	JWTSecret string `json:"jwt_secret,omitempty"` // of the last node that came with another; on Redis only
}

// markOf is the mark of a key, "" of none.
func markOf(key []byte, what string) (string, error) {
	if key == nil {
		return "", nil
	}
	mark, err := hkdf.Key(sha256.New, key, nil, "longline mark of the "+what, 16)
	return hex.EncodeToString(mark), err
}

// checkSealed refuses a key for secrets that is not the one that the data was
// sealed with, be it by another node, and notes the key of the first node.
// A secret for tokens that is not the one of the node before is only warned of:
// that is also how it is replaced. Nothing is refused because the broker can't
// be asked.
func (n *Node) checkSealed(ctx context.Context, log broker.Log) error {
	var mine sealed
	var err error
	if mine.SecretKey, err = markOf(n.config.vaultKey, "secret key"); err != nil {
		return fmt.Errorf("mark the key for secrets: %w", err)
	}
	if n.config.store.embedded == nil {
		if mine.JWTSecret, err = markOf(n.config.secret, "jwt secret"); err != nil {
			return fmt.Errorf("mark the secret for tokens: %w", err)
		}
	}
	warned := false
	for range 10 { // as others come with others at once
		was, head, err := lastSealed(ctx, log)
		if err != nil {
			n.logger.Warn("can't tell whether the keys are those that the data knows", "error", err)
			return nil
		}
		if was.SecretKey != mine.SecretKey && !n.o.ReplaceSecretKey {
			err := n.refuseSealed(ctx, was.SecretKey != "")
			var refused *OptionError
			if errors.As(err, &refused) {
				return err
			}
			if err != nil {
				n.logger.Warn("can't tell whether the keys are those that the data knows", "error", err)
				return nil
			}
		}
		if was.JWTSecret != "" && mine.JWTSecret != "" && was.JWTSecret != mine.JWTSecret && !warned {
			warned = true
			n.logger.Warn("--jwt-secret is not that of the node that started before: each refuses the tokens of the other")
		}
		if mine.JWTSecret == "" {
			mine.JWTSecret = was.JWTSecret
		}
		if was == mine {
			return nil
		}
		taken, err := mine.note(ctx, log, head)
		if err != nil {
			n.logger.Warn("can't note with which key secrets are sealed", "error", err)
			return nil
		}
		if taken {
			return nil
		}
	}
	return nil
}

// refuseSealed returns why another key than the data's isn't taken. Of a Redis
// others may have the key, and seal with it any moment; in a directory, which is
// nobody else's, it does no harm while nothing is sealed, as in a backup that is
// started with a key of its own. What was stored before there were marks knows its
// key only by what opens: one that opens nothing is not to become its mark.
func (n *Node) refuseSealed(ctx context.Context, marked bool) error {
	e := n.config.store.embedded
	if e == nil && marked {
		return wrong("secret-key", "not the key that secrets on that Redis are sealed with; want the one that the other nodes have (if it is lost: --replace-secret-key)")
	}
	some, opens, err := n.findSealed(ctx)
	switch {
	case err != nil:
		return err
	case !some || opens && !marked:
		return nil
	case e == nil:
		return wrong("secret-key", "opens none of the secrets on that Redis; want the key that they were sealed with (if it is lost: --replace-secret-key)")
	}
	return wrong("secret-key", "not the key that secrets in %s are sealed with; want that one, or its %s if it was made there (if it is lost: --replace-secret-key)", e.Dir, vaultFile)
}

// findSealed tells whether there are secrets, and whether this node's key opens one.
func (n *Node) findSealed(ctx context.Context) (some, opens bool, err error) {
	vault, err := durable.NewVault(n.config.vaultKey)
	if err != nil {
		return false, false, err
	}
	for after := ""; ; {
		page, err := n.broker.List(ctx, "", after, 200)
		if err != nil || len(page) == 0 {
			return some, false, err
		}
		for _, one := range page {
			after = one.Name
			s, err := durable.Decode(one)
			if err != nil || len(s.Sealed) == 0 {
				continue
			}
			some = true
			if _, err := vault.Open(s.Name, s.Sealed); err == nil {
				return true, true, nil
			}
		}
	}
}

// lastSealed reads what the data says, and how many events said so.
func lastSealed(ctx context.Context, log broker.Log) (was sealed, head uint64, err error) {
	state, err := log.State(ctx, sealedChannel)
	if errors.Is(err, broker.ErrNotFound) || err == nil && state.Head == 0 {
		return was, 0, nil
	}
	if err != nil {
		return was, 0, err
	}
	page, err := log.Read(ctx, sealedChannel, state.Head-1, broker.Limit{Events: 1})
	if err != nil || len(page.Items) == 0 {
		return was, state.Head, err
	}
	view, err := event.Stored(page.Items[0].Data).View()
	if err != nil {
		return was, state.Head, err
	}
	var e event.Event
	if err := json.Unmarshal(view.AppendDetached(nil), &e); err != nil {
		return was, state.Head, err
	}
	return was, state.Head, e.DataAs(&was)
}

// note says so from now on, unless another node has said something meanwhile:
// of those who follow the same head one is taken.
func (s sealed) note(ctx context.Context, log broker.Log, head uint64) (taken bool, err error) {
	data, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	f := event.Fields{ID: uuid.NewString(), Source: "/nodes", Type: sealedChannel, Time: event.FormatTime(time.Now()), Data: data}
	appended, err := log.Append(ctx, sealedChannel, []broker.Entry{{Identity: "after " + strconv.FormatUint(head, 10), Data: f.AppendStored(nil)}})
	return err == nil && !appended[0].Duplicate, err
}
