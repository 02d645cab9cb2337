// Package authtest makes tokens and what verifies them, for tests.
package authtest

import (
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
)

// Secret is what the tokens are signed with.
var Secret = []byte("a secret of at least thirty-two bytes")

// Verifier verifies tokens of Secret; o says what else it does.
func Verifier(t testing.TB, o auth.Options) *auth.Verifier {
	t.Helper()
	keys, err := auth.Secret(Secret)
	if err != nil {
		t.Fatal(err)
	}
	o.Keys = []auth.Keys{keys}
	v, err := auth.NewVerifier(o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Token mints a token: ann's and good for an hour, unless m says otherwise.
func Token(t testing.TB, m auth.Mintage) string {
	t.Helper()
	if m.Subject == "" {
		m.Subject = "ann"
	}
	if m.TTL == 0 {
		m.TTL = time.Hour
	}
	token, err := auth.Mint(Secret, m, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Grant is what Token's bearer may do.
func Grant(t testing.TB, m auth.Mintage) *auth.Grant {
	t.Helper()
	g, err := Verifier(t, auth.Options{}).Verify(t.Context(), Token(t, m))
	if err != nil {
		t.Fatal(err)
	}
	return g
}
