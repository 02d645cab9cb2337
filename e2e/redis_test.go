package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
)

// Two gateways on one Redis, 200 clients, 500 events a second: every
// acknowledged event reaches every client once, in order.
func TestTwoGatewaysWhile(t *testing.T) {
	for _, test := range []struct {
		name    string
		happens func(t *testing.T, s *redistest.Server, gateways []*gateway, p *publisher)
	}{
		{"RedisIsKilled", func(t *testing.T, s *redistest.Server, gateways []*gateway, p *publisher) {
			s.Kill()
			away(t, gateways)
			s.Restart()
		}},
		{"RedisHangs", func(t *testing.T, s *redistest.Server, gateways []*gateway, p *publisher) {
			s.Pause()
			hang := time.NewTimer(15 * time.Second)
			away(t, gateways)
			<-hang.C
			s.Resume()
		}},
		{"PubSubIsCut", func(t *testing.T, s *redistest.Server, gateways []*gateway, p *publisher) {
			for range 5 {
				s.Do("CLIENT", "KILL", "TYPE", "pubsub")
				p.more(100)
			}
		}},
		{"AGatewayIsKilled", func(t *testing.T, s *redistest.Server, gateways []*gateway, p *publisher) {
			gateways[0].kill()
			p.more(500)
			gateways[0].launch()
			gateways[0].ready()
			gateways[1].kill()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t, "appendonly", "yes", "appendfsync", "always")
			gateways := []*gateway{startGateway(t, s.URL()), startGateway(t, s.URL())}
			c := gather(t, 200, 20, gateways...)
			p := publish(t, c.channels, gateways...)
			p.more(500)
			test.happens(t, s, gateways, p)
			p.more(500)
			c.wantAll(p.halt())
		})
	}
}

// away waits until both gateways say that they are not ready, and that a
// publish is refused for now.
func away(t *testing.T, gateways []*gateway) {
	t.Helper()
	bearer := token(t)
	for _, g := range gateways {
		redistest.Eventually(t, func() error {
			if g.status("/readyz") == http.StatusOK {
				return errors.New("a gateway without its broker says that it is ready")
			}
			return nil
		})
		if status := (&publisher{t: t}).post(g, bearer, "elsewhere", "x"); status != http.StatusServiceUnavailable {
			t.Errorf("a publish without the broker is answered %d, want 503", status)
		}
	}
}

// Whoever follows a log that was emptied is told, also where nothing is
// published, and goes on with the new one.
func TestEmptied(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	g := startGateway(t, s.URL())
	c := gather(t, 20, 4, g)
	p := publish(t, c.channels, g)
	p.more(100)
	c.wantAll(p.halt())
	s.Do("FLUSHALL")
	for i, m := range c.members {
		redistest.Eventually(t, func() error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.gaps) == 0 {
				return fmt.Errorf("subscriber %d was told nothing", i)
			}
			return nil
		})
		m.set(func() {
			if !slices.Equal(m.gaps, []string{"reset"}) {
				t.Errorf("subscriber %d was told of gaps %q, want one reset", i, m.gaps)
			}
			m.gaps, m.ids = nil, nil
		})
	}
	p = publish(t, c.channels, g)
	p.more(100)
	c.wantAll(p.halt())
}

// What is wrong with the broker at the start is one line and exit status 2.
func TestBadBroker(t *testing.T) {
	locked := redistest.Start(t, "requirepass", "correct")
	for url, want := range map[string]string{
		"redis://" + locked.Addr:                  "NOAUTH",
		"redis://:wrong-one@" + locked.Addr:       "WRONGPASS",
		"redis://127.0.0.1:99999":                 "port",
		"redis+cluster://:correct@" + locked.Addr: "cluster",
	} {
		g := &gateway{t: t, args: []string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "", "--broker", url,
			"--jwt-secret", secret, "--secret-key", secret}}
		g.launch()
		<-g.exited
		text := strings.TrimSpace(g.output.String())
		if code := g.cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(text, want) ||
			strings.Contains(text, "\n") || strings.Contains(text, "wrong-one") {
			t.Errorf("%s: status %d and %q, want 2 and one line with %q", url, code, text, want)
		}
	}
}
