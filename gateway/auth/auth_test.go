package auth_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = []byte("a secret of at least thirty-two bytes")
	quiet  = slog.New(slog.NewTextHandler(io.Discard, nil))
	rsaKey = must(rsa.GenerateKey(rand.Reader, 2048))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func publicPEM(key crypto.PublicKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))})
}

// payload is a token's claims with what every token has.
func payload(change func(jwt.MapClaims)) jwt.MapClaims {
	c := jwt.MapClaims{
		"sub": "customer-42", "jti": "t1", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"longline": map[string]any{"subscribe": []string{"acct-42", "public.**"}, "publish": []string{"acct-42"}, "subscriptions": []string{"crm-42-*", "crm-42"}, "max_connections": 4},
	}
	if change != nil {
		change(c)
	}
	return c
}

func sign(t *testing.T, method jwt.SigningMethod, key any, kid string, c jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, c)
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatalf("sign: %v", err)
	}
	return s
}

func newVerifier(t *testing.T, o auth.Options) *auth.Verifier {
	t.Helper()
	if o.Keys == nil {
		o.Keys = []auth.Keys{must(auth.Secret(secret))}
	}
	v, err := auth.NewVerifier(o)
	if err != nil {
		t.Fatalf("NewVerifier: %v", err)
	}
	return v
}

func wantUnauthorized(t *testing.T, err error, saying string) {
	t.Helper()
	var e *wire.Error
	if !errors.As(err, &e) || e.Code != wire.CodeUnauthorized || !strings.Contains(e.Detail, saying) {
		t.Errorf("got %v, want unauthorized, saying %q", err, saying)
	}
}

func TestGrantAllowsWhatTheTokenSays(t *testing.T) {
	v := newVerifier(t, auth.Options{})
	g, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodHS256, secret, "", payload(nil)))
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	for _, tt := range []struct {
		what string
		got  bool
		want bool
	}{
		{"subscribe to the channel named", g.MaySubscribe("acct-42"), true},
		{"subscribe to another", g.MaySubscribe("acct-43"), false},
		{"subscribe below a pattern", g.MaySubscribe("public.news.eu"), true},
		{"subscribe to the pattern's stem", g.MaySubscribe("public"), false},
		{"subscribe to the gateway's own", g.MaySubscribe("longline.events"), false},
		{"publish to the channel named", g.MayPublish("acct-42"), true},
		{"publish where one may only read", g.MayPublish("public.news"), false},
		{"publish to the gateway's own", g.MayPublish("longline.events"), false},
		{"attach to the subscription named", g.MaySubscription("crm-42"), true},
		{"attach to one that the pattern covers", g.MaySubscription("crm-42-eu"), true},
		{"attach to another", g.MaySubscription("crm-43"), false},
	} {
		if tt.got != tt.want {
			t.Errorf("may %s = %v, want %v", tt.what, tt.got, tt.want)
		}
	}
	if g.Subject != "customer-42" || g.TokenID != "t1" || g.MaxConnections != 4 || g.Admin {
		t.Errorf("grant = %+v", g)
	}
	if got := g.Ends().Sub(g.Expires()); got != 30*time.Second {
		t.Errorf("leeway = %v, want 30s", got)
	}
}

func TestAdminMayDoEverythingButPublishAsTheGateway(t *testing.T) {
	v := newVerifier(t, auth.Options{})
	g, err := v.Verify(t.Context(), must(auth.Mint(secret, auth.Mintage{Subject: "ops", Admin: true, TTL: time.Minute}, time.Now())))
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if !g.MaySubscribe("longline.events") || !g.MayPublish("any") || !g.MaySubscription("any") {
		t.Error("an admin is refused something")
	}
	if g.MayPublish("longline.events") {
		t.Error("an admin may publish to longline.events; nobody may")
	}
}

func TestStarsDontCoverReservedChannels(t *testing.T) {
	v := newVerifier(t, auth.Options{})
	mint := func(pattern string) *auth.Grant {
		t.Helper()
		token := must(auth.Mint(secret, auth.Mintage{Subscribe: []string{pattern}, TTL: time.Minute}, time.Now()))
		g, err := v.Verify(t.Context(), token)
		if err != nil {
			t.Fatalf("Verify: %v", err)
		}
		return g
	}
	for pattern, want := range map[string]bool{"**": false, "*.events": false, "longline.events": true, "longline.**": true} {
		if got := mint(pattern).MaySubscribe("longline.events"); got != want {
			t.Errorf("pattern %s covers longline.events: %v, want %v", pattern, got, want)
		}
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	ed := must(ecdsaKey())
	pemText := publicPEM(&rsaKey.PublicKey)
	byPEM := auth.Options{Keys: []auth.Keys{must(auth.PublicKey(pemText))}}
	for _, tt := range []struct {
		name   string
		o      auth.Options
		token  string
		saying string
	}{
		{"not a JWT", auth.Options{}, "hello", "malformed"},
		{"empty", auth.Options{}, "", "malformed"},
		{"expired", auth.Options{}, sign(t, jwt.SigningMethodHS256, secret, "", payload(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() })), "expired at"},
		{"no exp", auth.Options{}, sign(t, jwt.SigningMethodHS256, secret, "", payload(func(c jwt.MapClaims) { delete(c, "exp") })), "no exp"},
		{"not valid yet", auth.Options{}, sign(t, jwt.SigningMethodHS256, secret, "", payload(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Minute).Unix() })), "not valid yet"},
		{"alg none", auth.Options{}, sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, "", payload(nil)), `"none"; want one of HS256`},
		{"signed with another secret", auth.Options{}, sign(t, jwt.SigningMethodHS256, []byte("another secret of thirty-two bytes!!"), "", payload(nil)), "signature"},
		{"signed with the PEM public key as an HMAC secret", byPEM, sign(t, jwt.SigningMethodHS256, pemText, "", payload(nil)), `"HS256"; want one of RS256`},
		{"of an algorithm the key doesn't serve", byPEM, sign(t, jwt.SigningMethodES256, ed, "", payload(nil)), `"ES256"`},
		{"of another issuer", auth.Options{Issuer: "us"}, sign(t, jwt.SigningMethodHS256, secret, "", payload(func(c jwt.MapClaims) { c["iss"] = "them" })), "iss"},
		{"for another audience", auth.Options{Audience: "us"}, sign(t, jwt.SigningMethodHS256, secret, "", payload(nil)), "aud"},
		{"bad pattern", auth.Options{}, sign(t, jwt.SigningMethodHS256, secret, "", payload(func(c jwt.MapClaims) {
			c["longline"] = map[string]any{"subscribe": []string{"a.**.b"}}
		})), `pattern "a.**.b"`},
		{"with an extension that must be understood", auth.Options{}, critical(t), "crit"},
		{"enormous", auth.Options{}, strings.Repeat("a", 17<<10), "17408 bytes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := newVerifier(t, tt.o)
			_, err := v.Verify(t.Context(), tt.token)
			wantUnauthorized(t, err, tt.saying)
			if err != nil && len(tt.token) > 20 && strings.Contains(err.Error(), tt.token[len(tt.token)-20:]) {
				t.Errorf("error repeats the token: %v", err)
			}
		})
	}
}

// critical is a token that is good but for its header's crit.
func critical(t *testing.T) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, payload(nil))
	token.Header["crit"], token.Header["lock"] = []string{"lock"}, true
	text, err := token.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func ecdsaKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func TestPublicKeysServeTheirAlgorithms(t *testing.T) {
	ec := must(ecdsaKey())
	edPublic, edPrivate, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		public  crypto.PublicKey
		private any
		method  jwt.SigningMethod
	}{
		{&rsaKey.PublicKey, rsaKey, jwt.SigningMethodRS256},
		{&rsaKey.PublicKey, rsaKey, jwt.SigningMethodPS512},
		{&ec.PublicKey, ec, jwt.SigningMethodES256},
		{edPublic, edPrivate, jwt.SigningMethodEdDSA},
	} {
		keys, err := auth.PublicKey(publicPEM(tt.public))
		if err != nil {
			t.Fatalf("PublicKey: %v", err)
		}
		v := newVerifier(t, auth.Options{Keys: []auth.Keys{keys}})
		if _, err := v.Verify(t.Context(), sign(t, tt.method, tt.private, "", payload(nil))); err != nil {
			t.Errorf("%s: %v", tt.method.Alg(), err)
		}
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	for name, err := range map[string]error{
		"short secret":      second(auth.Secret([]byte("too short"))),
		"PEM as the secret": second(auth.Secret(publicPEM(&rsaKey.PublicKey))),
		"no PEM":            second(auth.PublicKey([]byte("hello"))),
		"small RSA":         second(auth.PublicKey(publicPEM(&must(rsa.GenerateKey(rand.Reader, 1024)).PublicKey))),
		"private key":       second(auth.PublicKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(rsaKey))}))),
		"key set not there": second(auth.JWKS(t.Context(), filepath.Join(t.TempDir(), "none.json"), quiet)),
		"two for one":       second(auth.NewVerifier(auth.Options{Keys: []auth.Keys{must(auth.Secret(secret)), must(auth.Secret(secret))}})),
		"none":              second(auth.NewVerifier(auth.Options{})),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func jwks(t *testing.T, keys map[string]*rsa.PublicKey) []byte {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	list := []map[string]string{}
	for kid, key := range keys {
		list = append(list, map[string]string{"kty": "RSA", "kid": kid, "use": "sig", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())})
	}
	raw, err := json.Marshal(map[string]any{"keys": list})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestKeySetAtURLRotates(t *testing.T) {
	next := must(rsa.GenerateKey(rand.Reader, 2048))
	var set atomic.Value
	set.Store(jwks(t, map[string]*rsa.PublicKey{"k1": &rsaKey.PublicKey}))
	var reads atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if reads.Add(1) > 1 { // a round trip across the net
			select {
			case <-r.Context().Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
		w.Write(set.Load().([]byte))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)

	keys, err := auth.JWKS(t.Context(), server.URL, quiet)
	if err != nil {
		t.Fatalf("JWKS: %v", err)
	}
	v := newVerifier(t, auth.Options{Keys: []auth.Keys{keys}})
	if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodRS256, rsaKey, "k1", payload(nil))); err != nil {
		t.Errorf("key in the set: %v", err)
	}
	set.Store(jwks(t, map[string]*rsa.PublicKey{"k2": &next.PublicKey}))
	var wg sync.WaitGroup
	for i := range 10 { // at once: the set is read slowly, and once
		token := sign(t, jwt.SigningMethodRS256, next, "k2", payload(func(c jwt.MapClaims) { c["sub"] = fmt.Sprint(i) }))
		wg.Go(func() {
			if _, err := v.Verify(t.Context(), token); err != nil {
				t.Errorf("key that came into the set: %v", err)
			}
		})
	}
	wg.Wait()
	_, err = v.Verify(t.Context(), sign(t, jwt.SigningMethodRS256, next, "k3", payload(nil)))
	wantUnauthorized(t, err, `key "k3" (kid), which is not known`)
	_, err = v.Verify(t.Context(), sign(t, jwt.SigningMethodHS256, secret, "k2", payload(nil)))
	wantUnauthorized(t, err, `"HS256"`)
}

func TestKeySetInFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, jwks(t, map[string]*rsa.PublicKey{"k1": &rsaKey.PublicKey}), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := auth.JWKS(t.Context(), file, quiet)
	if err != nil {
		t.Fatalf("JWKS: %v", err)
	}
	v := newVerifier(t, auth.Options{Keys: []auth.Keys{keys}})
	if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodRS256, rsaKey, "k1", payload(nil))); err != nil {
		t.Errorf("key in the set: %v", err)
	}
	_, err = v.Verify(t.Context(), sign(t, jwt.SigningMethodRS256, rsaKey, "k9", payload(nil)))
	wantUnauthorized(t, err, `key "k9"`)
}

func TestVerifiedTokenIsRememberedUntilItExpires(t *testing.T) {
	now := time.Now()
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	v := newVerifier(t, auth.Options{Now: clock})
	token := must(auth.Mint(secret, auth.Mintage{Subject: "a", TTL: time.Minute}, now))
	first, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	if again, _ := v.Verify(t.Context(), token); again != first {
		t.Error("the second look made another grant")
	}
	mu.Lock()
	now = now.Add(time.Minute + auth.Leeway + time.Second)
	mu.Unlock()
	_, err = v.Verify(t.Context(), token)
	wantUnauthorized(t, err, "expired")
}

func TestRememberedTokensAreBoundedByTheirBytes(t *testing.T) {
	v := newVerifier(t, auth.Options{Remembered: 16 << 10})
	mint := func(subject string) string {
		return must(auth.Mint(secret, auth.Mintage{Subject: subject, TTL: time.Minute}, time.Now()))
	}
	verify := func(token string) *auth.Grant { return must(v.Verify(t.Context(), token)) }
	small := mint("small")
	first := verify(small)
	large := mint(strings.Repeat("l", 10_000)) // and a third more in base64
	if verify(large); verify(small) != first {
		t.Error("the small token was forgotten though there was room for both")
	}
	verify(mint(strings.Repeat("m", 10_000)))
	if verify(small) != first {
		t.Error("the token that was used last was forgotten before an older one")
	}
	verify(large)
	for i := range 100 {
		verify(mint(fmt.Sprint(i)))
	}
	if verify(small) == first {
		t.Error("all tokens are remembered, however many bytes they have")
	}
}

func TestRememberedTokenCostsNoAllocation(t *testing.T) {
	v := newVerifier(t, auth.Options{})
	token := must(auth.Mint(secret, auth.Mintage{TTL: time.Minute}, time.Now()))
	ctx := context.Background()
	got := testing.AllocsPerRun(100, func() {
		if _, err := v.Verify(ctx, token); err != nil {
			t.Fatal(err)
		}
	})
	if got > 1 {
		t.Errorf("%v allocations, want at most 1", got)
	}
}

func TestWhereTheTokenIsTakenFrom(t *testing.T) {
	origins := must(auth.ParseOrigins([]string{"https://app.example.com", "*"}))
	v := newVerifier(t, auth.Options{Origins: origins})
	good := must(auth.Mint(secret, auth.Mintage{Subject: "a", TTL: time.Minute}, time.Now()))
	for _, tt := range []struct {
		name    string
		method  string
		target  string
		header  map[string]string
		want    auth.Source
		refused string
	}{
		{"header", "POST", "/", map[string]string{"Authorization": "Bearer " + good}, auth.FromHeader, ""},
		{"scheme in another case", "POST", "/", map[string]string{"Authorization": "bearer " + good}, auth.FromHeader, ""},
		{"a bad header is not passed over", "GET", "/?access_token=" + good, map[string]string{"Authorization": "Bearer x"}, auth.FromHeader, "malformed"},
		{"another scheme is none", "GET", "/?access_token=" + good, map[string]string{"Authorization": "Basic eA=="}, auth.FromQuery, ""},
		{"subprotocol", "GET", "/", map[string]string{"Sec-WebSocket-Protocol": "longline.v1, bearer." + good}, auth.FromSubprotocol, ""},
		{"subprotocol before cookie", "GET", "/", map[string]string{"Sec-WebSocket-Protocol": "bearer.x", "Cookie": "longline_token=" + good, "Sec-Fetch-Site": "same-origin"}, auth.FromSubprotocol, "malformed"},
		{"cookie of an allowed origin", "POST", "/", map[string]string{"Cookie": "longline_token=" + good, "Origin": "https://app.example.com"}, auth.FromCookie, ""},
		{"cookie of the gateway's own page", "GET", "/", map[string]string{"Cookie": "longline_token=" + good, "Sec-Fetch-Site": "same-origin"}, auth.FromCookie, ""},
		{"cookie of an origin only * covers", "POST", "/", map[string]string{"Cookie": "longline_token=" + good, "Origin": "https://evil.example"}, auth.NoToken, "allowed Origin"},
		{"cookie without origin", "POST", "/", map[string]string{"Cookie": "longline_token=" + good, "Sec-Fetch-Site": "same-origin"}, auth.NoToken, "allowed Origin"},
		{"cookie of a foreign page's GET", "GET", "/", map[string]string{"Cookie": "longline_token=" + good, "Sec-Fetch-Site": "cross-site"}, auth.NoToken, "allowed Origin"},
		{"cookie before query", "GET", "/?access_token=x", map[string]string{"Cookie": "longline_token=" + good, "Sec-Fetch-Site": "same-origin"}, auth.FromCookie, ""},
		{"query", "GET", "/?access_token=" + good, nil, auth.FromQuery, ""},
		{"nothing", "GET", "/", nil, auth.NoToken, "no token; want"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.target, nil)
			for k, v := range tt.header {
				r.Header.Set(k, v)
			}
			_, got, err := v.FromRequest(r)
			if got != tt.want {
				t.Errorf("source = %v, want %v", got, tt.want)
			}
			if tt.refused != "" {
				wantUnauthorized(t, err, tt.refused)
			} else if err != nil {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

func TestOriginsThatAreRefused(t *testing.T) {
	for _, text := range []string{"example.com", "https://example.com/", "https://", "https://a.example/path", "null"} {
		if _, err := auth.ParseOrigins([]string{text}); err == nil {
			t.Errorf("%q: taken", text)
		}
	}
}

func TestSecretIsMadeOnceAndKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data", "jwt.key")
	var wg sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		wg.Go(func() { got[i] = string(must(auth.KeepSecret(file))) })
	}
	wg.Wait()
	for _, s := range got {
		if s != got[0] || len(s) < auth.MinSecret {
			t.Fatalf("secrets differ or are short: %d bytes", len(s))
		}
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, want 0600", info.Mode().Perm())
	}
}

func TestMintRefusesNonsense(t *testing.T) {
	for name, m := range map[string]auth.Mintage{
		"no ttl":      {},
		"bad channel": {TTL: time.Hour, Subscribe: []string{"a..b"}},
		"bad name":    {TTL: time.Hour, Subscriptions: []string{""}},
	} {
		if _, err := auth.Mint(secret, m, time.Now()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestNamePatterns(t *testing.T) {
	v := newVerifier(t, auth.Options{})
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"*", "", true}, {"*", "any", true}, {"a*", "a", true}, {"a*c", "abc", true}, {"a*c", "ab", false},
		{"a*b*c", "a-b-b-c", true}, {"a*b*c", "acb", false}, {"**a", "ba", true}, {"a", "ab", false},
		{strings.Repeat("a*", 100) + "b", strings.Repeat("a", 256), false},
	} {
		g, err := v.Verify(t.Context(), must(auth.Mint(secret, auth.Mintage{Subscriptions: []string{tt.pattern}, TTL: time.Minute}, time.Now())))
		if err != nil {
			t.Fatalf("Verify: %v", err)
		}
		if got := g.MaySubscription(tt.name); got != tt.want {
			t.Errorf("pattern %q, name %q: %v, want %v", tt.pattern, tt.name, got, tt.want)
		}
	}
}

// FuzzVerify: whatever a client sends as a token, nothing but a signed one
// makes a grant, and nothing panics.
func FuzzVerify(f *testing.F) {
	v, err := auth.NewVerifier(auth.Options{Keys: []auth.Keys{must(auth.Secret(secret))}})
	if err != nil {
		f.Fatal(err)
	}
	good := must(auth.Mint(secret, auth.Mintage{Subject: "a", Subscribe: []string{"**"}, TTL: 1000 * time.Hour}, time.Now()))
	f.Add(good)
	f.Add("")
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.eyJleHAiOjk5OTk5OTk5OTl9.")
	f.Add(good[:len(good)-1])
	f.Fuzz(func(t *testing.T, token string) {
		g, err := v.Verify(context.Background(), token)
		if (g == nil) == (err == nil) {
			t.Fatalf("grant %v and error %v", g, err)
		}
		if err == nil && token != good {
			t.Fatalf("a token we didn't sign was taken: %q", token)
		}
	})
}
