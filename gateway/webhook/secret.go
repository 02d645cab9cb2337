package webhook

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// SecretPrefix begins a secret's text, by Standard Webhooks; base64 follows.
const SecretPrefix = "whsec_"

// Secret signs callbacks. Printed or logged it shows nothing of its key.
type Secret struct {
	Key []byte
	// Until is when it stops signing; zero for never. A rotated secret lives
	// on for a while, so that the receiver can change over.
	Until time.Time
}

// ParseSecret reads whsec_ and the base64 of 24 to 64 bytes.
func ParseSecret(text string) (Secret, error) {
	errShape := errors.New("want whsec_ and the base64 of 24 to 64 bytes")
	encoded, ok := strings.CutPrefix(text, SecretPrefix)
	if !ok {
		return Secret{}, errShape
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < 24 || len(key) > 64 {
		return Secret{}, errShape // without err, which quotes the secret's bytes
	}
	return Secret{Key: key}, nil
}

// NewSecret makes up a secret's text.
func NewSecret() string {
	key := make([]byte, 32)
	rand.Read(key) // never fails, see crypto/rand
	return SecretPrefix + base64.StdEncoding.EncodeToString(key)
}

// String hides the key.
func (s Secret) String() string { return SecretPrefix + "…" }

// GoString hides the key from %#v.
func (s Secret) GoString() string { return s.String() }

// LogValue hides the key from logs.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

func (s Secret) lives(now time.Time) bool { return s.Until.IsZero() || now.Before(s.Until) }

// sign makes the webhook-signature header: "v1,<base64>" for each secret that
// lives at that time, the first first, separated by spaces.
func sign(secrets []Secret, id string, at time.Time, body []byte) string {
	var out []byte
	var sum [sha256.Size]byte
	for _, s := range secrets {
		if !s.lives(at) {
			continue
		}
		h := hmac.New(sha256.New, s.Key)
		head := append(append(make([]byte, 0, len(id)+24), id...), '.')
		head = append(strconv.AppendInt(head, at.Unix(), 10), '.')
		h.Write(head)
		h.Write(body)
		if len(out) > 0 {
			out = append(out, ' ')
		}
		out = append(out, "v1,"...)
		out = base64.StdEncoding.AppendEncode(out, h.Sum(sum[:0]))
	}
	return string(out)
}
