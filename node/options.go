package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/proxies"
	"github.com/longline-push/longline/gateway/quota"
	"github.com/longline-push/longline/gateway/trace"
)

// Options of a Node. Their names are those of serve's flags, and so are the
// names in an OptionError. The zero value is a gateway on a free port of this
// machine's loopback, with a key of its own; only Broker is required.
type Options struct {
	Name        string // unlike any other node's; made up if empty
	Listen      string // HOST:PORT; empty: 127.0.0.1:0
	AdminListen string // HOST:PORT of metrics and profiles; empty: nowhere
	TLSCert     string // a PEM file; empty: no TLS
	TLSKey      string // its key's

	Broker        string                                // embedded:DIR[?fsync=…], redis://… and its like
	Retention     func(channel string) broker.Retention // nil: broker.DefaultRetention
	MaxTotalBytes int64                                 // all logs together; 0: as much as there is room
	DedupeWindow  time.Duration                         // 0: the broker's default

	JWTSecret    string // at least auth.MinSecret bytes
	JWTPublicKey string // a PEM file
	JWKS         string // a file or URL
	JWTIssuer    string // what iss must be; empty: anything
	JWTAudience  string // what aud must hold; empty: anything
	SecretKey    string // for secrets at rest; empty: one kept with the data
	// ReplaceSecretKey takes another SecretKey than the data was sealed with: for
	// when that is lost. What it sealed can't be read any more.
	ReplaceSecretKey bool
	CORSOrigin       []string // whose pages may use the gateway
	// PortalOrigins are web origins whose pages may have the portal in a frame.
	PortalOrigins []string

	CallbackAllow []string // networks that callbacks may connect to besides
	CallbackPorts []uint16 // empty: callback's default
	CallbackProxy string   // URL of an HTTP proxy for callbacks; "": none

	WriteTimeout time.Duration // 0: the session's default
	Drain        time.Duration // how long Shutdown may take; 0: 30 s

	TrustedProxies []string // networks whose X-Forwarded-For and Forwarded count

	MaxSockets     int     // accepted and not closed; 0: as file descriptors allow, see descriptors
	MaxConnections int     // live ones; 0: 15/16 of MaxSockets
	ConnectRate    float64 // a second; 0: any
	PublishRate    float64 // events a second and token; 0: any
	PublishBytes   int64   // a second and token; 0: any
	MaxEvent       int     // bytes; 0: 256 KiB
	MaxBatch       int     // events in a publish; 0: 1,000
	MaxBody        int     // bytes of a publish; 0: 4 MiB
	Memory         int64   // bytes; 0: most of the machine's

	MaxAddressConnections int   // live ones of a client's address; 0: any
	MaxTokenChannels      int   // of the connections of one sub; 0: 50,000
	MaxTokenSubscriptions int   // durable, that one sub created; 0: 10,000
	MaxUnread             int64 // bytes of answers that a connection doesn't read; 0: 256 KiB
	MaxTokenUnread        int64 // that the connections of one sub don't; 0: 16 MiB
	MaxNodeUnread         int64 // that all connections don't; 0: an eighth of Memory

	// MetricsSubscriptions is how many subscriptions the metrics name, those that
	// are the most behind. 0: none.
	MetricsSubscriptions int

	OTLPEndpoint string  // where traces go, e.g. http://127.0.0.1:4318; empty: nowhere
	OTLPSample   float64 // share of publishes that are traced though neither event nor request asks for it

	Version string       // shown by /v1/nodes
	Logger  *slog.Logger // nil: slog.Default()
}

func (o *Options) fillIn() {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Drain == 0 {
		o.Drain = 30 * time.Second
	}
	if o.MaxEvent == 0 {
		o.MaxEvent = 256 << 10
	}
	if o.MaxBatch == 0 {
		o.MaxBatch = 1000
	}
	if o.MaxBody == 0 {
		o.MaxBody = 4 << 20
	}
	if o.MaxSockets == 0 {
		o.MaxSockets = descriptors()
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = o.MaxSockets - o.MaxSockets/16 // the rest is for requests
	}
	if o.Memory == 0 {
		o.Memory = quota.MemoryLimit()
	}
	if o.MaxTokenSubscriptions == 0 {
		o.MaxTokenSubscriptions = 10_000
	}
	if o.MaxTokenChannels == 0 {
		o.MaxTokenChannels = 50_000
	}
	if o.MaxUnread == 0 {
		o.MaxUnread = 256 << 10
	}
	if o.MaxTokenUnread == 0 {
		o.MaxTokenUnread = 16 << 20
	}
	if o.MaxNodeUnread == 0 {
		o.MaxNodeUnread = o.Memory / 8
	}
	if o.Name == "" {
		o.Name = madeUpName()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
}

// madeUpName changes with each start.
func madeUpName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "node"
	}
	return host + "-" + uuid.NewString()[:8]
}

// OptionError is an option that can't be taken. It says what is taken.
type OptionError struct {
	Options []string // as serve's flags are called, without dashes
	Err     error
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("%s: %v", strings.Join(e.Options, ", "), e.Err)
}
func (e *OptionError) Unwrap() error { return e.Err }

func wrong(option, format string, args ...any) error {
	return &OptionError{strings.Split(option, ", "), fmt.Errorf(format, args...)}
}

// checked is what options mean together.
type checked struct {
	keys
	store   store
	origins auth.Origins
	dialing callback.Dialing
	proxies proxies.Trusted
}

// Check finds what is wrong with options that New would find, and makes
// nothing: no data, no key, no listener.
func (o Options) Check(ctx context.Context) error {
	o.fillIn()
	config, err := o.check(func(file string) ([]byte, error) {
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			return make([]byte, auth.MinSecret), nil // New makes one
		}
		return auth.KeepSecret(file)
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx) // a key set is not to be kept up to date
	defer cancel()
	_, err = o.verifier(ctx, config, nil, o.Logger)
	return err
}

// check finds what is wrong with options before anything is started. keep reads
// a key that is kept with the data, and makes it if there is none.
func (o *Options) check(keep func(file string) ([]byte, error)) (*checked, error) {
	var out checked
	var err error
	if out.store, err = parseStore(o.Broker); err != nil {
		return nil, err
	}
	for _, origin := range o.PortalOrigins {
		if !frameOrigin.MatchString(origin) {
			return nil, wrong("portal-origins", "%q; want an origin such as https://app.example.com, by its name", origin)
		}
	}
	if out.origins, err = auth.ParseOrigins(o.CORSOrigin); err != nil {
		return nil, wrong("cors-origin", "%w", err)
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return nil, wrong("tls-cert, tls-key", "want both or none")
	}
	if o.TLSCert != "" {
		if _, err := tls.LoadX509KeyPair(o.TLSCert, o.TLSKey); err != nil {
			return nil, wrong("tls-cert, tls-key", "%w; want a PEM certificate and its key", err)
		}
	}
	if o.OTLPEndpoint != "" {
		if err := trace.Check(o.OTLPEndpoint, o.OTLPSample); err != nil {
			return nil, wrong("otlp-endpoint, otlp-sample", "%w", err)
		}
	}
	if out.proxies, err = proxies.Parse(o.TrustedProxies); err != nil {
		return nil, wrong("trusted-proxies", "%w", err)
	}
	if out.dialing, err = o.checkDialing(); err != nil {
		return nil, err
	}
	if out.keys, err = o.checkKeys(out.store, keep); err != nil {
		return nil, err
	}
	out.dialing.Loopback = out.development
	return &out, nil
}

// checkDialing reads what callbacks may connect to.
func (o *Options) checkDialing() (callback.Dialing, error) {
	d := callback.Dialing{Ports: o.CallbackPorts}
	for _, text := range o.CallbackAllow {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return d, wrong("callback-allow-cidr", "%q; want a network such as 10.1.0.0/16 or fd00::/8", text)
		}
		d.Allow = append(d.Allow, p)
	}
	if o.CallbackProxy != "" {
		u, err := url.Parse(o.CallbackProxy)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
			// Not quoted: it may hold a password.
			return d, wrong("callback-proxy", "not the URL of an HTTP proxy; want one such as http://proxy.internal:3128")
		}
		d.Proxy = u
	}
	for _, port := range o.CallbackPorts {
		if port == 0 {
			return d, wrong("callback-ports", "0; want ports from 1 to 65535")
		}
	}
	return d, nil
}

// frameOrigin is an origin as a Content-Security-Policy takes it: nothing that
// could end its directive.
var frameOrigin = regexp.MustCompile(`^https?://[A-Za-z0-9.-]+(:[0-9]+)?$`)
