package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// Keys is one source of keys and the algorithms it serves. There is no
// algorithm that is not on such a list, "none" never.
type Keys struct {
	methods  []string
	find     jwt.Keyfunc
	rotating bool // keys may go away: don't remember for long what they verified
}

var (
	hmacMethods = []string{"HS256", "HS384", "HS512"}
	rsaMethods  = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	anyPublic   = append([]string{"ES256", "ES384", "ES512", "EdDSA"}, rsaMethods...)
)

// MinSecret is the shortest secret taken for HS256, HS384 and HS512, in bytes
// (RFC 7518 §3.2).
const MinSecret = 32

// CheckSecret returns an error that says what is taken unless secret can sign
// and verify tokens.
func CheckSecret(secret []byte) error {
	if block, _ := pem.Decode(secret); block != nil {
		return errors.New("this is a PEM key, which everybody may know; want a random secret here, and the public key as such")
	}
	if len(secret) < MinSecret {
		return fmt.Errorf("secret of %d bytes; want at least %d, e.g. of `openssl rand -base64 32`", len(secret), MinSecret)
	}
	return nil
}

// Secret serves HS256, HS384 and HS512.
func Secret(secret []byte) (Keys, error) {
	if err := CheckSecret(secret); err != nil {
		return Keys{}, err
	}
	return fixed(secret, hmacMethods), nil
}

// PublicKey serves the algorithms of a key in PEM: RSA (RS and PS), ECDSA
// P-256, P-384, P-521, or Ed25519; a certificate does too.
func PublicKey(text []byte) (Keys, error) {
	const want = "want a PEM public key or certificate: RSA of at least 2048 bits, ECDSA P-256, P-384 or P-521, or Ed25519"
	block, _ := pem.Decode(text)
	if block == nil {
		return Keys{}, errors.New("not PEM; " + want)
	}
	key, err := parsePublic(block)
	if err != nil {
		return Keys{}, fmt.Errorf("PEM block %q can't be read; %s", block.Type, want)
	}
	methods, err := methodsOf(key)
	if err != nil {
		return Keys{}, fmt.Errorf("%v; %s", err, want)
	}
	return fixed(key, methods), nil
}

// minRSA is the smallest modulus taken, in bits (RFC 7518 §3.3, §3.5).
const minRSA = 2048

// methodsOf are the algorithms that a public key may verify. An elliptic
// curve's key serves the one algorithm of its curve.
func methodsOf(key any) ([]string, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSA {
			return nil, fmt.Errorf("RSA key of %d bits", bits)
		}
		return rsaMethods, nil
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return []string{"ES256"}, nil
		case elliptic.P384():
			return []string{"ES384"}, nil
		case elliptic.P521():
			return []string{"ES512"}, nil
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	}
	return nil, errors.New("key of a kind that is not taken")
}

func parsePublic(block *pem.Block) (any, error) {
	switch block.Type {
	case "CERTIFICATE":
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return c.PublicKey, nil
	case "RSA PUBLIC KEY":
		return x509.ParsePKCS1PublicKey(block.Bytes)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

func fixed(key any, methods []string) Keys {
	return Keys{methods: methods, find: func(*jwt.Token) (any, error) { return key, nil }}
}

// KeepSecret returns the secret kept in the file, and makes one, readable by
// its owner only, if there is no such file. Concurrent callers get the same.
func KeepSecret(file string) ([]byte, error) {
	secret, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeSecret(file); err != nil {
			return nil, fmt.Errorf("make a secret: %w", err)
		}
		secret, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the secret: %w", err)
	}
	secret = []byte(strings.TrimSpace(string(secret)))
	if err := CheckSecret(secret); err != nil {
		return nil, fmt.Errorf("secret in %s: %w", file, err)
	}
	return secret, nil
}

// makeSecret writes to a temporary file and links it into place, so that the
// file is whole as soon as it is there, and whoever comes second keeps it.
func makeSecret(file string) error {
	var random [32]byte
	rand.Read(random[:]) // never fails
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".secret-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(base64.RawURLEncoding.EncodeToString(random[:]) + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
