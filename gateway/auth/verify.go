package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/longline-push/longline/gateway/wire"
)

// Options of a Verifier.
type Options struct {
	// Keys that tokens are verified with; at least one source, and no two for
	// one algorithm.
	Keys []Keys
	// Issuer and Audience are what iss and aud must be, or hold. "": not
	// checked.
	Issuer, Audience string
	// Origins that a browser may come from with its cookie.
	Origins Origins
	// Revocations are the tokens that don't count any more. nil: none.
	Revocations *Revocations
	// Remembered is how many verified tokens are remembered. 0: 4,096.
	Remembered int
	// Now is the clock. nil: time.Now.
	Now func() time.Time
}

// Verifier makes grants of tokens. It is safe for concurrent use.
type Verifier struct {
	keys        []Keys
	parser      *jwt.Parser
	methods     []string
	origins     Origins
	revocations *Revocations
	now         func() time.Time

	interned   interned
	remembered *lru.Cache[[sha256.Size]byte, verified]
}

type verified struct {
	grant *Grant
	until int64 // Unix seconds
}

// rememberRotating bounds how long a key that left its set is still trusted.
const rememberRotating = jwksRefresh

// NewVerifier checks the options.
func NewVerifier(o Options) (*Verifier, error) {
	if o.Remembered <= 0 {
		o.Remembered = 4096
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	v := &Verifier{keys: o.Keys, origins: o.Origins, revocations: o.Revocations, now: o.Now, interned: newInterned()}
	for _, k := range o.Keys {
		for _, m := range k.methods {
			if slices.Contains(v.methods, m) {
				return nil, errors.New("two keys for " + m + " tokens; want one")
			}
			v.methods = append(v.methods, m)
		}
	}
	if len(v.methods) == 0 {
		return nil, errors.New("no key to verify tokens with")
	}
	var err error
	if v.remembered, err = lru.New[[sha256.Size]byte, verified](o.Remembered); err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(v.methods), jwt.WithExpirationRequired(), jwt.WithIssuedAt(),
		jwt.WithLeeway(Leeway), jwt.WithTimeFunc(o.Now), jwt.WithStrictDecoding(),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	v.parser = jwt.NewParser(options...)
	return v, nil
}

// claims is a token's payload.
type claims struct {
	jwt.RegisteredClaims
	Longline rights `json:"longline"`
}

type rights struct {
	Subscribe      []string `json:"subscribe,omitempty"`
	Publish        []string `json:"publish,omitempty"`
	Subscriptions  []string `json:"subscriptions,omitempty"`
	Admin          bool     `json:"admin,omitempty"`
	MaxConnections int      `json:"max_connections,omitempty"`
}

// maxToken bounds what is worth looking at; a request's header ends there too.
const maxToken = 16 << 10

// Verify returns what a token allows, or a *wire.Error that says what is wrong
// with it: unauthorized, or unavailable while revocations aren't known yet.
func (v *Verifier) Verify(_ context.Context, token string) (*Grant, error) {
	if len(token) > maxToken {
		return nil, wire.Unauthorized("token of %d bytes; want at most %d", len(token), maxToken)
	}
	if err := v.revocations.ready(); err != nil {
		return nil, err
	}
	now := v.now()
	key := sha256.Sum256([]byte(token))
	known, ok := v.remembered.Get(key)
	if !ok || now.Unix() >= known.until {
		grant, until, err := v.verify(token, now)
		if err != nil {
			v.remembered.Remove(key)
			return nil, err
		}
		known = verified{grant, until}
		v.remembered.Add(key, known)
	}
	// Asked each time, so that what is remembered needs no clearing.
	if v.revocations.covers(known.grant) {
		v.remembered.Remove(key)
		return nil, wire.Unauthorized("token was revoked")
	}
	return known.grant, nil
}

// errCritical refuses tokens with extensions that whoever doesn't understand
// them must refuse (RFC 7515 §4.1.11). None is understood here.
var errCritical = errors.New("critical extension")

func (v *Verifier) verify(token string, now time.Time) (*Grant, int64, error) {
	var c claims
	var rotating bool
	parsed, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok {
			return nil, errCritical
		}
		for _, k := range v.keys {
			if slices.Contains(k.methods, t.Method.Alg()) {
				rotating = k.rotating
				return k.find(t)
			}
		}
		return nil, jwt.ErrTokenUnverifiable // the parser has refused it before
	})
	if err != nil {
		return nil, 0, v.explain(parsed, &c, err)
	}
	g := &Grant{
		Subject: c.Subject, TokenID: c.ID,
		MaxConnections: max(c.Longline.MaxConnections, 0), Admin: c.Longline.Admin,
		expires: c.ExpiresAt.Unix(),
	}
	if c.IssuedAt != nil {
		g.issued = c.IssuedAt.Unix()
	}
	if g.subscribe, err = v.interned.parseChannels(c.Longline.Subscribe); err != nil {
		return nil, 0, wire.Unauthorized("token's longline.subscribe: %v", err)
	}
	if g.publish, err = v.interned.parseChannels(c.Longline.Publish); err != nil {
		return nil, 0, wire.Unauthorized("token's longline.publish: %v", err)
	}
	if g.subscriptions, err = v.interned.parseNames(c.Longline.Subscriptions); err != nil {
		return nil, 0, wire.Unauthorized("token's longline.subscriptions: %v", err)
	}
	until := g.Ends().Unix()
	if rotating {
		until = min(until, now.Add(rememberRotating).Unix())
	}
	return g, until, nil
}

// explain says what is wrong with a token without repeating any of it that is
// secret: its signature.
func (v *Verifier) explain(t *jwt.Token, c *claims, err error) error {
	alg, kid := "", ""
	if t != nil {
		alg, _ = t.Header["alg"].(string)
		kid, _ = t.Header["kid"].(string)
	}
	switch {
	case alg != "" && !slices.Contains(v.methods, alg):
		return wire.Unauthorized("token is signed with algorithm %.20q; want one of %s", alg, strings.Join(v.methods, ", "))
	case errors.Is(err, errCritical):
		return wire.Unauthorized("token's header has crit; no extension that must be understood is taken")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return wire.Unauthorized("token is malformed; want a JWT (RFC 7519) whose longline claim holds the rights")
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return wire.Unauthorized("token names key %.80q (kid), which is not known here", kid)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return wire.Unauthorized("token's signature does not fit the key")
	case errors.Is(err, jwt.ErrTokenExpired):
		return wire.Unauthorized("token expired at %s", c.ExpiresAt.UTC().Format(time.RFC3339))
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing) && c.ExpiresAt == nil:
		return wire.Unauthorized("token has no exp; want one, in seconds since 1970")
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		return wire.Unauthorized("token is not valid yet (nbf, iat); check the clocks")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return wire.Unauthorized("token's iss is not the one wanted here")
	case errors.Is(err, jwt.ErrTokenInvalidAudience), errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return wire.Unauthorized("token's iss or aud is not the one wanted here")
	}
	return wire.Unauthorized("token is not valid")
}
