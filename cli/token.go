package cli

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

// tokenCmd is about tokens.
type tokenCmd struct {
	Mint    tokenMintCmd    `cmd:"" default:"withargs" help:"Mint one with the gateway's key (what longline token does too)."`
	Inspect tokenInspectCmd `cmd:"" help:"Print what a token says, without verifying it."`
}

// tokenMintCmd mints tokens with the gateway's secret: the one given, or the one
// that a gateway without any keeps in its data directory.
type tokenMintCmd struct {
	Sub            string        `placeholder:"NAME" help:"Whom the token is for."`
	Subscribe      []string      `placeholder:"PATTERN" help:"Channels that may be read, e.g. acct-42 or public.**"`
	Publish        []string      `placeholder:"PATTERN" help:"Channels that may be published to."`
	Subscriptions  []string      `placeholder:"PATTERN" help:"Durable subscriptions, by name; * is any run of characters."`
	Admin          bool          `help:"Allow everything."`
	MaxConnections int           `placeholder:"N" help:"Connections at once, per node; 0 for any number."`
	TTL            time.Duration `name:"ttl" default:"24h" placeholder:"TIME" help:"How long the token is valid."`

	Broker        string `default:"embedded:./longline-data" placeholder:"URL" help:"The gateway's, to find the key it keeps."`
	JWTSecretFile string `name:"jwt-secret-file" placeholder:"FILE" help:"A file that holds the gateway's secret."`
	JWTSecret     string `name:"jwt-secret" placeholder:"SECRET" help:"That secret itself, for the environment: on a command line others see it."`
	JWTIssuer     string `name:"jwt-issuer" placeholder:"ISS" help:"The token's iss."`
	JWTAudience   string `name:"jwt-audience" placeholder:"AUD" help:"The token's aud."`
}

// Run prints the token.
func (c *tokenMintCmd) Run(env *environment) error {
	warnOfSecrets(env.stderr, env.args)
	secret, err := c.secret()
	if err != nil {
		return err
	}
	token, err := auth.Mint(secret, auth.Mintage{
		Subject: c.Sub, Subscribe: c.Subscribe, Publish: c.Publish, Subscriptions: c.Subscriptions,
		Admin: c.Admin, MaxConnections: c.MaxConnections, TTL: c.TTL, Issuer: c.JWTIssuer, Audience: c.JWTAudience,
	}, time.Now())
	if err != nil {
		return usage("token", "%v", err)
	}
	if !c.Admin && len(c.Subscribe)+len(c.Publish)+len(c.Subscriptions) == 0 {
		fmt.Fprintln(env.stderr, "longline: this token has no rights; give it some by --subscribe, --publish, --subscriptions or --admin")
	}
	_, err = fmt.Fprintln(env.stdout, token)
	return err
}

func (c *tokenMintCmd) secret() ([]byte, error) {
	given, err := secretOf("--jwt-secret", c.JWTSecret, c.JWTSecretFile)
	if err != nil {
		return nil, err
	}
	if given != "" {
		if err := auth.CheckSecret([]byte(given)); err != nil {
			return nil, asUsage(&node.OptionError{Options: []string{"jwt-secret"}, Err: err}, c.JWTSecretFile, "")
		}
		return []byte(given), nil
	}
	secret, err := node.KeptSecret(c.Broker)
	return secret, asUsage(err, "", "")
}

// tokenInspectCmd shows a token's claims. Only its key tells whether they are
// true.
type tokenInspectCmd struct {
	Token string `arg:"" help:"The token; - reads it from stdin."`
	JSON  bool   `name:"json" help:"Print JSON on a terminal too."`
}

func (c *tokenInspectCmd) Run(env *environment) error {
	text := c.Token
	if text == "-" {
		raw, err := io.ReadAll(io.LimitReader(env.stdin, 64<<10))
		if err != nil {
			return fmt.Errorf("read token: %w", err)
		}
		text = string(raw)
	}
	claims, err := claimsOf(strings.TrimSpace(text))
	if err != nil {
		return usage("<token>", "%v", err)
	}
	if !env.people(c.JSON) {
		return printLine(env, claims)
	}
	f, err := parseFields(claims)
	if err != nil {
		return err
	}
	return facts(env, "sub", f.at("sub"), "jti", f.at("jti"), "iss", f.at("iss"), "aud", f.at("aud"),
		"issued", timeOf(f.at("iat")), "expires", timeOf(f.at("exp")), "admin", f.at("longline.admin"),
		"subscribe", f.at("longline.subscribe"), "publish", f.at("longline.publish"),
		"subscriptions", f.at("longline.subscriptions"), "max connections", f.at("longline.max_connections"))
}

// claimsOf returns what a token says, as JSON.
func claimsOf(token string) (json.RawMessage, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("not a JWT; want three parts joined by dots")
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || !json.Valid(claims) {
		return nil, errors.New("its second part is not JSON in base64; want a JWT")
	}
	return claims, nil
}

// timeOf is a claim's time for people.
func timeOf(seconds string) string {
	n, err := json.Number(seconds).Float64()
	if err != nil {
		return ""
	}
	at := time.Unix(int64(n), 0)
	text := at.UTC().Format(time.RFC3339)
	if left := time.Until(at); left < 0 {
		return text + " (" + (-left).Round(time.Second).String() + " ago)"
	}
	return text + " (in " + time.Until(at).Round(time.Second).String() + ")"
}
