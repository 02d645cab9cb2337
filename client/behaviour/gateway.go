package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const secret = "the gateway and its drivers share this secret"

// gateway is a real one, a process of its own, that may be killed and started
// again at the same address on the same data.
type gateway struct {
	binary, dir, address, url string

	mu      sync.Mutex
	process *exec.Cmd
	log     *bytes.Buffer
}

func startGateway(ctx context.Context, binary string) (*gateway, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	g := &gateway{binary: binary, address: l.Addr().String()}
	g.url = "http://" + g.address
	l.Close()
	if g.dir, err = os.MkdirTemp("", "longline-behaviour-"); err != nil {
		return nil, err
	}
	return g, g.start(ctx)
}

func (g *gateway) start(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.log = new(bytes.Buffer)
	g.process = exec.CommandContext(ctx, g.binary, "serve", "--listen", g.address, "--admin-listen", "",
		"--broker", "embedded:"+g.dir+"/data?fsync=everysec", "--callback-allow-cidr", "127.0.0.0/8")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LONGLINE_") {
			g.process.Env = append(g.process.Env, v)
		}
	}
	g.process.Env = append(g.process.Env, "LONGLINE_JWT_SECRET="+secret)
	g.process.Stdout, g.process.Stderr = g.log, g.log
	if err := g.process.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(g.url + "/readyz")
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("the gateway did not get ready: %s", g.log)
		}
	}
}

// kill ends the gateway on the spot.
func (g *gateway) kill() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.process.Process.Kill() // an error means that it has ended
	g.process.Wait()
}

// refuse stands at the address of a gateway that is away until a client came
// there, in vain.
func (g *gateway) refuse(ctx context.Context) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", g.address)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.(*net.TCPListener).SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	c, err := l.Accept()
	if err != nil {
		return err
	}
	return c.Close()
}

func (g *gateway) remove() {
	g.kill()
	os.RemoveAll(g.dir)
}

// token signs claims that end after ttl.
func token(sub string, ttl time.Duration, rights map[string]any) string {
	now := time.Now()
	part := func(v any) string {
		b, _ := json.Marshal(v) // of maps of strings and numbers
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := part(map[string]any{"alg": "HS256", "typ": "JWT"}) + "." + part(map[string]any{
		"sub": sub, "iat": now.Unix(), "exp": now.Add(ttl).Unix(), "jti": fmt.Sprint(now.UnixNano()), "longline": rights,
	})
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// call makes a request as an operator. A nil answer is not wanted.
func (g *gateway) call(ctx context.Context, method, path string, body, answer any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		payload = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, g.url+path, payload)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+token("judge", time.Hour, map[string]any{"admin": true}))
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode > 299 {
		return fmt.Errorf("%s %s: %d %s", method, path, res.StatusCode, text)
	}
	if answer != nil {
		return json.Unmarshal(text, answer)
	}
	return nil
}
