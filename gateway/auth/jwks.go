package auth

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
)

const (
	jwksRefresh = 5 * time.Minute
	// An unknown kid makes us look at once, but a client that invents them
	// makes us look no more often than this.
	jwksUnknown = 5 * time.Second
	jwksTimeout = 10 * time.Second
	// The library bounds with one time both the wait for its turn and the
	// look itself: at most one kid waits, and leaves a second for the look.
	jwksUnknownWait = jwksUnknown + time.Second
)

// JWKS serves the public keys of a JSON Web Key Set, a file or an http(s) URL,
// by their kid. The set is read again every 5 minutes and when a token names a
// kid that isn't in it, at most every 5 seconds. A URL that can't be reached
// is tried again; a file must be there. Work goes on until ctx ends.
func JWKS(ctx context.Context, location string, log *slog.Logger) (Keys, error) {
	k := Keys{methods: anyPublic, rotating: true}
	if !strings.HasPrefix(location, "http://") && !strings.HasPrefix(location, "https://") {
		f := &jwksFile{path: location, log: log}
		if err := f.load(); err != nil {
			return Keys{}, err
		}
		k.find = f.find
		return k, nil
	}
	keys, err := keyfunc.NewDefaultOverrideCtx(ctx, []string{location}, keyfunc.Override{
		Client:            &http.Client{Timeout: jwksTimeout},
		HTTPTimeout:       jwksTimeout,
		RefreshInterval:   jwksRefresh,
		RefreshUnknownKID: rate.NewLimiter(rate.Every(jwksUnknown), 1),
		RateLimitWaitMax:  jwksUnknownWait,
		RefreshErrorHandlerFunc: func(u string) func(context.Context, error) {
			return func(_ context.Context, err error) {
				log.Error("key set can't be read", "url", u, "error", err)
			}
		},
	})
	if err != nil {
		return Keys{}, fmt.Errorf("key set %s: %w", location, err)
	}
	// After a rotation many tokens of the new kid come at once: one look
	// serves them all.
	var looks singleflight.Group
	k.find = func(t *jwt.Token) (any, error) {
		kid, _ := t.Header["kid"].(string)
		key, err, _ := looks.Do(t.Method.Alg()+" "+kid, func() (any, error) { return keyIn(ctx, keys.Storage(), t) })
		return key, err
	}
	return k, nil
}

// keyIn returns the set's key for a token, or, if that doesn't say which, all
// that may have signed it.
func keyIn(ctx context.Context, set jwkset.Storage, t *jwt.Token) (any, error) {
	kid, named := t.Header["kid"]
	if !named {
		all, err := set.KeyReadAll(ctx)
		if err != nil {
			return nil, err
		}
		var may jwt.VerificationKeySet
		for _, k := range all {
			if key, err := verifying(k, t.Method); err == nil {
				may.Keys = append(may.Keys, key)
			}
		}
		return may, nil
	}
	name, ok := kid.(string)
	if !ok {
		return nil, errors.New("kid is not a string")
	}
	k, err := set.KeyRead(ctx, name)
	if err != nil {
		return nil, err
	}
	return verifying(k, t.Method)
}

// verifying returns what of a key verifies by a method, or why it must not: it
// is for something else (RFC 7517 §4.2–4.4) or not good for the method
// (RFC 7518 §3.3–3.5).
func verifying(k jwkset.JWK, by jwt.SigningMethod) (crypto.PublicKey, error) {
	says := k.Marshal()
	switch {
	case says.USE != "" && says.USE != jwkset.UseSig:
		return nil, fmt.Errorf("key is for use %q", says.USE)
	case len(says.KEYOPS) > 0 && !slices.Contains(says.KEYOPS, jwkset.KeyOpsVerify):
		return nil, fmt.Errorf("key_ops %q without verify", says.KEYOPS)
	case says.ALG != "" && says.ALG.String() != by.Alg():
		return nil, fmt.Errorf("key is for alg %q", says.ALG)
	}
	key := k.Key()
	if private, ok := key.(interface{ Public() crypto.PublicKey }); ok {
		key = private.Public()
	}
	methods, err := methodsOf(key)
	if err == nil && !slices.Contains(methods, by.Alg()) {
		err = fmt.Errorf("key serves %q", methods)
	}
	return key, err
}

// jwksFile is a key set in a file, read again when it changed.
type jwksFile struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	keys    jwkset.Storage
	looked  time.Time
	changed time.Time // of the file, as loaded
}

func (f *jwksFile) load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.loadLocked(time.Now())
}

func (f *jwksFile) loadLocked(now time.Time) error {
	f.looked = now
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("read key set: %w", err)
	}
	if f.keys != nil && info.ModTime().Equal(f.changed) {
		return nil
	}
	raw, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("read key set: %w", err)
	}
	keys, err := keyfunc.NewJWKSetJSON(raw)
	if err != nil {
		return fmt.Errorf("%s is not a JSON Web Key Set (RFC 7517)", f.path)
	}
	f.keys, f.changed = keys.Storage(), info.ModTime()
	return nil
}

func (f *jwksFile) find(t *jwt.Token) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	if now.Sub(f.looked) > jwksRefresh {
		f.reloadLocked(now)
	}
	key, err := keyIn(context.Background(), f.keys, t)
	if err != nil && now.Sub(f.looked) > jwksUnknown {
		f.reloadLocked(now)
		key, err = keyIn(context.Background(), f.keys, t)
	}
	return key, err
}

// reloadLocked keeps the keys there are if the file is damaged or gone.
func (f *jwksFile) reloadLocked(now time.Time) {
	if err := f.loadLocked(now); err != nil {
		f.log.Error("key set can't be read", "file", f.path, "error", err)
	}
}
