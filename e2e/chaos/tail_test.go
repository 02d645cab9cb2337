package chaos

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/internal/oracle"
)

// tail is an ephemeral consumer of all channels. Its place is its own: between
// one event and the next of a channel there is nothing but gaps that were told.
type tail struct {
	name  string
	world *oracle.World

	mu     sync.Mutex
	at     map[string]event.Cursor
	got    int
	gaps   int
	broken []string

	token   string               // of its present connection
	revoked map[string]time.Time // when the gateway answered, by jti
}

func newTail(w *oracle.World, name string) *tail {
	return &tail{name: name, world: w, at: map[string]event.Cursor{}, token: tailToken(name), revoked: map[string]time.Time{}}
}

func tailToken(name string) string {
	return mint(auth.Mintage{Subject: name, Subscribe: channels})
}

// jti is a token's.
func jti(token string) string {
	var claims struct{ JTI string }
	text, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.JTI == "" {
		panic("a token of ours has no jti")
	}
	return claims.JTI
}

func (s *tail) breakLocked(format string, args ...any) {
	s.broken = append(s.broken, s.name+": "+fmt.Sprintf(format, args...))
}

// since is where it goes on: its position, over all channels it has seen.
func (s *tail) since() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var p event.Position
	for _, name := range channels {
		if c, ok := s.at[name]; ok {
			p = append(p, c)
		}
	}
	return p.String()
}

// follow follows for as long as one connection lives.
func (w *world) follow(ctx context.Context, s *tail, number int) error {
	s.mu.Lock()
	token := s.token
	s.mu.Unlock()
	dial, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	q := url.Values{"channel": channels, "access_token": {token}}
	if at := s.since(); at != "" {
		q.Set("since", at)
	}
	c, _, err := websocket.Dial(dial, "ws://"+w.front.Addr+"/v1/ws?"+q.Encode(), &websocket.DialOptions{Subprotocols: []string{"longline.v1"}})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	for {
		_, text, err := c.Read(ctx)
		if err != nil {
			return err
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		switch {
		case m.SpecVersion != "":
			s.take(&m, token)
		case m.Op == "hello":
			s.begin(m.Cursor)
		case m.Op == "gap":
			s.gap(m.From, m.To)
		case m.Op == "bye":
			if m.Code == "4401" {
				s.mu.Lock()
				if s.token == token {
					s.token = tailToken(s.name)
				}
				s.mu.Unlock()
			}
			return fmt.Errorf("bye %s", m.Code)
		}
	}
}

// begin takes the places of channels that it has none in yet.
func (s *tail) begin(position string) {
	p, err := event.ParsePosition(position)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.breakLocked("hello: %v", err)
		return
	}
	for _, c := range p {
		had, ok := s.at[c.Channel]
		if !ok || had.Offset == c.Offset {
			s.at[c.Channel] = c // the same place in a new epoch is said by its cursor
		}
	}
}

func (s *tail) gap(from, to string) {
	f, err := event.ParseCursor(from)
	t, err2 := event.ParseCursor(to)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || err2 != nil {
		s.breakLocked("gap from %q to %q", from, to)
		return
	}
	s.gaps++
	if f.Epoch != t.Epoch {
		s.world.Forgot(f, t)
	}
	if had, ok := s.at[f.Channel]; ok && f.Epoch == had.Epoch && f.Offset > had.Offset {
		s.breakLocked("a gap after %s, though it was at %s", f, had)
	}
	s.at[f.Channel] = t
}

func (s *tail) take(m *message, token string) {
	c, err := event.ParseCursor(m.Cursor)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.breakLocked("an event: %v", err)
		return
	}
	if had, ok := s.at[c.Channel]; ok && c.Offset != had.Offset+1 {
		s.breakLocked("%s came after %s", c, had)
	}
	s.at[c.Channel] = c
	s.got++
	if at, ok := s.revoked[jti(token)]; ok && time.UnixMicro(m.Data.Begun).After(at.Add(2500*time.Millisecond)) {
		s.breakLocked("%s, published %v after its token was revoked", c, time.UnixMicro(m.Data.Begun).Sub(at))
	}
}

// revoke has its token revoked.
func (w *world) revoke(ctx context.Context, s *tail) error {
	s.mu.Lock()
	id := jti(s.token)
	s.mu.Unlock()
	if err := w.insist(ctx, "POST", "/v1/tokens/revoke", map[string]string{"jti": id}, nil); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revoked[id] = time.Now()
	return nil
}
