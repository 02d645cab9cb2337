package redis

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// mode is how the servers are arranged.
type mode int

const (
	standalone mode = iota
	sentinel
	cluster
)

// config is what a URL says.
type config struct {
	mode      mode
	addrs     []string // servers or sentinels, host:port
	master    string   // sentinel: the name of what is watched
	username  string
	password  string
	sentinels struct{ username, password string }
	db        int
	tls       *tls.Config

	prefix       string
	waitReplicas int
	poolSize     int
}

const urlForms = "want redis://[user:password@]host[:port][/db], rediss://…, " +
	"redis+sentinel://h1,h2/master[/db] or redis+cluster://h1,h2"

// parseURL reads a broker's URL. Its errors never show the password.
func parseURL(raw string) (config, error) {
	c := config{prefix: "longline:"}
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return c, errors.New("redis URL has no scheme: " + urlForms)
	}
	secure := strings.HasPrefix(scheme, "rediss")
	port := "6379"
	switch scheme {
	case "redis", "rediss":
	case "redis+sentinel", "rediss+sentinel":
		c.mode, port = sentinel, "26379"
	case "redis+cluster", "rediss+cluster":
		c.mode = cluster
	default:
		return c, fmt.Errorf("redis URL has scheme %q: %s", scheme, urlForms)
	}

	// net/url takes one host only, so it sees the rest with a stand-in.
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	user, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, hosts = authority[:i+1], authority[i+1:]
	}
	u, err := url.Parse("redis://" + user + "host" + tail)
	if err != nil {
		return c, errors.New("redis URL is malformed (is a character of the password not percent-encoded?): " + urlForms)
	}
	c.username = u.User.Username()
	c.password, _ = u.User.Password()

	for host := range strings.SplitSeq(hosts, ",") {
		addr, err := hostPort(host, port)
		if err != nil {
			return c, fmt.Errorf("redis URL: host %q: %w", host, err)
		}
		c.addrs = append(c.addrs, addr)
	}
	if c.mode == standalone && len(c.addrs) > 1 {
		return c, errors.New("redis URL has several hosts: want redis+sentinel:// or redis+cluster:// for those")
	}
	if err := c.path(strings.Trim(u.Path, "/")); err != nil {
		return c, fmt.Errorf("redis URL: %w", err)
	}
	if secure {
		c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if err := c.options(u.Query()); err != nil {
		return c, fmt.Errorf("redis URL: %w", err)
	}
	return c, nil
}

func hostPort(host, port string) (string, error) {
	if host == "" {
		return "", errors.New("is empty")
	}
	h, p, err := net.SplitHostPort(host)
	if err != nil {
		if strings.Count(host, ":") > 0 && !strings.HasPrefix(host, "[") {
			return "", errors.New("want host or host:port, IPv6 addresses in brackets")
		}
		return net.JoinHostPort(strings.Trim(host, "[]"), port), nil
	}
	if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("port %q is not a number from 1 to 65535", p)
	}
	if h == "" {
		return "", errors.New("is empty")
	}
	return net.JoinHostPort(h, p), nil
}

func (c *config) path(path string) error {
	db := path
	switch c.mode {
	case cluster:
		if path != "" && path != "0" {
			return fmt.Errorf("path %q: a cluster has no databases", path)
		}
		return nil
	case sentinel:
		c.master, db, _ = strings.Cut(path, "/")
		if c.master == "" {
			return errors.New("the master's name is missing: want redis+sentinel://h1,h2/master")
		}
	}
	if db == "" {
		return nil
	}
	n, err := strconv.Atoi(db)
	if err != nil || n < 0 {
		return fmt.Errorf("database %q is not a number", db)
	}
	c.db = n
	return nil
}

var optionNames = []string{
	"insecure_skip_verify", "pool_size", "prefix", "sentinel_password", "sentinel_username", "tls_ca", "wait_replicas",
}

func (c *config) options(q url.Values) error {
	for name, values := range q {
		if !slices.Contains(optionNames, name) {
			return fmt.Errorf("unknown option %q: want %s", name, strings.Join(optionNames, ", "))
		}
		value := values[len(values)-1]
		var err error
		switch name {
		case "pool_size":
			c.poolSize, err = number(value, 1, 10000)
		case "wait_replicas":
			c.waitReplicas, err = number(value, 0, 100)
		case "prefix":
			c.prefix = value
			if strings.ContainsAny(value, "{}") {
				err = errors.New(`must not hold "{" or "}"`)
			}
		case "sentinel_username":
			c.sentinels.username = value
		case "sentinel_password":
			c.sentinels.password = value
		case "tls_ca":
			err = c.trust(value)
		case "insecure_skip_verify":
			var skip bool
			if skip, err = strconv.ParseBool(value); err != nil {
				err = errors.New("want true or false")
			} else if c.tls != nil {
				c.tls.InsecureSkipVerify = skip
			}
		}
		if err != nil {
			return fmt.Errorf("option %s: %w", name, err)
		}
	}
	return nil
}

func (c *config) trust(file string) error {
	if c.tls == nil {
		return errors.New("goes with rediss:// only")
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c.tls.RootCAs = x509.NewCertPool()
	if !c.tls.RootCAs.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no PEM certificate", file)
	}
	return nil
}

func number(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is not a number from %d to %d", s, least, most)
	}
	return n, nil
}

const (
	dialTimeout = time.Second
	// replyTimeout is how long a server may take over one round trip.
	replyTimeout = 1500 * time.Millisecond
)

// client returns the options of a client of the server at addr.
func (c *config) client(addr string) *goredis.Options {
	return &goredis.Options{
		Addr: addr, Username: c.username, Password: c.password, DB: c.db, TLSConfig: c.tlsFor(addr),
		// What failed may have happened, so nothing is sent twice unasked.
		MaxRetries: -1, DialerRetries: 1,
		DialTimeout: dialTimeout, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout,
		PoolTimeout: replyTimeout, ContextTimeoutEnabled: true,
		PoolSize: c.poolSize, PipelinePoolSize: -1,
		Protocol: 2, DisableIdentity: true, ClientName: "longline",
	}
}

func (c *config) tlsFor(addr string) *tls.Config {
	if c.tls == nil {
		return nil
	}
	t := c.tls.Clone()
	t.ServerName, _, _ = net.SplitHostPort(addr)
	return t
}
