package durable

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/longline-push/longline/gateway/shape"
)

// Vault encrypts what must not be read off a disk: secrets and headers of
// callbacks. It is immutable.
type Vault struct{ aead cipher.AEAD }

// NewVault derives a vault's key from key, which should hold 32 random bytes.
func NewVault(key []byte) (*Vault, error) {
	derived, err := hkdf.Key(sha256.New, key, nil, "longline callback secrets 1", 32)
	if err != nil {
		return nil, fmt.Errorf("derive the key for secrets: %w", err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, fmt.Errorf("derive the key for secrets: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("derive the key for secrets: %w", err)
	}
	return &Vault{aead}, nil
}

// Private is what of a callback never comes back.
type Private struct {
	Secrets []Secret          `json:"secrets,omitempty"` // the newest first
	Headers map[string]string `json:"headers,omitempty"`
	Auth    *shape.Auth       `json:"auth,omitempty"`
}

// Secret is a signing secret's text, and until when it signs (zero: for good).
type Secret struct {
	Text  string    `json:"text"`
	Until time.Time `json:"until,omitzero"`
}

// String keeps secrets and headers out of logs.
func (p Private) String() string { return "[private]" }

// Rotate puts a new secret first; the one before signs on for a while.
func (p *Private) Rotate(text string, now time.Time, overlap time.Duration) {
	kept := []Secret{{Text: text}}
	for i, s := range p.Secrets {
		if i == 0 {
			s.Until = now.Add(overlap)
		}
		if now.Before(s.Until) && len(kept) < maxSecrets {
			kept = append(kept, s)
		}
	}
	p.Secrets = kept
}

const maxSecrets = 8 // that sign at once

// Seal encrypts p for the subscription of that name: it opens for no other.
func (v *Vault) Seal(name string, p Private) ([]byte, error) {
	if len(p.Secrets) == 0 && len(p.Headers) == 0 && p.Auth == nil {
		return nil, nil
	}
	text, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode secrets: %w", err)
	}
	nonce := make([]byte, v.aead.NonceSize(), v.aead.NonceSize()+len(text)+v.aead.Overhead())
	rand.Read(nonce)
	return v.aead.Seal(nonce, nonce, text, []byte(name)), nil
}

// Open decrypts what Seal made.
func (v *Vault) Open(name string, sealed []byte) (Private, error) {
	var p Private
	if len(sealed) == 0 {
		return p, nil
	}
	n := v.aead.NonceSize()
	if len(sealed) < n {
		return p, errSealed
	}
	text, err := v.aead.Open(nil, sealed[:n], sealed[n:], []byte(name))
	if err != nil {
		return p, errSealed
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, errSealed
	}
	return p, nil
}

var errSealed = errors.New("secrets can't be decrypted: they were stored with another --secret-key")
