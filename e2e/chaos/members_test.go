package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	longline "github.com/longline-push/longline/client/go"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// crowdSize is how many members there are; slow and stuck are what is wrong with
// them: the first member's handler is slow, and a key's is stuck wherever it is.
const (
	crowdSize = 8
	slow      = 30 * time.Millisecond
	stuck     = "k7"
	crowdKeys = 1000
)

// TestCrowd is a group whose members, each a process with the Go SDK, come and go
// at random: they are told to end, killed, stopped for a while. Then all go and the
// callback takes over; then they return. On Sentinel, masters fail meanwhile. It
// runs on the brokers that are named; without any there are members that come and
// go in TestChaos.
func TestCrowd(t *testing.T) {
	for kind := range strings.SplitSeq(*onFlag, ",") {
		if kind == "" {
			return
		}
		t.Run(kind, func(t *testing.T) {
			seed := *seedFlag
			if seed == 0 {
				seed = uint64(time.Now().UnixNano())
			}
			t.Logf("to repeat: -run Crowd -broker %s -seed %d -for %v -rate %d", kind, seed, *forFlag, *rateFlag)
			crowd(t, kind, seed, *forFlag, *rateFlag)
		})
	}
}

func crowd(t *testing.T, kind string, seed uint64, span time.Duration, rate int) {
	w := newWorld(t, seed, kind)
	w.keys = crowdKeys
	book := w.book("crowd", of("", channels...))
	book.ByKey = true
	r := newReceiver(t, book)
	const window, inFlight = 64, 4
	err := w.insist(t.Context(), "PUT", "/v1/subscriptions/crowd", map[string]any{
		"channels": channels, "window": window, "group": map[string]any{"partitions": 16},
		"callback": callback(r, map[string]any{"grace": "1s", "order": "key", "concurrency": inFlight}),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newCrew(t, w, book)
	publishing, stopPublishing := context.WithCancel(context.Background())
	var publisher sync.WaitGroup
	publisher.Go(func() { w.publish(publishing, rate) })
	defer publisher.Wait()
	defer stopPublishing()

	trouble, endTrouble := context.WithTimeout(t.Context(), span)
	defer endTrouble()
	var all sync.WaitGroup
	for i := range crowdSize {
		all.Go(func() { c.comeAndGo(newDice(trouble, seed, uint64(i)), i, span) })
	}
	if kind == "sentinel" {
		for d := newDice(trouble, seed, crowdSize); trouble.Err() == nil; {
			if d.wait(d.time(5*time.Second, 20*time.Second)); trouble.Err() == nil {
				w.broker.fault(w, d)
			}
		}
	}
	all.Wait()

	w.note("crowd", "all gone")
	before := r.calls.Load()
	deadline := time.Now().Add(time.Minute)
	for r.calls.Load() < before+200 {
		if time.Now().After(deadline) {
			t.Errorf("a minute after all have gone the callback was called %d times", r.calls.Load()-before)
			break
		}
		pause(t.Context(), 10*time.Millisecond)
	}
	w.note("crowd", "all return")
	called := r.calls.Load()
	for i := range crowdSize {
		c.start(i)
	}
	c.awaitAll()
	pause(t.Context(), min(span/4, 10*time.Second))
	stopPublishing()
	publisher.Wait()
	c.unstick()
	w.settle()
	t.Logf("the callback was called %d times, %d of them since they returned; members came and went %d times", r.calls.Load(), r.calls.Load()-called, c.changes())
	if a, most := book.Balance(), c.changes()*(window+inFlight); a.Repeats > most {
		t.Errorf("%d repeats at %d comings and goings, want a window and what is in flight for each at most (%d)", a.Repeats, c.changes(), most)
	}
	c.end()
	w.judge(nil)
}

// crew are the members of the crowd. All of them tell through one pipe, so that
// what is told is in the order in which it happened.
type crew struct {
	w    *world
	book *oracle.Book
	pipe *os.File // what members write to
	told sync.WaitGroup

	mu      sync.Mutex
	members [crowdSize]*exec.Cmd
	waits   [crowdSize]chan struct{} // closed: the process has ended
	stdin   [crowdSize]*os.File
	given   map[int]bool // which have had an event since they started
	count   int          // of comings and goings
}

func newCrew(t *testing.T, w *world, book *oracle.Book) *crew {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{w: w, book: book, pipe: write, given: map[int]bool{}}
	c.told.Go(func() {
		defer read.Close()
		lines := bufio.NewScanner(read)
		lines.Buffer(nil, 64<<10)
		for lines.Scan() {
			c.hear(lines.Bytes())
		}
	})
	t.Cleanup(c.end)
	return c
}

// report is a line that a member writes.
type report struct {
	By          string
	Done        string // the event's id, once it is handled
	ID, Type    string
	Key, Cursor string
	Again       bool
	From, To    string // of a gap
}

func (c *crew) hear(line []byte) {
	var r report
	if err := json.Unmarshal(line, &r); err != nil {
		c.book.Break("a member wrote %q: %v", line, err)
		return
	}
	switch {
	case r.Done != "":
		c.book.Done(r.Done)
	case r.ID == "":
		c.book.Gap(r.From, r.To)
	default:
		at, err := event.ParseCursor(r.Cursor)
		if err != nil {
			c.book.Break("the SDK's event: %v", err)
			return
		}
		c.book.Given(oracle.Delivery{ID: r.ID, Type: r.Type, Key: r.Key, Cursor: at, By: r.By, Announced: r.Again})
		var i int
		if _, err := fmt.Sscanf(r.By, "m%d", &i); err == nil {
			c.mu.Lock()
			c.given[i] = true
			c.mu.Unlock()
		}
	}
}

func (c *crew) start(i int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stdin, hold, err := os.Pipe()
	if err != nil {
		c.w.t.Error(err)
		return
	}
	defer stdin.Close()
	c.count++
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crowdEnv+"="+strconv.Itoa(i), crowdEnv+"_URL=http://"+c.w.front.Addr, crowdEnv+"_TOKEN="+adminToken())
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, c.pipe, os.Stderr
	if err := cmd.Start(); err != nil {
		c.w.t.Error(err)
		_ = hold.Close()
		return
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	delete(c.given, i)
	c.members[i], c.waits[i], c.stdin[i] = cmd, ended, hold
}

// stop ends a member by a signal, if it is there.
func (c *crew) stop(i int, by syscall.Signal) {
	c.mu.Lock()
	cmd, ended := c.members[i], c.waits[i]
	if cmd == nil {
		c.mu.Unlock()
		return
	}
	c.members[i] = nil
	_ = c.stdin[i].Close()
	c.count++
	c.mu.Unlock()
	_ = cmd.Process.Signal(by)
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
		c.w.t.Errorf("member %d did not end within 15 s of %v", i, by)
	}
}

// comeAndGo has one member come and go until time is over, and leave.
func (c *crew) comeAndGo(d *dice, i int, span time.Duration) {
	for d.ctx.Err() == nil {
		c.start(i)
		d.wait(d.time(span/30, span/4))
		if d.ctx.Err() != nil {
			break
		}
		switch d.below(3) {
		case 0:
			c.w.fault("crowd", "a member ends")
			c.stop(i, syscall.SIGTERM)
		case 1:
			c.w.fault("crowd", "a member is killed")
			c.stop(i, syscall.SIGKILL)
		default:
			c.w.fault("crowd", "a member stands still")
			c.mu.Lock()
			process := c.members[i].Process
			c.mu.Unlock()
			_ = process.Signal(syscall.SIGSTOP)
			d.wait(min(15*time.Second, span/3))
			_ = process.Signal(syscall.SIGCONT)
			d.wait(d.time(span/30, span/10))
			c.stop(i, syscall.SIGTERM)
		}
		d.wait(d.time(0, span/20))
	}
	c.stop(i, []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL}[i%2])
}

// awaitAll waits until each member was given an event.
func (c *crew) awaitAll() {
	for deadline := time.Now().Add(time.Minute); ; pause(c.w.t.Context(), 20*time.Millisecond) {
		c.mu.Lock()
		n := len(c.given)
		c.mu.Unlock()
		if n == crowdSize {
			return
		}
		if time.Now().After(deadline) {
			c.w.t.Errorf("a minute after they returned %d of %d members have been given an event", n, crowdSize)
			return
		}
	}
}

// unstick has the stuck key's events handled.
func (c *crew) unstick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, cmd := range c.members {
		if cmd != nil {
			_, _ = c.stdin[i].WriteString("go on\n")
		}
	}
}

func (c *crew) changes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.count
}

// end ends all members, and what they told is heard to its end.
func (c *crew) end() {
	var all sync.WaitGroup
	for i := range crowdSize {
		all.Go(func() { c.stop(i, syscall.SIGTERM) })
	}
	all.Wait()
	_ = c.pipe.Close()
	c.told.Wait()
}

// crowdEnv, in the environment, makes this binary a member.
const crowdEnv = "LONGLINE_CROWD"

// beMember is what a member's process does.
func beMember() {
	name := "m" + os.Getenv(crowdEnv)
	by := fmt.Sprintf("%s#%d", name, os.Getpid())
	var mu sync.Mutex
	tell := func(r report) {
		r.By = by
		line, _ := json.Marshal(r)
		mu.Lock()
		defer mu.Unlock()
		_, _ = os.Stdout.Write(append(line, '\n')) // below PIPE_BUF, so that it is whole
	}
	goOn := make(chan struct{})
	go func() {
		if line, _ := bufio.NewReader(os.Stdin).ReadString('\n'); line != "" {
			close(goOn)
		}
	}()
	client, err := longline.New(os.Getenv(crowdEnv+"_URL"), longline.Options{Token: os.Getenv(crowdEnv + "_TOKEN"), Logger: slog.New(slog.DiscardHandler),
		MinBackoff: 50 * time.Millisecond, MaxBackoff: time.Second})
	if err != nil {
		panic(err)
	}
	sub, err := client.Attach("crowd", longline.SubscriptionOptions{
		Consumer: name, Concurrency: 4, Grace: time.Second, Remember: 1,
		OnGap: func(g longline.Gap) { tell(report{From: g.From, To: g.To}) },
		Handler: func(ctx context.Context, e longline.Event) error {
			d := longline.DeliveryOf(ctx)
			tell(report{ID: e.ID, Type: e.Type, Key: e.Key, Cursor: e.Cursor, Again: d.Redelivered || d.Attempt > 1})
			if name == "m0" {
				pause(ctx, slow)
			}
			if e.Key == stuck {
				select {
				case <-goOn:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			tell(report{Done: e.ID})
			return nil
		},
	})
	if err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := sub.Run(ctx); ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, name, "gave up:", err)
		os.Exit(1)
	}
}
