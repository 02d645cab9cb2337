package shape

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"
)

// Auth is how a callback logs in at its receiver: at most one of Basic, Bearer
// and OAuth2, and besides MTLS. It is kept sealed; printed or logged it shows
// nothing.
type Auth struct {
	Basic  *Basic  `json:"basic,omitempty"`
	Bearer *Bearer `json:"bearer,omitempty"`
	OAuth2 *OAuth2 `json:"oauth2,omitempty"`
	MTLS   *MTLS   `json:"mtls,omitempty"`
}

// Basic is RFC 7617.
type Basic struct {
	Username string `json:"username"`
	Password string `json:"password"`
}

// Bearer is a token that stays the same.
type Bearer struct {
	Token string `json:"token"`
}

// OAuth2 is the client credentials grant of RFC 6749 §4.4.
type OAuth2 struct {
	TokenURL     string `json:"token_url"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Scope        string `json:"scope,omitempty"`
	Audience     string `json:"audience,omitempty"`
	Style        string `json:"style,omitempty"` // how the client says who it is: basic (default) or body
}

// MTLS is a client certificate and its key, PEM, and whom to trust besides the
// system's authorities: nobody else where CA is given.
type MTLS struct {
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	CA          string `json:"ca,omitempty"`
}

// String hides what is in it.
func (a Auth) String() string { return "[credentials]" }

// GoString hides it from %#v.
func (a Auth) GoString() string { return a.String() }

// LogValue hides it from logs.
func (a Auth) LogValue() slog.Value { return slog.StringValue(a.String()) }

const (
	maxCredential = 4 << 10
	maxPEM        = 32 << 10
)

// Check names what is wrong, without quoting what is secret.
func (a *Auth) Check() error {
	n := 0
	for _, given := range []bool{a.Basic != nil, a.Bearer != nil, a.OAuth2 != nil} {
		if given {
			n++
		}
	}
	if n > 1 || n == 0 && a.MTLS == nil {
		return errors.New("want one of basic, bearer and oauth2, mtls or both")
	}
	if b := a.Basic; b != nil {
		if b.Username == "" || len(b.Username)+len(b.Password) > maxCredential || !printable(b.Username+b.Password) {
			return fmt.Errorf("basic: want a username and a password of %d bytes at most together, without control characters", maxCredential)
		}
		for _, c := range b.Username {
			if c == ':' {
				return errors.New("basic.username has a colon, which ends it (RFC 7617)")
			}
		}
	}
	if b := a.Bearer; b != nil {
		if err := checkToken(b.Token); err != nil {
			return fmt.Errorf("bearer.token %w", err)
		}
	}
	if o := a.OAuth2; o != nil {
		if err := o.check(); err != nil {
			return fmt.Errorf("oauth2.%w", err)
		}
	}
	if a.MTLS != nil {
		if _, err := a.MTLS.config(time.Now()); err != nil {
			return fmt.Errorf("mtls: %w", err)
		}
	}
	return nil
}

func (o *OAuth2) check() error {
	u, err := url.Parse(o.TokenURL)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return errors.New("token_url is not an https or http URL")
	case u.User != nil || u.Fragment != "":
		return errors.New("token_url has a user name or a fragment, want neither")
	case o.ClientID == "":
		return errors.New("client_id is empty")
	case o.ClientSecret == "":
		return errors.New("client_secret is empty")
	case o.Style != "" && o.Style != "basic" && o.Style != "body":
		return fmt.Errorf("style is %.20q, want basic or body", o.Style)
	}
	for _, s := range []string{o.TokenURL, o.ClientID, o.ClientSecret, o.Scope, o.Audience} {
		if len(s) > maxCredential || !printable(s) {
			return fmt.Errorf("token_url and the others: want %d bytes at most each, without control characters", maxCredential)
		}
	}
	return nil
}

func printable(s string) bool {
	for _, c := range s {
		if c < ' ' || c == 0x7f {
			return false
		}
	}
	return true
}

// checkToken refuses what can't stand in a header.
func checkToken(token string) error {
	if token == "" {
		return errors.New("is empty")
	}
	if len(token) > maxCredential {
		return fmt.Errorf("has %d bytes, want %d at most", len(token), maxCredential)
	}
	for i := range len(token) {
		if c := token[i]; c <= ' ' || c > '~' {
			return errors.New("has a space or another character that can't stand in a header")
		}
	}
	return nil
}

// Authorization is the header's value that stays the same, "" if there is none.
func (a *Auth) Authorization() string {
	switch {
	case a == nil:
		return ""
	case a.Basic != nil:
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(a.Basic.Username+":"+a.Basic.Password))
	case a.Bearer != nil:
		return "Bearer " + a.Bearer.Token
	}
	return ""
}

// Config is what connections to the receiver are made with.
func (m *MTLS) Config() (*tls.Config, error) { return m.config(time.Time{}) }

// config also refuses a certificate that is over at a time, unless that is zero.
func (m *MTLS) config(now time.Time) (*tls.Config, error) {
	if len(m.Certificate)+len(m.Key)+len(m.CA) > maxPEM {
		return nil, fmt.Errorf("certificate, key and ca have more than %d bytes together", maxPEM)
	}
	pair, err := tls.X509KeyPair([]byte(m.Certificate), []byte(m.Key))
	if err != nil {
		return nil, fmt.Errorf("certificate and key, want PEM of both that fit: %w", err)
	}
	if !now.IsZero() && pair.Leaf != nil && now.After(pair.Leaf.NotAfter) {
		return nil, fmt.Errorf("the certificate ended on %s", pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	c := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if m.CA != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(m.CA)) {
			return nil, errors.New("ca has no certificate, want PEM")
		}
	}
	return c, nil
}

// fingerprint names what is equal.
func fingerprint(v any) [sha256.Size]byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // texts only
	}
	return sha256.Sum256(text)
}
