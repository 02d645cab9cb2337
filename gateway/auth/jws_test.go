package auth_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
)

// What attackers of JWS and JWK try, after the manner of Wycheproof's vectors:
// each case is a token made here, by hand where the library wouldn't make it.

var b64 = base64.RawURLEncoding.EncodeToString

// signer is a key of one kind, and how it signs by an algorithm's name.
type signer struct {
	public map[string]any // as a JWK
	sign   func(alg string, text []byte) []byte
	algs   []string
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

func digest(alg string, text []byte) (crypto.Hash, []byte) {
	hash := hashes[alg[2:]]
	h := hash.New()
	h.Write(text)
	return hash, h.Sum(nil)
}

func hsSigner(secret []byte) signer {
	return signer{nil, func(alg string, text []byte) []byte {
		mac := hmac.New(hashes[alg[2:]].New, secret)
		mac.Write(text)
		return mac.Sum(nil)
	}, []string{"HS256", "HS384", "HS512"}}
}

func rsaSigner(key *rsa.PrivateKey) signer {
	return signer{
		map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes())},
		func(alg string, text []byte) []byte {
			hash, sum := digest(alg, text)
			if alg[0] == 'R' {
				return must(rsa.SignPKCS1v15(nil, key, hash, sum))
			}
			return must(rsa.SignPSS(rand.Reader, key, hash, sum, &rsa.PSSOptions{SaltLength: hash.Size()}))
		},
		[]string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"},
	}
}

// salted signs by PS* with a salt of another length.
func salted(key *rsa.PrivateKey, salt int) func(string, []byte) []byte {
	return func(alg string, text []byte) []byte {
		hash, sum := digest(alg, text)
		return must(rsa.SignPSS(rand.Reader, key, hash, sum, &rsa.PSSOptions{SaltLength: salt}))
	}
}

func ecSigner(curve elliptic.Curve, alg string) signer {
	key := must(ecdsa.GenerateKey(curve, rand.Reader))
	size := (curve.Params().BitSize + 7) / 8
	point := must(key.PublicKey.Bytes()) // 4, x, y
	return signer{
		map[string]any{"kty": "EC", "crv": curve.Params().Name, "x": b64(point[1 : 1+size]), "y": b64(point[1+size:])},
		func(alg string, text []byte) []byte {
			_, sum := digest(alg, text)
			r, s, err := ecdsa.Sign(rand.Reader, key, sum)
			if err != nil {
				panic(err)
			}
			return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
		},
		[]string{alg},
	}
}

func edSigner() signer {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return signer{
		map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(public)},
		func(_ string, text []byte) []byte { return ed25519.Sign(private, text) },
		[]string{"EdDSA"},
	}
}

// jws puts a token together of a header's and a payload's text.
func jws(header, payload string, sign func(text []byte) []byte) string {
	text := b64([]byte(header)) + "." + b64([]byte(payload))
	return text + "." + b64(sign([]byte(text)))
}

func body() string {
	return fmt.Sprintf(`{"sub":"customer-42","exp":%d,"longline":{"subscribe":["acct-42"]}}`, time.Now().Add(time.Hour).Unix())
}

// setVerifier verifies by a key set in a file.
func setVerifier(t *testing.T, keys ...map[string]any) *auth.Verifier {
	t.Helper()
	file := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(file, must(json.Marshal(map[string]any{"keys": keys})), 0o600); err != nil {
		t.Fatal(err)
	}
	keySet, err := auth.JWKS(t.Context(), file, quiet)
	if err != nil {
		t.Fatalf("JWKS: %v", err)
	}
	return newVerifier(t, auth.Options{Keys: []auth.Keys{keySet}})
}

// with is a JWK with further members, or others.
func with(key map[string]any, more ...any) map[string]any {
	all := map[string]any{"kid": "k1"}
	for name, value := range key {
		all[name] = value
	}
	for i := 0; i < len(more); i += 2 {
		all[more[i].(string)] = more[i+1]
	}
	return all
}

func TestSignaturesOfEachAlgorithm(t *testing.T) {
	signers := []signer{
		hsSigner(secret), rsaSigner(rsaKey), edSigner(),
		ecSigner(elliptic.P256(), "ES256"), ecSigner(elliptic.P384(), "ES384"), ecSigner(elliptic.P521(), "ES512"),
	}
	for _, k := range signers {
		v := newVerifier(t, auth.Options{})
		if k.public != nil {
			v = setVerifier(t, with(k.public))
		}
		for _, alg := range k.algs {
			t.Run(alg, func(t *testing.T) {
				header := fmt.Sprintf(`{"alg":%q,"kid":"k1"}`, alg)
				sign := func(text []byte) []byte { return k.sign(alg, text) }
				good := jws(header, body(), sign)
				if _, err := v.Verify(t.Context(), good); err != nil {
					t.Fatalf("good token: %v", err)
				}
				parts := strings.Split(good, ".")
				signature := must(base64.RawURLEncoding.DecodeString(parts[2]))
				changed := func(change func(s []byte) []byte) string {
					return parts[0] + "." + parts[1] + "." + b64(change(append([]byte(nil), signature...)))
				}
				for name, token := range map[string]string{
					"no signature":           parts[0] + "." + parts[1] + ".",
					"no third part":          parts[0] + "." + parts[1],
					"a fourth part":          good + ".AA",
					"first bit":              changed(func(s []byte) []byte { s[0] ^= 0x80; return s }),
					"last bit":               changed(func(s []byte) []byte { s[len(s)-1] ^= 1; return s }),
					"cut":                    changed(func(s []byte) []byte { return s[:len(s)-1] }),
					"longer":                 changed(func(s []byte) []byte { return append(s, 0) }),
					"zeros before it":        changed(func(s []byte) []byte { return append([]byte{0}, s...) }),
					"all zeros":              changed(func(s []byte) []byte { return make([]byte, len(s)) }),
					"of another payload":     parts[0] + "." + b64([]byte(strings.Replace(body(), "42", "43", 1))) + "." + parts[2],
					"of another header":      b64([]byte(header[:len(header)-1]+` }`)) + "." + parts[1] + "." + parts[2],
					"line break":             parts[0] + "." + parts[1] + "." + parts[2][:4] + "\n" + parts[2][4:],
					"carriage return":        good + "\r\n",
					"line break in payload":  parts[0] + "." + parts[1][:4] + "\n" + parts[1][4:] + "." + parts[2],
					"padding":                good + "==",
					"space":                  good + " ",
					"over no dot":            jws(header, body(), func(text []byte) []byte { return sign([]byte(strings.Replace(string(text), ".", "", 1))) }),
					"alg none":               jws(`{"alg":"none","kid":"k1"}`, body(), sign),
					"alg in another case":    jws(fmt.Sprintf(`{"alg":%q,"kid":"k1"}`, strings.ToLower(alg)), body(), sign),
					"alg by another name":    jws(fmt.Sprintf(`{"ALG":%q,"kid":"k1"}`, alg), body(), sign),
					"alg twice":              jws(fmt.Sprintf(`{"alg":"none","alg":%q,"kid":"k1"}`, alg), body(), sign),
					"crit":                   jws(fmt.Sprintf(`{"alg":%q,"kid":"k1","crit":["exp"],"exp":1}`, alg), body(), sign),
					"header no object":       jws(`["alg"]`, body(), sign),
					"something after header": jws(header+`{}`, body(), sign),
				} {
					if _, err := v.Verify(t.Context(), token); err == nil {
						t.Errorf("%s: taken", name)
					}
				}
			})
		}
	}
}

func TestTokensOfOneKeyForAnotherKind(t *testing.T) {
	r, e, p384, d := rsaSigner(rsaKey), ecSigner(elliptic.P256(), "ES256"), ecSigner(elliptic.P384(), "ES384"), edSigner()
	small := rsaSigner(must(rsa.GenerateKey(rand.Reader, 1024)))
	for _, tt := range []struct {
		name string
		key  map[string]any
		alg  string
		sign func(alg string, text []byte) []byte
		good bool
	}{
		{"as it should be", with(r.public), "RS256", r.sign, true},
		{"for signatures", with(r.public, "use", "sig"), "RS256", r.sign, true},
		{"to verify", with(r.public, "key_ops", []string{"verify"}), "RS256", r.sign, true},
		{"for its algorithm", with(r.public, "alg", "PS256"), "PS256", r.sign, true},
		{"for another algorithm", with(r.public, "alg", "PS256"), "RS256", r.sign, false},
		{"for encryption", with(r.public, "use", "enc"), "RS256", r.sign, false},
		{"to encrypt", with(r.public, "key_ops", []string{"encrypt", "wrapKey"}), "RS256", r.sign, false},
		{"to sign only", with(e.public, "key_ops", []string{"sign"}), "ES256", e.sign, false},
		{"RSA of 1024 bits", with(small.public), "RS256", small.sign, false},
		{"RSA of 1024 bits, PSS", with(small.public), "PS256", small.sign, false},
		{"salt shorter than the hash", with(r.public), "PS256", salted(rsaKey, 20), false},
		{"no salt", with(r.public), "PS256", salted(rsaKey, 0), false},
		{"salt longer than the hash", with(r.public), "PS256", salted(rsaKey, 64), false},
		{"PS512 with SHA-256's salt", with(r.public), "PS512", salted(rsaKey, 32), false},
		{"PSS named RS", with(r.public), "RS256", salted(rsaKey, 32), false},
		{"P-384 named ES256", with(p384.public), "ES256", p384.sign, false},
		{"P-256 named ES384", with(e.public), "ES384", e.sign, false},
		{"Ed25519 named ES256", with(d.public), "ES256", d.sign, false},
		{"EC named RS256", with(e.public), "RS256", r.sign, false},
		{"HMAC by the modulus", with(r.public), "HS256", hsSigner(rsaKey.N.Bytes()).sign, false},
		{"another kid", with(r.public, "kid", "k2"), "RS256", r.sign, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := setVerifier(t, tt.key)
			// Whether the token names the key or leaves it to be found.
			for _, header := range []string{`{"alg":%q,"kid":"k1"}`, `{"alg":%q}`} {
				token := jws(fmt.Sprintf(header, tt.alg), body(), func(text []byte) []byte { return tt.sign(tt.alg, text) })
				_, err := v.Verify(t.Context(), token)
				if good := tt.good || tt.name == "another kid" && !strings.Contains(header, "kid"); (err == nil) != good {
					t.Errorf("header %s: got %v, want taken %v", header, err, good)
				}
			}
		})
	}
}

func TestClaimsAreReadByTheLetter(t *testing.T) {
	v, hs := newVerifier(t, auth.Options{}), hsSigner(secret)
	token := func(payload string) string {
		return jws(`{"alg":"HS256"}`, payload, func(text []byte) []byte { return hs.sign("HS256", text) })
	}
	exp := time.Now().Add(time.Hour).Unix()
	for name, payload := range map[string]string{
		"EXP for exp":           fmt.Sprintf(`{"EXP":%d}`, exp),
		"exp as text":           fmt.Sprintf(`{"exp":"%d"}`, exp),
		"exp null":              `{"exp":null}`,
		"exp beyond all time":   `{"exp":1e300}`,
		"exp before 1970":       `{"exp":-1}`,
		"exp twice":             fmt.Sprintf(`{"exp":1,"exp":%d}`, exp),
		"exp twice, escaped":    fmt.Sprintf(`{"exp":1,"\u0065xp":%d}`, exp),
		"nbf as text":           fmt.Sprintf(`{"exp":%d,"nbf":"1"}`, exp),
		"iat as text":           fmt.Sprintf(`{"exp":%d,"iat":"1"}`, exp),
		"sub a number":          fmt.Sprintf(`{"exp":%d,"sub":42}`, exp),
		"longline twice":        fmt.Sprintf(`{"exp":%d,"longline":{},"longline":{"admin":true}}`, exp),
		"admin twice":           fmt.Sprintf(`{"exp":%d,"longline":{"admin":false,"admin":true}}`, exp),
		"a foreign name twice":  fmt.Sprintf(`{"exp":%d,"x":{"y":1,"y":2}}`, exp),
		"admin as text":         fmt.Sprintf(`{"exp":%d,"longline":{"admin":"true"}}`, exp),
		"subscribe one pattern": fmt.Sprintf(`{"exp":%d,"longline":{"subscribe":"**"}}`, exp),
		"not UTF-8":             fmt.Sprintf("{\"exp\":%d,\"sub\":\"\xff\"}", exp),
		"something follows":     fmt.Sprintf(`{"exp":%d}{}`, exp),
		"an array":              `[]`,
		"nothing":               ``,
		"null":                  `null`,
		"a connection too many": fmt.Sprintf(`{"exp":%d,"longline":{"max_connections":1.5}}`, exp),
	} {
		if _, err := v.Verify(t.Context(), token(payload)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	// A name in another case is another name, which says nothing here.
	for name, payload := range map[string]string{
		"LONGLINE": fmt.Sprintf(`{"exp":%d,"LONGLINE":{"admin":true,"subscribe":["**"]}}`, exp),
		"ADMIN":    fmt.Sprintf(`{"exp":%d,"longline":{"ADMIN":true,"Subscribe":["**"]}}`, exp),
	} {
		g, err := v.Verify(t.Context(), token(payload))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if g.Admin || g.MaySubscribe("acct-42") {
			t.Errorf("%s counts as if it were written small", name)
		}
	}
	// Numbers may have a fraction (RFC 7519 §2), and aud may be a list.
	if _, err := v.Verify(t.Context(), token(fmt.Sprintf(`{"exp":%d.75,"iat":%d.5,"aud":["a","b"]}`, exp, exp-7200))); err != nil {
		t.Errorf("fractions: %v", err)
	}
}
