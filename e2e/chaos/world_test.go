package chaos

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/longline-push/longline/gateway/auth"
	"github.com/longline-push/longline/internal/oracle"
	"github.com/longline-push/longline/internal/process"
)

// world is everything that runs: gateways on a broker, behind one way in;
// publishers, consumers of every kind and the endpoints of callbacks.
type world struct {
	t        testing.TB
	gateways []*process.Gateway
	admins   []string      // the addresses of their metrics
	front    *process.Link // to any gateway that is there
	broker   broker
	client   *http.Client
	logs     string // directory of what the gateways say
	events   *oracle.World
	books    []*oracle.Book
	replays  replays
	keys     int // how many are published

	mu     sync.Mutex
	rng    *rand.Rand
	diary  bytes.Buffer
	faults map[string]int
}

const admin = "chaos"

func newWorld(t testing.TB, seed uint64, kind string) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "chaos")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, logs: dir, events: &oracle.World{}, keys: 50, faults: map[string]int{}, replays: replays{books: map[string]*oracle.Book{}},
		rng: rand.New(rand.NewPCG(seed, 0)), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}}
	t.Cleanup(w.client.CloseIdleConnections)
	w.broker = newBroker(t, kind)
	for i := range w.broker.nodes() {
		log, err := os.Create(w.log(i))
		if err != nil {
			t.Fatal(err)
		}
		admin, err := freeAddress()
		if err != nil {
			t.Fatal(err)
		}
		g, err := process.New(binary, log, "--admin-listen", admin, "--node", fmt.Sprintf("node-%d", i), "--broker", w.broker.url(i), "--callback-allow-cidr", "127.0.0.0/8",
			"--drain", "3s", "--log-level", "debug")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.Kill(); _ = log.Close() })
		g.Files = files
		w.gateways, w.admins = append(w.gateways, g), append(w.admins, admin)
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if w.front, err = process.NewLink(w.pick); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.front.Close)
	return w
}

// log is the file of what a gateway says.
func (w *world) log(i int) string { return filepath.Join(w.logs, fmt.Sprintf("gateway-%d.log", i)) }

// freeAddress is one of this machine's that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// pick names a gateway, which may be dead.
func (w *world) pick() string { return w.gateways[w.random(len(w.gateways))].Addr }

func (w *world) random(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// note writes into the diary of faults.
func (w *world) note(who, format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fmt.Fprintf(&w.diary, "%s %s: %s\n", time.Now().UTC().Format("15:04:05.000"), who, fmt.Sprintf(format, args...))
}

// fault counts one, and notes it.
func (w *world) fault(who, what string, args ...any) {
	w.note(who, what, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[who+": "+verbs.ReplaceAllString(what, "…")]++
}

// verbs are those of a format.
var verbs = regexp.MustCompile(`%(\[\d\])?[a-z]`)

// book opens one on a new subscription.
func (w *world) book(name string, matches func(oracle.Published) bool) *oracle.Book {
	b := oracle.NewBook(w.events, name, matches)
	b.Forgetful = w.broker.forgetful()
	w.books = append(w.books, b)
	return b
}

// mint makes a token.
func mint(m auth.Mintage) string {
	m.TTL = 4 * time.Hour
	text, err := auth.Mint([]byte(process.Secret), m, time.Now().Add(-time.Hour)) // a gateway's clock may be behind
	if err != nil {
		panic(err)
	}
	return text
}

var adminToken = sync.OnceValue(func() string { return mint(auth.Mintage{Subject: admin, Admin: true}) })

// refusal is an answer that isn't 2xx.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d %s", r.status, r.text) }

// status is the status of an answer that wasn't 2xx; 0 for none.
func status(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.status
	}
	return 0
}

// do asks one gateway, whichever it is, within a time.
func (w *world) do(ctx context.Context, within time.Duration, method, path string, in, out any) error {
	return w.ask(ctx, within, "http://"+w.pick(), method, path, in, out)
}

func (w *world) ask(ctx context.Context, within time.Duration, base, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+adminToken())
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return &refusal{resp.StatusCode, string(text)}
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *string:
		*out = string(text)
		return nil
	}
	return json.Unmarshal(text, out)
}

// insist asks again and again until it is answered, or refused for good.
func (w *world) insist(ctx context.Context, method, path string, in, out any) error {
	for {
		err := w.do(ctx, 5*time.Second, method, path, in, out)
		if s := status(err); err == nil || ctx.Err() != nil || s/100 == 4 && s != http.StatusTooManyRequests && s != http.StatusConflict {
			return err
		}
		pause(ctx, 100*time.Millisecond)
	}
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
