package longline

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// Grant is what a token says: who bears it, and what they may do.
type Grant struct {
	Subject        string        // whom it is for: limits and revocations go by it
	Subscribe      []string      // patterns of channels that may be read
	Publish        []string      // patterns of channels that may be published to
	Subscriptions  []string      // patterns of names; * is any run of characters
	Admin          bool          // everything
	MaxConnections int           // at once, per node; 0: any number
	TTL            time.Duration // how long it is valid; 0: an hour
	// ID is the jti by which it can be revoked; "": one is made.
	ID               string
	Issuer, Audience string // if the gateway asks for them
}

// minSecret is how many bytes a secret must have, as the gateway says.
const minSecret = 32

// MintToken makes a token for somebody, with the gateway's secret (HS256): on
// your server, for who is signed in there. The secret has 32 bytes or more.
func MintToken(secret []byte, g Grant) (string, error) {
	if len(secret) < minSecret {
		return "", &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("the secret has %d bytes, want %d or more", len(secret), minSecret)}
	}
	return mintToken("HS256", g, func(text []byte) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write(text)
		return mac.Sum(nil)
	})
}

// MintTokenEdDSA makes one with a private key whose public half the gateway
// has, so that no gateway can make tokens.
func MintTokenEdDSA(key ed25519.PrivateKey, g Grant) (string, error) {
	if len(key) != ed25519.PrivateKeySize {
		return "", &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("the key has %d bytes, want %d", len(key), ed25519.PrivateKeySize)}
	}
	return mintToken("EdDSA", g, func(text []byte) []byte { return ed25519.Sign(key, text) })
}

// claims is a token's payload.
type claims struct {
	Subject  string `json:"sub"`
	ID       string `json:"jti"`
	Issued   int64  `json:"iat"`
	Expires  int64  `json:"exp"`
	Issuer   string `json:"iss,omitempty"`
	Audience string `json:"aud,omitempty"`
	Longline rights `json:"longline"`
}

type rights struct {
	Subscribe      []string `json:"subscribe,omitempty"`
	Publish        []string `json:"publish,omitempty"`
	Subscriptions  []string `json:"subscriptions,omitempty"`
	Admin          bool     `json:"admin,omitempty"`
	MaxConnections int      `json:"max_connections,omitempty"`
}

func mintToken(algorithm string, g Grant, sign func([]byte) []byte) (string, error) {
	fill(&g.TTL, time.Hour)
	if g.TTL < time.Second {
		return "", &Error{Code: ErrBadRequest.Code, Detail: fmt.Sprintf("ttl is %v, want a second or more", g.TTL)}
	}
	if g.ID == "" {
		g.ID = newID()
	}
	now := time.Now()
	payload, err := json.Marshal(claims{
		Subject: g.Subject, ID: g.ID, Issued: now.Unix(), Expires: now.Add(g.TTL).Unix(), Issuer: g.Issuer, Audience: g.Audience,
		Longline: rights{g.Subscribe, g.Publish, g.Subscriptions, g.Admin, g.MaxConnections},
	})
	if err != nil {
		return "", fmt.Errorf("encode claims: %w", err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"`+algorithm+`","typ":"JWT"}`)) + "." + encode(payload)
	return text + "." + encode(sign([]byte(text))), nil
}

// Tokens end before their time. For admins; safe for concurrent use.
type Tokens struct{ client *Client }

// Tokens returns what ends them.
func (c *Client) Tokens() Tokens { return Tokens{c} }

// Revoke ends the token with an id (its jti), on all nodes within two seconds,
// live connections with it.
func (t Tokens) Revoke(ctx context.Context, id string) error {
	return t.client.Do(ctx, http.MethodPost, "/v1/tokens/revoke", map[string]string{"jti": id}, nil)
}

// RevokeBefore ends the tokens of a sub that were issued before a time, and
// pauses the subscriptions that they created.
func (t Tokens) RevokeBefore(ctx context.Context, sub string, before time.Time) error {
	body := map[string]string{"sub": sub, "before": before.UTC().Format(time.RFC3339Nano)}
	return t.client.Do(ctx, http.MethodPost, "/v1/tokens/revoke", body, nil)
}
