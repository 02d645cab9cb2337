package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// readyCmd asks a gateway whether it is ready: the health check of an image
// that has neither a shell nor curl.
type readyCmd struct {
	URL     string        `name:"url" placeholder:"URL" help:"The gateway. Default: this machine, at the port of LONGLINE_LISTEN (127.0.0.1:8080)."`
	Timeout time.Duration `default:"2s" help:"How long to wait for the answer."`
}

// Run ends without an error if the gateway is ready.
func (c *readyCmd) Run(env *environment) error {
	url := c.URL
	if url == "" {
		host, port, err := net.SplitHostPort(os.Getenv("LONGLINE_LISTEN"))
		if err != nil {
			host, port = "127.0.0.1", "8080"
		}
		if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		url = "http://" + net.JoinHostPort(host, port)
	}
	ctx, cancel := context.WithTimeout(env.ctx, c.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/readyz", nil)
	if err != nil {
		return usage("--url", "%q; want http://HOST[:PORT] or https://HOST[:PORT]", url)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("ask %s: %w", url, err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", answer.Status, strings.TrimSpace(string(text)))
	}
	_, err = fmt.Fprintln(env.stdout, "ready")
	return err
}
