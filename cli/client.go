package cli

import (
	"fmt"
	"log/slog"

	longline "github.com/longline-push/longline/client/go"
)

// clientFlags are what every command needs that talks to a gateway.
type clientFlags struct {
	URL       string `name:"url" default:"http://127.0.0.1:8080" placeholder:"URL" help:"The gateway."`
	Token     string `placeholder:"JWT" help:"The token to show it."`
	Transport string `enum:"auto,websocket,sse" default:"auto" help:"auto, websocket or sse."`
	Verbose   bool   `short:"v" help:"Say what happens to connections, on stderr."`
}

func (f *clientFlags) client(env *environment) (*longline.Client, error) {
	level := slog.LevelWarn
	if f.Verbose {
		level = slog.LevelInfo
	}
	o := longline.Options{
		Token:  f.Token,
		Logger: slog.New(slog.NewTextHandler(env.stderr, &slog.HandlerOptions{Level: level})),
	}
	if f.Transport != "auto" {
		o.Transport = longline.Transport(f.Transport)
	}
	client, err := longline.New(f.URL, o)
	if err != nil {
		return nil, usage("--url", "%q; want http://HOST[:PORT] or https://HOST[:PORT]", f.URL)
	}
	return client, nil
}

// printLine prints one line of JSON.
func printLine(env *environment, line []byte) error {
	if _, err := fmt.Fprintf(env.stdout, "%s\n", line); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
