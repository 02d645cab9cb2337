package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

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
	// Remembered is how many bytes verified tokens may be remembered by. 0:
	// 8 MiB, some 10,000 tokens.
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
	remembered *memory
}

// rememberRotating bounds how long a key that left its set is still trusted.
const rememberRotating = jwksRefresh

// NewVerifier checks the options.
func NewVerifier(o Options) (*Verifier, error) {
	if o.Remembered <= 0 {
		o.Remembered = 8 << 20
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
	v.remembered = newMemory(o.Remembered)
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

// maxToken bounds what is worth looking at; a request's header ends there too.
const maxToken = 16 << 10

// Verify returns what a token allows, or a *wire.Error that says what is wrong
// with it: unauthorized, or unavailable where revocations aren't known yet and
// don't become so within 2 s or ctx.
func (v *Verifier) Verify(ctx context.Context, token string) (*Grant, error) {
	if len(token) > maxToken {
		return nil, wire.Unauthorized("token of %d bytes; want at most %d", len(token), maxToken)
	}
	if err := v.revocations.ready(ctx); err != nil {
		return nil, err
	}
	now := v.now()
	key := sha256.Sum256([]byte(token))
	grant := v.remembered.get(key, now.Unix())
	if grant == nil {
		var until int64
		var err error
		if grant, until, err = v.verify(token, now); err != nil {
			return nil, err
		}
		v.remembered.put(key, verified{grant, until, len(token)})
	}
	// Asked each time, so that what is remembered needs no clearing.
	if err := v.revocations.Check(grant); err != nil {
		v.remembered.forget(key)
		return nil, err
	}
	return grant, nil
}

func malformed() error {
	return wire.Unauthorized("token is malformed; want a JWT (RFC 7519) whose longline claim holds the rights: base64url without line breaks, times as numbers, names in their exact case and once")
}

// errCritical refuses tokens with extensions that whoever doesn't understand
// them must refuse (RFC 7515 §4.1.11). None is understood here.
var errCritical = errors.New("critical extension")

func (v *Verifier) verify(token string, now time.Time) (*Grant, int64, error) {
	if err := checkCompact(token); err != nil {
		return nil, 0, malformed()
	}
	var c claims
	var rotating bool
	parsed, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if _, ok := t.Header["crit"]; ok {
			return nil, errCritical
		}
		for _, k := range v.keys {
			if slices.Contains(k.methods, t.Method.Alg()) {
				t.Method, rotating = strict(t.Method), k.rotating
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
		MaxConnections: max(c.Longline.MaxConnections, 0), Admin: c.Longline.Admin, Portal: c.Longline.Portal,
		expires: int64(*c.Expires),
	}
	if c.IssuedAt != nil {
		g.issued = int64(*c.IssuedAt)
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
		return malformed()
	case errors.Is(err, jwt.ErrTokenUnverifiable):
		return wire.Unauthorized("token names key %.80q (kid), which is not known here, or not one that may verify its %s signature", kid, alg)
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return wire.Unauthorized("token's signature does not fit the key")
	case errors.Is(err, jwt.ErrTokenExpired):
		return wire.Unauthorized("token expired at %s", c.Expires.time().UTC().Format(time.RFC3339))
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing) && c.Expires == nil:
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
