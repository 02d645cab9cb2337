// Package feedtest is a log in memory whose faults a test chooses: lost
// announcements, an absent broker, forks, trimming.
package feedtest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
)

// Log implements what feeds and sessions need of a broker. Its methods may be
// called by any goroutine.
type Log struct {
	mu       sync.Mutex
	channels map[string]*channel
	silent   bool
	err      error
	epochs   int
	reads    int
	looks    int
	look     time.Duration
	held     chan struct{} // closed once reads may return
}

type channel struct {
	state     broker.State
	items     []broker.Item
	followers []broker.Follower
}

// New returns an empty log.
func New() *Log { return &Log{channels: make(map[string]*channel)} }

// Silence makes announcements get lost, or not.
func (l *Log) Silence(silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent = silent
}

// Fail makes every call fail with err, until Fail(nil).
func (l *Log) Fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// Looks returns how often a log was asked for its state.
func (l *Log) Looks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.looks
}

// Slow makes asking for a log's state take so long.
func (l *Log) Slow(look time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.look = look
}

// Hold makes reads return only once release is called, with what they found
// when they were made.
func (l *Log) Hold() (release func()) {
	held := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	return func() {
		l.mu.Lock()
		l.held = nil
		l.mu.Unlock()
		close(held)
	}
}

// Damage makes the stored event at offset unreadable.
func (l *Log) Damage(name string, offset uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	items := l.channels[name].items
	for i := range items {
		if items[i].Offset == offset {
			items[i].Data = []byte("damaged")
		}
	}
}

// Reads returns how often a log was read.
func (l *Log) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

func (l *Log) channelLocked(name string) *channel {
	c := l.channels[name]
	if c == nil {
		l.epochs++
		c = &channel{state: broker.State{Epoch: fmt.Sprintf("e%d", l.epochs), First: 1}}
		l.channels[name] = c
	}
	return c
}

// Append adds events of type typ and key key with these data, JSON each, and
// announces them. It returns the cursor of the last.
func (l *Log) Append(name, typ, key string, data ...string) string {
	l.mu.Lock()
	c := l.channelLocked(name)
	from := len(c.items)
	for _, d := range data {
		c.state.Head++
		f := event.Fields{ID: fmt.Sprint(c.state.Head), Source: "/test", Type: typ, Key: key, Data: []byte(d)}
		c.items = append(c.items, broker.Item{Offset: c.state.Head, Time: time.Now(), Data: f.AppendStored(nil)})
	}
	a := broker.Announcement{Epoch: c.state.Epoch, Items: c.items[from:], Head: c.state.Head}
	followers := c.followers
	if l.silent {
		followers = nil
	}
	cursor := event.Cursor{Channel: name, Epoch: c.state.Epoch, Offset: c.state.Head}
	l.mu.Unlock()
	for _, f := range followers {
		f.Announce(a)
	}
	return cursor.String()
}

// Hint announces that something may have happened.
func (l *Log) Hint(name string) {
	l.mu.Lock()
	followers := l.channelLocked(name).followers
	l.mu.Unlock()
	for _, f := range followers {
		f.Announce(broker.Announcement{})
	}
}

// Trim removes the events before offset first.
func (l *Log) Trim(name string, first uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.channelLocked(name)
	for len(c.items) > 0 && c.items[0].Offset < first {
		c.items = c.items[1:]
	}
	c.state.First = first
}

// Fork forgets the events after offset head and begins a new epoch there, as
// a failover does.
func (l *Log) Fork(name string, head uint64) {
	l.mu.Lock()
	c := l.channelLocked(name)
	for len(c.items) > 0 && c.items[len(c.items)-1].Offset > head {
		c.items = c.items[:len(c.items)-1]
	}
	c.state.Forks = append(c.state.Forks, broker.Fork{Epoch: c.state.Epoch, Head: head})
	l.epochs++
	c.state.Epoch, c.state.Head = fmt.Sprintf("e%d", l.epochs), head
	l.mu.Unlock()
	l.Hint(name)
}

// Drop removes the log.
func (l *Log) Drop(name string) {
	l.mu.Lock()
	followers := l.channelLocked(name).followers
	delete(l.channels, name)
	l.mu.Unlock()
	for _, f := range followers {
		f.Announce(broker.Announcement{})
	}
}

// Followers returns how many follow a channel.
func (l *Log) Followers(name string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.channels[name]; c != nil {
		return len(c.followers)
	}
	return 0
}

// Follow implements broker.Tail.
func (l *Log) Follow(_ context.Context, name string, f broker.Follower) (broker.State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return broker.State{}, l.err
	}
	c := l.channelLocked(name)
	c.followers = append(c.followers[:len(c.followers):len(c.followers)], f)
	return c.state, nil
}

// Unfollow implements broker.Tail.
func (l *Log) Unfollow(name string, f broker.Follower) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.channels[name]
	if c == nil {
		return
	}
	var left []broker.Follower
	for _, other := range c.followers {
		if other != f {
			left = append(left, other)
		}
	}
	c.followers = left
}

// State implements broker.Log.
func (l *Log) State(_ context.Context, name string) (broker.State, error) {
	l.mu.Lock()
	look := l.look
	l.mu.Unlock()
	if look > 0 {
		time.Sleep(look)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.looks++
	c := l.channels[name]
	if l.err != nil || c == nil {
		return broker.State{}, l.errorLocked()
	}
	return c.state, nil
}

// Read implements broker.Log.
func (l *Log) Read(ctx context.Context, name string, offset uint64, limit broker.Limit) (broker.Page, error) {
	page, held, err := l.read(name, offset, limit)
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return broker.Page{}, ctx.Err()
		}
	}
	return page, err
}

func (l *Log) read(name string, offset uint64, limit broker.Limit) (broker.Page, chan struct{}, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	c := l.channels[name]
	if l.err != nil || c == nil {
		return broker.Page{}, nil, l.errorLocked()
	}
	limit = limit.WithDefaults()
	p := broker.Page{State: c.state}
	for _, item := range c.items {
		if item.Offset > offset && len(p.Items) < limit.Events && limit.Bytes > 0 {
			p.Items = append(p.Items, item)
			limit.Bytes -= len(item.Data)
		}
	}
	return p, l.held, nil
}

// OffsetAt implements broker.Log.
func (l *Log) OffsetAt(_ context.Context, name string, t time.Time) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.channels[name]
	if l.err != nil || c == nil {
		return 0, l.errorLocked()
	}
	at := c.state.First - 1
	for _, item := range c.items {
		if item.Time.Before(t) {
			at = item.Offset
		}
	}
	return at, nil
}

func (l *Log) errorLocked() error {
	if l.err != nil {
		return l.err
	}
	return broker.ErrNotFound
}
