package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/longline-push/longline/gateway/auth"
)

// Where a gateway keeps keys of its own, in the data directory, if it is given
// none: keyFile for tokens, vaultFile for secrets at rest.
const (
	keyFile   = "jwt.key"
	vaultFile = "secrets.key"
)

// keys are what a node verifies and encrypts with.
type keys struct {
	secret      []byte // for HS tokens; nil: none
	vaultKey    []byte // for secrets at rest
	development bool   // the secret is our own, kept with the data
}

// checkKeys finds out by what tokens are verified. Without any key, which only
// a gateway on this machine alone may be, it keeps one of its own.
func (o *Options) checkKeys(s store, keep func(file string) ([]byte, error)) (k keys, err error) {
	given := o.JWTSecret != "" || o.JWTPublicKey != "" || o.JWKS != ""
	if s.embedded == nil {
		if !given {
			return k, wrong("jwt-secret", "required with a Redis broker (by --jwt-secret-file, say), or --jwt-public-key or --jwks: nodes must share the key")
		}
		if o.SecretKey == "" {
			return k, wrong("secret-key", "required with a Redis broker (by --secret-key-file, say), at least %d bytes: nodes must share it", auth.MinSecret)
		}
	}
	if o.SecretKey != "" && len(o.SecretKey) < auth.MinSecret {
		return k, wrong("secret-key", "%d bytes; want at least %d", len(o.SecretKey), auth.MinSecret)
	}
	if k.vaultKey = []byte(o.SecretKey); o.SecretKey == "" {
		if k.vaultKey, err = keep(filepath.Join(s.embedded.Dir, vaultFile)); err != nil {
			return k, wrong("broker", "%w", err)
		}
	}
	if o.JWTPublicKey != "" && o.JWKS != "" {
		return k, wrong("jwt-public-key, jwks", "want one of them")
	}
	if o.JWTSecret != "" {
		if err := auth.CheckSecret([]byte(o.JWTSecret)); err != nil {
			return k, wrong("jwt-secret", "%w", err)
		}
		k.secret = []byte(o.JWTSecret)
	}
	if given {
		return k, nil
	}
	k.development = true
	if err := loopback(o.Listen); err != nil {
		return k, wrong("listen", "%w; without --jwt-secret-file, --jwt-public-key or --jwks want a loopback address such as 127.0.0.1:8080", err)
	}
	if k.secret, err = keep(filepath.Join(s.embedded.Dir, keyFile)); err != nil {
		return k, wrong("broker", "%w", err)
	}
	return k, nil
}

// KeptSecret returns the secret that a gateway on this broker which is given
// none keeps for tokens, if it has run before.
func KeptSecret(broker string) ([]byte, error) {
	s, err := parseStore(broker)
	if err != nil || s.embedded == nil {
		return nil, wrong("jwt-secret", "required unless --broker is embedded:DIR, whose gateway keeps a key of its own")
	}
	file := filepath.Join(s.embedded.Dir, keyFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return nil, wrong("jwt-secret", "required: there is no %s, which a gateway without a key makes when it first runs", file)
	}
	secret, err := auth.KeepSecret(file)
	if err != nil {
		return nil, fmt.Errorf("read the gateway's key: %w", err)
	}
	return secret, nil
}

func (o *Options) verifier(ctx context.Context, config *checked, revocations *auth.Revocations, logger *slog.Logger) (*auth.Verifier, error) {
	out := auth.Options{Issuer: o.JWTIssuer, Audience: o.JWTAudience, Origins: config.origins, Revocations: revocations}
	add := func(option string, keys auth.Keys, err error) error {
		if err != nil {
			return wrong(option, "%w", err)
		}
		out.Keys = append(out.Keys, keys)
		return nil
	}
	if config.secret != nil {
		keys, err := auth.Secret(config.secret)
		if err := add("jwt-secret", keys, err); err != nil {
			return nil, err
		}
	}
	if o.JWTPublicKey != "" {
		text, err := os.ReadFile(o.JWTPublicKey)
		if err != nil {
			return nil, wrong("jwt-public-key", "%w; want a PEM file", err)
		}
		keys, err := auth.PublicKey(text)
		if err := add("jwt-public-key", keys, err); err != nil {
			return nil, err
		}
	}
	if o.JWKS != "" {
		keys, err := auth.JWKS(ctx, o.JWKS, logger)
		if err := add("jwks", keys, err); err != nil {
			return nil, err
		}
	}
	return auth.NewVerifier(out)
}
