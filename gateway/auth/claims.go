package auth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/golang-jwt/jwt/v5"
)

// claims is a token's payload. Its names are matched by their exact case, and
// one that comes twice makes the token unreadable (RFC 7519 §4, §7.2).
type claims struct {
	Issuer    string           `json:"iss,omitzero"`
	Subject   string           `json:"sub,omitzero"`
	Audience  jwt.ClaimStrings `json:"aud,omitzero"`
	Expires   *seconds         `json:"exp,omitzero"`
	NotBefore *seconds         `json:"nbf,omitzero"`
	IssuedAt  *seconds         `json:"iat,omitzero"`
	ID        string           `json:"jti,omitzero"`
	Longline  rights           `json:"longline,omitzero"`
}

type rights struct {
	Subscribe      []string `json:"subscribe,omitempty"`
	Publish        []string `json:"publish,omitempty"`
	Subscriptions  []string `json:"subscriptions,omitempty"`
	Admin          bool     `json:"admin,omitzero"`
	MaxConnections int      `json:"max_connections,omitzero"`
	Portal         *Portal  `json:"portal,omitempty"`
}

var _ jwt.Claims = (*claims)(nil)

// UnmarshalJSON is called by the library, whose own reading of JSON would take
// {"EXP":…} for exp.
func (c *claims) UnmarshalJSON(b []byte) error {
	type plain claims
	return json.Unmarshal(b, (*plain)(c))
}

// MarshalJSON is claims' way back.
func (c *claims) MarshalJSON() ([]byte, error) {
	type plain claims
	return json.Marshal((*plain)(c))
}

// GetExpirationTime and its like implement jwt.Claims.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.Expires.date(), nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.IssuedAt.date(), nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.NotBefore.date(), nil }
func (c *claims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.Subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.Audience, nil }

// seconds is a NumericDate: a JSON number of seconds since 1970, and no text
// of one. What follows the point is dropped, so that a token ends too early
// rather than too late.
type seconds int64

func (s *seconds) UnmarshalJSON(b []byte) error {
	var f float64 // text is refused
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	const most = 253402300799 // the end of the year 9999
	if f = math.Floor(f); f < 0 || f > most {
		return fmt.Errorf("time %v; want seconds since 1970", f)
	}
	*s = seconds(f)
	return nil
}

func (s *seconds) date() *jwt.NumericDate {
	if s == nil {
		return nil
	}
	return jwt.NewNumericDate(s.time())
}

func (s *seconds) time() time.Time { return time.Unix(int64(*s), 0) }

func secondsOf(t time.Time) *seconds {
	s := seconds(t.Unix())
	return &s
}

var errCompact = errors.New("not three parts of base64url, of which the first is a JSON object without a name that comes twice")

// checkCompact refuses what the library would read in more than one way: line
// breaks and padding inside of base64url (RFC 7515 §2), and a header in which
// a name comes twice (§4).
func checkCompact(token string) error {
	dots := 0
	for i := range len(token) {
		switch c := token[i]; {
		case c == '.':
			dots++
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_':
		default:
			return errCompact
		}
	}
	if dots != 2 {
		return errCompact
	}
	header, _, _ := strings.Cut(token, ".")
	text, err := base64.RawURLEncoding.Strict().DecodeString(header)
	if err != nil || jsontext.Value(text).Kind() != '{' || !jsontext.Value(text).IsValid() {
		return errCompact
	}
	return nil
}
