package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/broker/embedded"
	"github.com/longline-push/longline/broker/redis"
	"github.com/longline-push/longline/gateway"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
)

// checked is what the flags mean together.
type checked struct {
	embedded    *embedded.Options // nil: on Redis
	origins     auth.Origins
	secret      []byte // for HS tokens; nil: none
	vaultKey    []byte // for secrets at rest
	dialing     callback.Dialing
	development bool // the secret is our own, kept with the data
}

// check finds what is wrong with the flags before anything is started.
func (c *serveCmd) check() (*checked, error) {
	var out checked
	var err error
	switch scheme, _, _ := strings.Cut(c.Broker, ":"); scheme {
	case "embedded":
		if out.embedded, err = embeddedOptions(c.Broker); err != nil {
			return nil, usage("--broker", "%v", err)
		}
	case "redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster":
	default:
		return nil, usage("--broker", "%q; want embedded:DIR, redis://…, rediss://…, redis+sentinel://… or redis+cluster://…", scheme)
	}
	if out.origins, err = auth.ParseOrigins(c.CORSOrigin); err != nil {
		return nil, usage("--cors-origin", "%v", err)
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, usage("--tls-cert, --tls-key", "want both or none")
	}
	if c.TLSCert != "" {
		if _, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey); err != nil {
			return nil, usage("--tls-cert, --tls-key", "%v; want a PEM certificate and its key", err)
		}
	}
	for flag, d := range map[string]time.Duration{"--write-timeout": c.WriteTimeout, "--drain": c.Drain, "--dedupe-window": c.DedupeWindow} {
		if d <= 0 {
			return nil, usage(flag, "%v; want a time above 0, e.g. 30s", d)
		}
	}
	for flag, n := range map[string]float64{"--max-connections": float64(c.MaxConnections), "--connect-rate": c.ConnectRate, "--publish-rate": c.PublishRate} {
		if n < 0 {
			return nil, usage(flag, "%v; want 0 or more", n)
		}
	}
	for flag, n := range map[string]int64{"--max-event": int64(c.MaxEvent), "--max-batch": int64(c.MaxBatch), "--max-body": int64(c.MaxBody)} {
		if n < 1 || n > 1<<30 {
			return nil, usage(flag, "%d; want 1 to 1GiB", n)
		}
	}
	if out.dialing, err = c.checkDialing(); err != nil {
		return nil, err
	}
	return &out, c.checkKeys(&out)
}

// checkDialing reads what callbacks may connect to.
func (c *serveCmd) checkDialing() (callback.Dialing, error) {
	d := callback.Dialing{Ports: c.CallbackPorts}
	for _, text := range c.CallbackAllow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return d, usage("--callback-allow-cidr", "%q; want a network such as 10.1.0.0/16 or fd00::/8", text)
		}
		d.Allow = append(d.Allow, p)
	}
	for _, port := range c.CallbackPorts {
		if port == 0 {
			return d, usage("--callback-ports", "0; want ports from 1 to 65535")
		}
	}
	return d, nil
}

// checkKeys finds out by what tokens are verified. Without any key, which only
// a gateway on this machine alone may be, it keeps one of its own.
func (c *serveCmd) checkKeys(out *checked) error {
	given := c.JWTSecret != "" || c.JWTPublicKey != "" || c.JWKS != ""
	if out.embedded == nil {
		if !given {
			return usage("--jwt-secret", "required with a Redis broker, or --jwt-public-key or --jwks: nodes must share the key")
		}
		if c.SecretKey == "" {
			return usage("--secret-key", "required with a Redis broker, at least %d bytes: nodes must share it", auth.MinSecret)
		}
	}
	if c.SecretKey != "" && len(c.SecretKey) < auth.MinSecret {
		return usage("--secret-key", "%d bytes; want at least %d", len(c.SecretKey), auth.MinSecret)
	}
	if out.vaultKey = []byte(c.SecretKey); c.SecretKey == "" {
		var err error
		if out.vaultKey, err = auth.KeepSecret(filepath.Join(out.embedded.Dir, vaultFile)); err != nil {
			return usage("--broker", "%v", err)
		}
	}
	if c.JWTPublicKey != "" && c.JWKS != "" {
		return usage("--jwt-public-key, --jwks", "want one of them")
	}
	if c.JWTSecret != "" {
		if err := auth.CheckSecret([]byte(c.JWTSecret)); err != nil {
			return usage("--jwt-secret", "%v", err)
		}
		out.secret = []byte(c.JWTSecret)
	}
	if given {
		return nil
	}
	out.development, out.dialing.Loopback = true, true
	if err := loopback(c.Listen); err != nil {
		return usage("--listen", "%v; without --jwt-secret, --jwt-public-key or --jwks want a loopback address such as 127.0.0.1:8080", err)
	}
	var err error
	if out.secret, err = auth.KeepSecret(filepath.Join(out.embedded.Dir, keyFile)); err != nil {
		return usage("--broker", "%v", err)
	}
	return nil
}

// Where a gateway keeps keys of its own, in the data directory, if it is given
// none: keyFile for tokens, vaultFile for secrets at rest.
const (
	keyFile   = "jwt.key"
	vaultFile = "secrets.key"
)

// loopback returns an error unless address is of this machine's loopback.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if host == "localhost" {
		return nil
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("%q is not a loopback address", host)
	}
	return nil
}

// embeddedOptions reads embedded:DIR[?fsync=always|everysec].
func embeddedOptions(text string) (*embedded.Options, error) {
	dir, query, _ := strings.Cut(strings.TrimPrefix(text, "embedded:"), "?")
	if dir == "" {
		return nil, errors.New("no directory; want embedded:DIR")
	}
	o := &embedded.Options{Dir: dir}
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%q; want ?fsync=always or ?fsync=everysec", query)
	}
	for key, value := range values {
		switch {
		case key == "fsync" && len(value) == 1 && value[0] == "always":
			o.Fsync = embedded.FsyncAlways
		case key == "fsync" && len(value) == 1 && value[0] == "everysec":
			o.Fsync = embedded.FsyncEverySecond
		default:
			return nil, fmt.Errorf("%s=%s; want fsync=always or fsync=everysec", key, strings.Join(value, ","))
		}
	}
	return o, nil
}

func (c *serveCmd) openBroker(ctx context.Context, config *checked, logger *slog.Logger) (gateway.Broker, error) {
	options := broker.Options{
		Retention: c.file.retentionOf, MaxTotalBytes: int64(c.MaxTotalBytes), DedupeWindow: c.DedupeWindow,
	}
	if o := config.embedded; o != nil {
		o.Options, o.Logger = options, logger
		b, err := embedded.Open(*o)
		if err != nil {
			return nil, fmt.Errorf("open the data in %s: %w", o.Dir, err)
		}
		return b, nil
	}
	b, err := redis.Open(ctx, c.Broker, redis.Options{Options: options, Logger: logger})
	if err != nil {
		return nil, usage("--broker", "%v", err)
	}
	return b, nil
}

func (c *serveCmd) verifier(ctx context.Context, config *checked, revocations *auth.Revocations, logger *slog.Logger) (*auth.Verifier, error) {
	o := auth.Options{Issuer: c.JWTIssuer, Audience: c.JWTAudience, Origins: config.origins, Revocations: revocations}
	add := func(flag string, keys auth.Keys, err error) error {
		if err != nil {
			return usage(flag, "%v", err)
		}
		o.Keys = append(o.Keys, keys)
		return nil
	}
	if config.secret != nil {
		keys, err := auth.Secret(config.secret)
		if err := add("--jwt-secret", keys, err); err != nil {
			return nil, err
		}
	}
	if c.JWTPublicKey != "" {
		text, err := os.ReadFile(c.JWTPublicKey)
		if err != nil {
			return nil, usage("--jwt-public-key", "%v; want a PEM file", err)
		}
		keys, err := auth.PublicKey(text)
		if err := add("--jwt-public-key", keys, err); err != nil {
			return nil, err
		}
	}
	if c.JWKS != "" {
		keys, err := auth.JWKS(ctx, c.JWKS, logger)
		if err := add("--jwks", keys, err); err != nil {
			return nil, err
		}
	}
	return auth.NewVerifier(o)
}

func (c *serveCmd) limits() gateway.Limits {
	l := gateway.Limits{
		Connections: c.MaxConnections, ConnectRate: c.ConnectRate,
		PublishEvents: c.PublishRate, PublishBytes: float64(c.PublishBytes), Memory: int64(c.Memory),
	}
	if l.Connections == 0 {
		l.Connections = descriptors()
	}
	if l.Memory == 0 {
		l.Memory = gateway.MemoryLimit()
	}
	return l
}

// descriptors is how many connections the limit on open files leaves room for:
// the store, the broker's connections and publishers need some too. The Go
// runtime has raised the soft limit to the hard one.
func descriptors() int {
	const others = 512
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur > 1<<30 {
		return 0
	}
	return max(int(limit.Cur)-others, int(limit.Cur)/2)
}

// nodeName is unlike any other node's, and changes with each start unless it
// is given.
func (c *serveCmd) nodeName() string {
	if c.Node != "" {
		return c.Node
	}
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return host + "-" + uuid.NewString()[:8]
}

// announce tells a newcomer where to begin. It is on stdout because people,
// not machines, read it; only a gateway with a key of its own says anything.
func (c *serveCmd) announce(w io.Writer, address net.Addr, config *checked) {
	if !config.development {
		return
	}
	token, err := auth.Mint(config.secret, auth.Mintage{
		Subject: "development", Admin: true, TTL: 30 * 24 * time.Hour, Issuer: c.JWTIssuer, Audience: c.JWTAudience,
	}, time.Now())
	if err != nil {
		return // the secret was checked; there is nothing else to go wrong
	}
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	base := scheme + "://" + address.String()
	fmt.Fprintf(w, `
Longline is ready, with a key of its own in %s, for this machine alone.

  Watch a channel in the browser:

    %s/#channel=acct-42&token=%s

  Publish an event to it:

    curl %s/v1/channels/acct-42/events \
      -H 'Content-Type: application/json' \
      -H 'Authorization: Bearer %s' \
      -d '{"type":"email.opened","data":{"ip":"203.0.113.7"}}'

`, filepath.Join(config.embedded.Dir, keyFile), base, token, base, token)
}
