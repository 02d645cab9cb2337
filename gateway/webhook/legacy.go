package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// LegacySigning signs the body once more, in a header of an older style, so
// that a receiver of webhooks can stay as it is. The key is that of the
// callback's secret.
type LegacySigning struct {
	Header string `json:"header"`
	Scheme Scheme `json:"scheme"`
	Prefix string `json:"prefix,omitempty"` // before the signature; not of Stripe's
}

// Scheme is how a LegacySigning signs.
type Scheme string

// Hex is GitHub's style, Base64 Shopify's. Stripe's signs the time too, by each
// secret that lives: t=<unix>,v1=<hex>.
const (
	Hex    Scheme = "hmac-sha256-hex"
	Base64 Scheme = "hmac-sha256-base64"
	Stripe Scheme = "stripe"
)

// Check names what is wrong, but for the header's name.
func (l *LegacySigning) Check() error {
	switch l.Scheme {
	case Hex, Base64:
	case Stripe:
		if l.Prefix != "" {
			return fmt.Errorf("prefix is %q, want none with scheme %q", l.Prefix, Stripe)
		}
	default:
		return fmt.Errorf("scheme is %q, want %s, %s or %s", l.Scheme, Hex, Base64, Stripe)
	}
	if len(l.Prefix) > 64 {
		return fmt.Errorf("prefix has %d bytes, want 64 at most", len(l.Prefix))
	}
	for i := range len(l.Prefix) {
		if c := l.Prefix[i]; c < ' ' || c > '~' {
			return fmt.Errorf("prefix is %q, want visible ASCII", l.Prefix)
		}
	}
	return nil
}

func (l *LegacySigning) sign(h http.Header, secrets []Secret, at time.Time, body []byte) {
	var value []byte
	for _, s := range secrets {
		if !s.lives(at) {
			continue
		}
		mac := hmac.New(sha256.New, s.Key)
		if l.Scheme == Stripe {
			unix := strconv.AppendInt(nil, at.Unix(), 10)
			if value == nil {
				value = append(append(value, "t="...), unix...)
			}
			mac.Write(append(unix, '.'))
			mac.Write(body)
			value = hex.AppendEncode(append(value, ",v1="...), mac.Sum(nil))
			continue
		}
		mac.Write(body)
		value = append(value, l.Prefix...)
		if l.Scheme == Hex {
			value = hex.AppendEncode(value, mac.Sum(nil))
		} else {
			value = base64.StdEncoding.AppendEncode(value, mac.Sum(nil))
		}
		break // one signature is what such receivers know: the newest secret's
	}
	if value != nil {
		h[http.CanonicalHeaderKey(l.Header)] = []string{string(value)}
	}
}
