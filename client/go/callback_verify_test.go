package longline

import (
	"errors"
	"net/http"
	"strconv"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

type goldenCallback struct {
	Name    string
	Secrets []string
	Now     int64
	Headers map[string]string
	Body    string
	OK      bool
}

func TestGoldenCallbacks(t *testing.T) {
	var callbacks []goldenCallback
	readGolden(t, "callbacks.json", &callbacks)
	for _, g := range callbacks {
		t.Run(g.Name, func(t *testing.T) {
			h := http.Header{}
			for name, value := range g.Headers {
				h.Set(name, value)
			}
			secrets, err := parseSecrets(g.Secrets)
			if err != nil {
				t.Fatal(err)
			}
			err = verify(h, []byte(g.Body), secrets, time.Unix(g.Now, 0))
			if (err == nil) != g.OK {
				t.Fatalf("got %v, want ok %v", err, g.OK)
			}
			if err != nil && !errors.Is(err, ErrSignature) && !errors.Is(err, ErrTimestamp) {
				t.Errorf("got %v, want ErrSignature or ErrTimestamp", err)
			}
			if err == nil {
				if _, _, err := parseCallback(h.Get("Content-Type"), []byte(g.Body)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// What another implementation signs, and what it takes, agrees with ours.
func TestVerifyCallbackAgainstLibrary(t *testing.T) {
	const secret = "whsec_c2VjcmV0IG9mIHRoaXJ0eS10d28gYnl0ZXMsIG9r"
	wh, err := standardwebhooks.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	body, now := []byte(`{"a":1}`), time.Now()
	signature, err := wh.Sign("id-1", now, body)
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	h.Set("webhook-id", "id-1")
	h.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	h.Set("webhook-signature", signature)
	if err := VerifyCallback(h, body, secret); err != nil {
		t.Error(err)
	}
	if err := VerifyCallback(h, append(body, ' '), secret); !errors.Is(err, ErrSignature) {
		t.Errorf("another body: got %v, want ErrSignature", err)
	}
	if err := VerifyCallback(h, body); !errors.Is(err, ErrSignature) {
		t.Errorf("no secret: got %v, want ErrSignature", err)
	}
	if err := VerifyCallback(h, body, "whsec_?"); !errors.Is(err, ErrBadRequest) {
		t.Errorf("bad secret: got %v, want ErrBadRequest", err)
	}
	h.Set("webhook-timestamp", "-9223372036854775808")
	if err := VerifyCallback(h, body, secret); !errors.Is(err, ErrTimestamp) {
		t.Errorf("absurd timestamp: got %v, want ErrTimestamp", err)
	}
}
