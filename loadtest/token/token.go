// Package token gives load clients and publishers the JWTs they connect with.
package token

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A Source hands out tokens: one fixed token for everybody, or one for each,
// signed with Secret; with neither, none (the floor asks for none).
type Source struct {
	Fixed  string
	Secret string
	TTL    time.Duration // of minted tokens; default 24 h
}

// A Grant is what a minted token allows; see docs/protocol.md.
type Grant struct {
	Subscribe     []string `json:"subscribe,omitempty"`
	Publish       []string `json:"publish,omitempty"`
	Subscriptions []string `json:"subscriptions,omitempty"`
	Admin         bool     `json:"admin,omitempty"`
}

type claims struct {
	jwt.RegisteredClaims
	Longline Grant `json:"longline"`
}

// For returns the token of subject, empty if the source has none to give.
func (s Source) For(subject string, g Grant) (string, error) {
	if s.Fixed != "" || s.Secret == "" {
		return s.Fixed, nil
	}
	ttl := s.TTL
	if ttl == 0 {
		ttl = 24 * time.Hour
	}
	now := time.Now()
	c := claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Subject: subject, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(ttl)),
		},
		Longline: g,
	}
	signed, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString([]byte(s.Secret))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}
