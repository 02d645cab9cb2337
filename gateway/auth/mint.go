package auth

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
)

// Mintage is what a new token says.
type Mintage struct {
	Subject        string
	Subscribe      []string // channel patterns
	Publish        []string // channel patterns
	Subscriptions  []string // name patterns
	Admin          bool
	MaxConnections int
	TTL            time.Duration // at least a second
	Portal         *Portal       // nil: it isn't a portal's
	Issuer         string
	Audience       string
}

// Mint makes a token signed with a secret (HS256), issued now, with a jti of
// its own by which it can be revoked.
func Mint(secret []byte, m Mintage, now time.Time) (string, error) {
	if err := CheckSecret(secret); err != nil {
		return "", err
	}
	if m.TTL < time.Second {
		return "", fmt.Errorf("ttl %v; want at least a second, e.g. 24h", m.TTL)
	}
	for _, list := range [][]string{m.Subscribe, m.Publish} {
		if _, err := parseChannels(list); err != nil {
			return "", err
		}
	}
	if _, err := parseNames(m.Subscriptions); err != nil {
		return "", err
	}
	c := &claims{
		Subject: m.Subject, ID: uuid.NewString(), Issuer: m.Issuer,
		IssuedAt: secondsOf(now), Expires: secondsOf(now.Add(m.TTL)),
		Longline: rights{
			Subscribe: m.Subscribe, Publish: m.Publish, Subscriptions: m.Subscriptions,
			Admin: m.Admin, MaxConnections: m.MaxConnections, Portal: m.Portal,
		},
	}
	if m.Audience != "" {
		c.Audience = jwt.ClaimStrings{m.Audience}
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, c).SignedString(secret)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return token, nil
}
