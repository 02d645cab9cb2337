package shape

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"
)

// TokenError says that no token could be fetched: the trouble is the receiver's
// token endpoint's. Its text is fit for the subscription's owner.
type TokenError struct {
	reason string
	cause  error // nil: it answered
}

func (e *TokenError) Error() string { return "token endpoint: " + e.reason }

// Unwrap is why no answer came.
func (e *TokenError) Unwrap() error { return e.cause }

// Tokens keeps access tokens for all callbacks of a node that log in alike.
// Its methods may be called by many goroutines at once.
type Tokens struct {
	client  *http.Client
	sources *lru.Cache[[sha256.Size]byte, *Source]
}

const (
	maxSources   = 10_000
	fetchTimeout = 15 * time.Second
	failPause    = time.Second // after a failure, doubled with each more
	maxFailPause = 30 * time.Second
	freshAtLeast = time.Second // however soon a token is said to end
)

// NewTokens returns a Tokens that fetches through via, which must check the
// addresses it connects to. Redirects are not followed.
func NewTokens(via http.RoundTripper) *Tokens {
	sources, err := lru.New[[sha256.Size]byte, *Source](maxSources)
	if err != nil {
		panic(err) // the size is positive
	}
	return &Tokens{sources: sources, client: &http.Client{
		Transport: via, Timeout: fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Of returns where these credentials' tokens come from.
func (t *Tokens) Of(o *OAuth2) *Source {
	c := clientcredentials.Config{
		ClientID: o.ClientID, ClientSecret: o.ClientSecret, TokenURL: o.TokenURL, AuthStyle: oauth2.AuthStyleInHeader,
	}
	if o.Style == "body" {
		c.AuthStyle = oauth2.AuthStyleInParams
	}
	if o.Scope != "" {
		c.Scopes = []string{o.Scope} // several are separated by spaces in it already
	}
	if o.Audience != "" {
		c.EndpointParams = url.Values{"audience": {o.Audience}}
	}
	s := &Source{client: t.client, config: c}
	if before, ok, _ := t.sources.PeekOrAdd(fingerprint(o), s); ok {
		return before
	}
	return s
}

// Source is where one login's tokens come from.
type Source struct {
	client *http.Client
	config clientcredentials.Config
	flight singleflight.Group

	mu     sync.Mutex
	token  string
	until  time.Time // fetch another from then on; zero: when it is refused
	failed error     // the last fetch did
	fails  int       // in a row
	next   time.Time // no fetch before
}

// Token returns a token, fetched once for all who wait. Errors are TokenErrors,
// or ctx's.
func (s *Source) Token(ctx context.Context) (string, error) {
	if token, err := s.kept(time.Now()); token != "" || err != nil {
		return token, err
	}
	// The fetch is nobody's own: who waits in vain leaves it to the others.
	fetched := s.flight.DoChan("", func() (any, error) {
		if token, err := s.kept(time.Now()); token != "" || err != nil {
			return token, err
		}
		return s.fetch()
	})
	select {
	case r := <-fetched:
		token, _ := r.Val.(string)
		return token, r.Err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// kept returns the token there is, or why none is to be fetched yet.
func (s *Source) kept(now time.Time) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.token != "" && (s.until.IsZero() || now.Before(s.until)):
		return s.token, nil
	case s.failed != nil && now.Before(s.next):
		return "", s.failed
	}
	return "", nil
}

func (s *Source) fetch() (string, error) {
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), oauth2.HTTPClient, s.client), fetchTimeout)
	defer cancel()
	t, err := s.config.Token(ctx)
	var token string
	if err == nil {
		token = t.AccessToken
		if e := checkToken(token); e != nil {
			err = &TokenError{reason: "its access_token " + e.Error()}
		}
	} else {
		err = tokenError(err)
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed, s.next = err, now.Add(min(failPause<<min(s.fails, 5), maxFailPause))
		s.fails++
		return "", err
	}
	s.token, s.until, s.failed, s.fails = token, time.Time{}, nil, 0
	if left := t.Expiry.Sub(now); !t.Expiry.IsZero() {
		s.until = now.Add(max(left-min(left/10, time.Minute), freshAtLeast))
	}
	return token, nil
}

// Refused says that the receiver answered 401 to a token: another is fetched.
func (s *Source) Refused(token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == token {
		s.token = ""
	}
}

// tokenError says what went wrong without what the endpoint said, which may
// quote the request.
func tokenError(err error) error {
	var answered *oauth2.RetrieveError
	var sent *url.Error
	switch {
	case errors.As(err, &answered) && answered.ErrorCode != "" && len(answered.ErrorCode) <= 64 && printable(answered.ErrorCode):
		return &TokenError{reason: fmt.Sprintf("answered %d (%s)", answered.Response.StatusCode, answered.ErrorCode)}
	case errors.As(err, &answered) && answered.Response.StatusCode/100 == 3:
		return &TokenError{reason: fmt.Sprintf("answered %d; redirects are not followed", answered.Response.StatusCode)}
	case errors.As(err, &answered):
		return &TokenError{reason: fmt.Sprintf("answered %d", answered.Response.StatusCode)}
	case errors.As(err, &sent) && sent.Timeout():
		return &TokenError{"timed out", sent}
	case errors.As(err, &sent):
		return &TokenError{"could not be reached, or may not be", sent}
	}
	return &TokenError{reason: "its answer has no access_token"}
}
