package webhook_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/webhook"
)

func FuzzParseSecret(f *testing.F) {
	for _, text := range []string{"", "whsec_", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", webhook.NewSecret(), "whsec_%"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := webhook.ParseSecret(text)
		if err == nil && (len(s.Key) < 24 || len(s.Key) > 64) {
			t.Errorf("%q gave a key of %d bytes", text, len(s.Key))
		}
	})
}

func FuzzHeaderText(f *testing.F) {
	for _, text := range []string{"", "plain", "a b", "50%", "Zoë", "\r\nx: y", "\x00", "\xff"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got := webhook.HeaderText(text)
		if i := strings.IndexFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f }); i >= 0 {
			t.Errorf("%q became %q, which doesn't fit a header", text, got)
		}
		if back, err := url.PathUnescape(got); err != nil || back != text {
			t.Errorf("%q became %q, which reads as %q (%v)", text, got, back, err)
		}
	})
}
