package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// cli is the command line: one field a command, each in a file of its own. A
// command's Run gets the environment.
type cli struct {
	Serve serveCmd `cmd:"" default:"withargs" help:"Run the gateway (what bare longline does too)."`
	Token tokenCmd `cmd:"" help:"Mint a token with the gateway's key."`

	Publish publishCmd `cmd:"" help:"Publish events to a channel."`
	Listen  listenCmd  `cmd:"" help:"Print events as they come, or forward them to a local URL."`
	Sub     subCmd     `cmd:"" help:"List, make, change and look into durable subscriptions."`

	Version kong.VersionFlag `help:"Print the version."`
}

// usageError is a wrong flag, variable or file: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usage makes a usageError about a flag. The message says what the flag takes.
func usage(flag, format string, args ...any) error {
	return usageError{fmt.Errorf("%s: %s", flag, fmt.Sprintf(format, args...))}
}

func exitStatus(err error) int {
	var u usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &u):
		return 2
	}
	return 1
}

// exited is how kong ends the program for --help and --version.
type exited int

// parse reads args, environment and configuration file, in this order of
// precedence, and runs the command.
func parse(args []string, stdout, stderr io.Writer, env *environment) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(exited); !ok {
				panic(r)
			}
		}
	}()
	file, err := readConfig(configFile(args))
	if err != nil {
		return err
	}
	var c cli
	c.Serve.file = file
	parser, err := kong.New(&c,
		kong.Name("longline"),
		kong.Description("A push gateway: durable, ordered events over WebSocket, SSE, pull and callbacks."),
		kong.DefaultEnvars("LONGLINE"),
		kong.Vars{"version": version},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Resolvers(file),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return usageError{errors.New(oneLine(err.Error()))}
	}
	return parsed.Run(env)
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// serveCmd are the flags of serve. Each has an environment variable, --listen
// LONGLINE_LISTEN, and a key in the configuration file, listen.
type serveCmd struct {
	Listen      string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen."`
	AdminListen string `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Where /metrics and pprof are; empty for nowhere."`
	Broker      string `default:"embedded:./longline-data" placeholder:"URL" help:"embedded:DIR[?fsync=always|everysec], redis://…, rediss://…, redis+sentinel://… or redis+cluster://h1,h2."`
	Node        string `placeholder:"NAME" help:"This node's name; made up if not given."`

	JWTSecret    string   `name:"jwt-secret" placeholder:"SECRET" help:"Verify HS256/384/512 tokens with it; at least 32 bytes."`
	JWTPublicKey string   `name:"jwt-public-key" placeholder:"FILE" help:"Verify tokens with a PEM public key: RSA, ECDSA or Ed25519."`
	JWKS         string   `name:"jwks" placeholder:"FILE|URL" help:"Verify tokens with the keys of a JSON Web Key Set."`
	JWTIssuer    string   `name:"jwt-issuer" placeholder:"ISS" help:"What a token's iss must be."`
	JWTAudience  string   `name:"jwt-audience" placeholder:"AUD" help:"What a token's aud must hold."`
	SecretKey    string   `name:"secret-key" placeholder:"SECRET" help:"Encrypts secrets at rest; at least 32 bytes; required on Redis."`
	CORSOrigin   []string `name:"cors-origin" placeholder:"ORIGIN" help:"Web origins whose pages may use the gateway; * for any, without credentials."`

	CallbackAllow []string `name:"callback-allow-cidr" placeholder:"CIDR" help:"Let callbacks connect to this network too, at any port."`
	CallbackPorts []uint16 `name:"callback-ports" placeholder:"PORT" help:"Ports that callbacks may connect to; 80, 443, 8080 and 8443 if not given."`

	TLSCert string `name:"tls-cert" placeholder:"FILE" help:"Serve TLS and HTTP/2 with this certificate (PEM)."`
	TLSKey  string `name:"tls-key" placeholder:"FILE" help:"The certificate's key (PEM)."`

	WriteTimeout time.Duration `default:"30s" placeholder:"TIME" help:"How long a peer may take nothing before its connection ends."`
	Drain        time.Duration `default:"30s" placeholder:"TIME" help:"How long shutting down may take."`

	MaxConnections int           `default:"0" placeholder:"N" help:"Connections on this node; 0 for as many as there are file descriptors."`
	ConnectRate    float64       `default:"10000" placeholder:"N" help:"New connections a second; 0 for any number."`
	PublishRate    float64       `default:"0" placeholder:"N" help:"Events a second that one token may publish; 0 for any number."`
	PublishBytes   byteCount     `default:"0" placeholder:"SIZE" help:"Bytes a second that one token may publish; 0 for any number."`
	MaxEvent       byteCount     `default:"256KiB" placeholder:"SIZE" help:"The largest event."`
	MaxBatch       int           `default:"1000" placeholder:"N" help:"The most events in one publish."`
	MaxBody        byteCount     `default:"4MiB" placeholder:"SIZE" help:"The largest body of a publish."`
	Memory         byteCount     `default:"0" placeholder:"SIZE" help:"What the process should stay below; 0 for 80 %% of the machine's or container's."`
	MaxTotalBytes  byteCount     `default:"0" placeholder:"SIZE" help:"All logs together, about; 0 for as much as there is room."`
	DedupeWindow   time.Duration `default:"10m" placeholder:"TIME" help:"How long event ids are remembered."`

	LogFormat string `enum:"text,json" default:"text" help:"text or json."`
	LogLevel  string `enum:"debug,info,warn,error" default:"info" help:"debug, info, warn or error."`
	Config    string `placeholder:"FILE" help:"A YAML file with the same names as these flags, and retention."`

	file *configuration `kong:"-"`
}

// Run implements the command.
func (c *serveCmd) Run(env *environment) error { return c.serve(env.ctx, env) }

func (c *serveCmd) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	level.UnmarshalText([]byte(c.LogLevel)) // kong has checked it
	o := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}

// byteCount is a number of bytes, written as 512, 64KiB, 4MiB or 1GiB.
type byteCount int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *byteCount) UnmarshalText(text []byte) error {
	s, factor := strings.TrimSpace(string(text)), int64(1)
	for suffix, f := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if rest, ok := strings.CutSuffix(s, suffix); ok {
			s, factor = strings.TrimSpace(rest), f
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > (1<<62)/factor {
		return fmt.Errorf("%q is no size; want bytes, or a number with KiB, MiB, GiB or TiB", text)
	}
	*b = byteCount(n * factor)
	return nil
}
