package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

// serveCmd are the flags of serve. Each has an environment variable, --listen
// LONGLINE_LISTEN, and a key in the configuration file, listen.
type serveCmd struct {
	Listen      string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen."`
	AdminListen string `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Where /metrics and pprof are; empty for nowhere."`
	Broker      string `default:"embedded:./longline-data" placeholder:"URL" help:"embedded:DIR[?fsync=always|everysec], redis://…, rediss://…, redis+sentinel://… or redis+cluster://h1,h2."`
	Node        string `placeholder:"NAME" help:"This node's name; made up if not given."`

	JWTSecretFile    string   `name:"jwt-secret-file" placeholder:"FILE" help:"Verify HS256/384/512 tokens with the secret in it; at least 32 bytes."`
	JWTSecret        string   `name:"jwt-secret" placeholder:"SECRET" help:"That secret itself, for the environment: on a command line others see it."`
	JWTPublicKey     string   `name:"jwt-public-key" placeholder:"FILE" help:"Verify tokens with a PEM public key: RSA, ECDSA or Ed25519."`
	JWKS             string   `name:"jwks" placeholder:"FILE|URL" help:"Verify tokens with the keys of a JSON Web Key Set."`
	JWTIssuer        string   `name:"jwt-issuer" placeholder:"ISS" help:"What a token's iss must be."`
	JWTAudience      string   `name:"jwt-audience" placeholder:"AUD" help:"What a token's aud must hold."`
	SecretKeyFile    string   `name:"secret-key-file" placeholder:"FILE" help:"Encrypt secrets at rest with the key in it; at least 32 bytes; required on Redis."`
	SecretKey        string   `name:"secret-key" placeholder:"SECRET" help:"That key itself, for the environment: on a command line others see it."`
	ReplaceSecretKey bool     `help:"Start with another key for secrets at rest than before: what that one encrypted can't be read any more."`
	CORSOrigin       []string `name:"cors-origin" placeholder:"ORIGIN" help:"Web origins whose pages may use the gateway; * for any, without credentials."`

	TrustedProxies []string `name:"trusted-proxies" placeholder:"CIDR" help:"Networks of the proxies whose X-Forwarded-For or Forwarded says who the client is."`

	PortalOrigins []string `name:"portal-origins" placeholder:"ORIGIN" help:"Web origins whose pages may have the portal in a frame; none if not given."`

	CallbackAllow []string `name:"callback-allow-cidr" placeholder:"CIDR" help:"Let callbacks connect to this network too, at any port."`
	CallbackProxy string   `name:"callback-proxy" placeholder:"URL" help:"Connect to callbacks' endpoints through this HTTP proxy, by CONNECT."`
	CallbackPorts []uint16 `name:"callback-ports" placeholder:"PORT" help:"Ports that callbacks may connect to; 80, 443, 8080 and 8443 if not given."`

	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"Serve TLS and HTTP/2 with this certificate (PEM)."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"The certificate's key (PEM)."`

	WriteTimeout time.Duration `default:"30s" placeholder:"TIME" help:"How long a peer may take nothing before its connection ends."`
	Drain        time.Duration `default:"30s" placeholder:"TIME" help:"How long shutting down may take."`

	MaxSockets            int           `default:"0" placeholder:"N" help:"Accepted connections of any kind; 0 for as many as file descriptors allow."`
	MaxConnections        int           `default:"0" placeholder:"N" help:"Live connections on this node; 0 for 15 of 16 sockets."`
	MaxAddressConnections int           `name:"max-address-connections" default:"0" placeholder:"N" help:"Live connections that one client's address may have; 0 for any number."`
	ConnectRate           float64       `default:"10000" placeholder:"N" help:"New connections a second; 0 for any number."`
	PublishRate           float64       `default:"0" placeholder:"N" help:"Events a second that one token may publish; 0 for any number."`
	PublishBytes          byteCount     `default:"0" placeholder:"SIZE" help:"Bytes a second that one token may publish; 0 for any number."`
	MaxEvent              byteCount     `default:"256KiB" placeholder:"SIZE" help:"The largest event."`
	MaxBatch              int           `default:"1000" placeholder:"N" help:"The most events in one publish."`
	MaxBody               byteCount     `default:"4MiB" placeholder:"SIZE" help:"The largest body of a publish."`
	MaxTokenChannels      int           `default:"50000" placeholder:"N" help:"Channels that the connections of one sub may have together."`
	MaxTokenSubscriptions int           `default:"10000" placeholder:"N" help:"Durable subscriptions that one sub may have created."`
	MaxUnread             byteCount     `default:"256KiB" placeholder:"SIZE" help:"Answers that may wait for a connection that doesn't read."`
	MaxTokenUnread        byteCount     `default:"16MiB" placeholder:"SIZE" help:"The same for all connections of one sub."`
	MaxNodeUnread         byteCount     `default:"0" placeholder:"SIZE" help:"The same for all connections; 0 for an eighth of --memory."`
	Memory                byteCount     `default:"0" placeholder:"SIZE" help:"What the process should stay below; 0 for 80 % of the machine's or container's."`
	MaxTotalBytes         byteCount     `default:"0" placeholder:"SIZE" help:"All logs together, about; 0 for as much as there is room."`
	DedupeWindow          time.Duration `default:"10m" placeholder:"TIME" help:"How long event ids are remembered."`

	MetricsSubscriptions int `default:"0" placeholder:"N" help:"Have metrics name the N subscriptions of this node that are the most behind; the rest are summed."`

	OTLPEndpoint string  `name:"otlp-endpoint" placeholder:"URL" help:"Send traces to this OTLP receiver, e.g. http://127.0.0.1:4318."`
	OTLPSample   float64 `name:"otlp-sample" default:"0" placeholder:"SHARE" help:"Share of publishes to trace though neither the event nor the request asks for it: 0 to 1."`

	LogFormat string `enum:"text,json" default:"text" help:"text or json."`
	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`
	Config    string `placeholder:"FILE" help:"A YAML file with the same names as these flags, and retention."`

	Check bool `help:"Say whether the configuration is right, and end."`

	file *configuration `kong:"-"`
}

// Run serves until its context ends.
func (c *serveCmd) Run(env *environment) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Check {
		if err := c.options(env).Check(env.ctx); err != nil {
			return asUsage(err, c.JWTSecretFile, c.SecretKeyFile)
		}
		_, err := fmt.Fprintln(env.stdout, "the configuration is right")
		return err
	}
	n, err := node.New(env.ctx, c.options(env))
	if err != nil {
		return asUsage(err, c.JWTSecretFile, c.SecretKeyFile)
	}
	warnOfSecrets(env.stderr, env.args) // of one that runs: what is wrong with another is one line
	c.announce(env.stdout, n)
	err = n.Run(env.ctx)
	return errors.Join(err, n.Shutdown())
}

// check reads the secrets and finds flags that a node would take for others:
// its zero values stand for defaults.
func (c *serveCmd) check() (err error) {
	if c.JWTSecret, err = secretOf("--jwt-secret", c.JWTSecret, c.JWTSecretFile); err != nil {
		return err
	}
	if c.SecretKey, err = secretOf("--secret-key", c.SecretKey, c.SecretKeyFile); err != nil {
		return err
	}
	for flag, d := range map[string]time.Duration{"--write-timeout": c.WriteTimeout, "--drain": c.Drain, "--dedupe-window": c.DedupeWindow} {
		if d <= 0 {
			return usage(flag, "%v; want a time above 0, e.g. 30s", d)
		}
	}
	for flag, n := range map[string]float64{"--max-sockets": float64(c.MaxSockets), "--max-connections": float64(c.MaxConnections), "--max-address-connections": float64(c.MaxAddressConnections), "--connect-rate": c.ConnectRate, "--publish-rate": c.PublishRate} {
		if n < 0 {
			return usage(flag, "%v; want 0 or more", n)
		}
	}
	for flag, n := range map[string]int64{"--max-event": int64(c.MaxEvent), "--max-batch": int64(c.MaxBatch), "--max-body": int64(c.MaxBody), "--max-unread": int64(c.MaxUnread), "--max-token-unread": int64(c.MaxTokenUnread), "--max-token-channels": int64(c.MaxTokenChannels), "--max-token-subscriptions": int64(c.MaxTokenSubscriptions)} {
		if n < 1 || n > 1<<30 {
			return usage(flag, "%d; want 1 to 1GiB", n)
		}
	}
	return nil
}

func (c *serveCmd) options(env *environment) node.Options {
	return node.Options{
		Name: c.Node, Listen: c.Listen, AdminListen: c.AdminListen, TLSCert: c.TLSCert, TLSKey: c.TLSKey,
		Broker: c.Broker, Retention: c.file.retentionOf, MaxTotalBytes: int64(c.MaxTotalBytes), DedupeWindow: c.DedupeWindow,
		JWTSecret: c.JWTSecret, JWTPublicKey: c.JWTPublicKey, JWKS: c.JWKS, JWTIssuer: c.JWTIssuer, JWTAudience: c.JWTAudience,
		SecretKey: c.SecretKey, ReplaceSecretKey: c.ReplaceSecretKey, CORSOrigin: c.CORSOrigin, PortalOrigins: c.PortalOrigins,
		CallbackAllow: c.CallbackAllow, CallbackPorts: c.CallbackPorts, CallbackProxy: c.CallbackProxy,
		WriteTimeout: c.WriteTimeout, Drain: c.Drain,
		TrustedProxies: c.TrustedProxies, MaxAddressConnections: c.MaxAddressConnections,
		MaxSockets: c.MaxSockets, MaxTokenChannels: c.MaxTokenChannels, MaxTokenSubscriptions: c.MaxTokenSubscriptions,
		MaxUnread: int64(c.MaxUnread), MaxTokenUnread: int64(c.MaxTokenUnread), MaxNodeUnread: int64(c.MaxNodeUnread),
		MaxConnections: c.MaxConnections, ConnectRate: c.ConnectRate, PublishRate: c.PublishRate, PublishBytes: int64(c.PublishBytes),
		MaxEvent: int(c.MaxEvent), MaxBatch: c.MaxBatch, MaxBody: int(c.MaxBody), Memory: int64(c.Memory),
		MetricsSubscriptions: c.MetricsSubscriptions, OTLPEndpoint: c.OTLPEndpoint, OTLPSample: c.OTLPSample,
		Version: version, Logger: c.logger(env.stderr),
	}
}

// asUsage turns an option that the node doesn't take into the flag that gave it:
// a secret's is its file's where that is given.
func asUsage(err error, jwtSecretFile, secretKeyFile string) error {
	var wrong *node.OptionError
	if !errors.As(err, &wrong) {
		return err
	}
	flags := "--" + strings.Join(wrong.Options, ", --")
	for flag, file := range map[string]string{"--jwt-secret": jwtSecretFile, "--secret-key": secretKeyFile} {
		if flags == flag && file != "" {
			flags += "-file " + file
		}
	}
	return usage(flags, "%v", wrong.Err)
}

func (c *serveCmd) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// announce tells a newcomer where to begin. It is on stdout because people,
// not machines, read it; only a gateway with a key of its own says anything.
func (c *serveCmd) announce(w io.Writer, n *node.Node) {
	file, ok := n.Development()
	if !ok {
		return
	}
	token, err := n.Mint(auth.Mintage{Subject: "development", Admin: true, TTL: 30 * 24 * time.Hour})
	if err != nil {
		return // the secret was checked; there is nothing else to go wrong
	}
	fmt.Fprintf(w, `
Longline is ready, with a key of its own in %s, for this machine alone.

  Watch a channel in the browser:

    %s/#channel=acct-42&token=%s

  Publish an event to it:

    curl %s/v1/channels/acct-42/events \
      -H 'Content-Type: application/json' \
      -H 'Authorization: Bearer %s' \
      -d '{"type":"email.opened","data":{"ip":"203.0.113.7"}}'

`, file, n.URL(), token, n.URL(), token)
}
