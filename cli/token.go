package cli

import (
	"fmt"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/node"
)

// tokenCmd mints tokens with the gateway's secret: the one given, or the one
// that a gateway without any keeps in its data directory.
type tokenCmd struct {
	Sub            string        `placeholder:"NAME" help:"Whom the token is for."`
	Subscribe      []string      `placeholder:"PATTERN" help:"Channels that may be read, e.g. acct-42 or public.**"`
	Publish        []string      `placeholder:"PATTERN" help:"Channels that may be published to."`
	Subscriptions  []string      `placeholder:"PATTERN" help:"Durable subscriptions, by name; * is any run of characters."`
	Admin          bool          `help:"Allow everything."`
	MaxConnections int           `placeholder:"N" help:"Connections at once, per node; 0 for any number."`
	TTL            time.Duration `name:"ttl" default:"24h" placeholder:"TIME" help:"How long the token is valid."`

	Broker      string `default:"embedded:./longline-data" placeholder:"URL" help:"The gateway's, to find the key it keeps."`
	JWTSecret   string `name:"jwt-secret" placeholder:"SECRET" help:"The gateway's secret."`
	JWTIssuer   string `name:"jwt-issuer" placeholder:"ISS" help:"The token's iss."`
	JWTAudience string `name:"jwt-audience" placeholder:"AUD" help:"The token's aud."`
}

// Run prints the token.
func (c *tokenCmd) Run(env *environment) error {
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
	_, err = fmt.Fprintln(env.stdout, token)
	return err
}

func (c *tokenCmd) secret() ([]byte, error) {
	if c.JWTSecret != "" {
		if err := auth.CheckSecret([]byte(c.JWTSecret)); err != nil {
			return nil, usage("--jwt-secret", "%v", err)
		}
		return []byte(c.JWTSecret), nil
	}
	secret, err := node.KeptSecret(c.Broker)
	return secret, asUsage(err)
}
