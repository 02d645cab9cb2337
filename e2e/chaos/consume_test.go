package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/internal/oracle"
)

// message is whatever a line brings.
type message struct {
	Op, Reason, From, To, Code string
	SpecVersion, ID, Type      string
	PartitionKey, Cursor       string
	Reconnect                  *bool
	Data                       struct {
		N     int
		Begun int64
	}
}

func (m *message) UnmarshalJSON(b []byte) error {
	type plain message
	var p struct {
		*plain
		Code json.RawMessage // a number in bye, a word in error
	}
	p.plain = (*plain)(m)
	err := json.Unmarshal(b, &p)
	m.Code = strings.Trim(string(p.Code), `"`)
	return err
}

// line is one connection of a consumer, as its book sees it.
type line struct {
	book      *oracle.Book
	by        string
	since     time.Time
	announced map[string]event.Cursor // the furthest by its offset, by channel
	told      string                  // hello's position, and what is announced
}

// control takes what isn't an event, and an error where the line is over.
func (l *line) control(op string, m *message) error {
	switch op {
	case "hello":
		l.since, l.told = time.Now(), "hello "+m.Cursor
	case "redelivery":
		l.told += ", redelivery " + m.Cursor
		p, err := event.ParsePosition(m.Cursor)
		if err != nil {
			l.book.Break("redelivery: %v", err)
		}
		for _, c := range p {
			if had, ok := l.announced[c.Channel]; !ok || had.Offset < c.Offset {
				l.announced[c.Channel] = c
			}
		}
	case "gap":
		l.told += ", gap " + m.From + " " + m.To
		l.book.Gap(m.From, m.To)
	case "bye":
		return fmt.Errorf("bye %s %s", m.Code, m.Reason)
	}
	return nil
}

// take notes an event and returns its cursor.
func (l *line) take(m *message) event.Cursor {
	c, err := event.ParseCursor(m.Cursor)
	if err != nil {
		l.book.Break("an event: %v", err)
		return c
	}
	l.book.Given(oracle.Delivery{ID: m.ID, Type: m.Type, Key: m.PartitionKey, Cursor: c, By: l.by, Since: l.since,
		Announced: announces(l.announced[c.Channel], c), Told: l.told})
	return c
}

// announces tells whether an announcement up to a cursor is of the event at
// another, of the same channel; the zero cursor announces none. A log that is
// forked keeps its offsets, so that they tell without the epoch.
func announces(upTo, at event.Cursor) bool { return at.Offset <= upTo.Offset }

// again runs one connection after another until ctx ends, each for a while.
func (w *world) again(ctx context.Context, life time.Duration, one func(ctx context.Context, number int) error) {
	for n := 0; ctx.Err() == nil; n++ {
		span := life
		if life > 0 {
			span = life/4 + time.Duration(w.random(int(life)))
		} else {
			span = time.Hour
		}
		live, end := context.WithTimeout(ctx, span)
		err := one(live, n)
		end()
		if err != nil {
			pause(ctx, 50*time.Millisecond+time.Duration(w.random(int(200*time.Millisecond))))
		}
	}
}

// socket is a WebSocket consumer for as long as one connection lives. It
// acknowledges every few events, and is slow now and then.
func (w *world) socket(ctx context.Context, book *oracle.Book, consumer string, number int) error {
	dial, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	q := url.Values{"subscription": {book.Name}, "consumer": {consumer}, "access_token": {adminToken()}}
	c, _, err := websocket.Dial(dial, "ws://"+w.front.Addr+"/v1/ws?"+q.Encode(), &websocket.DialOptions{Subprotocols: []string{"longline.v1"}})
	if err != nil {
		return err
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	l := &line{book: book, by: fmt.Sprintf("%s#%d", consumer, number), announced: map[string]event.Cursor{}}
	acks := acknowledge(ctx, time.Duration(w.random(int(100*time.Millisecond))), func(ctx context.Context, cursor event.Cursor) error {
		return c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"op":"ack","cursor":%q}`, cursor))
	})
	defer acks.end()
	for {
		_, text, err := c.Read(ctx)
		if err != nil {
			return err
		}
		var m message
		if err := json.Unmarshal(text, &m); err != nil {
			book.Break("not JSON: %s", text)
			return err
		}
		if m.SpecVersion == "" {
			if m.Op == "error" && m.Code != "conflict" && m.Code != "unavailable" && !book.Moved { // an ack may cross a seek
				book.Break("%s was told %s", l.by, text)
			}
			if err := l.control(m.Op, &m); err != nil {
				return err
			}
			continue
		}
		at := l.take(&m)
		book.Done(m.ID)
		if w.random(2000) == 0 {
			pause(ctx, time.Duration(w.random(int(2*time.Second))))
		}
		acks.of(at)
	}
}

// acks acknowledges what it is given, after a while, all of a channel at once.
type acks struct {
	mu    sync.Mutex
	due   []event.Cursor // the last of each channel, in the order of coming
	stop  context.CancelFunc
	ended chan struct{}
}

func acknowledge(ctx context.Context, every time.Duration, send func(context.Context, event.Cursor) error) *acks {
	ctx, stop := context.WithCancel(ctx)
	a := &acks{stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(a.ended)
		for ctx.Err() == nil {
			pause(ctx, every+time.Millisecond)
			a.mu.Lock()
			due := a.due
			a.due = nil
			a.mu.Unlock()
			for _, c := range due {
				if send(ctx, c) != nil {
					return
				}
			}
		}
	}()
	return a
}

func (a *acks) of(c event.Cursor) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.due = append(slices.DeleteFunc(a.due, func(d event.Cursor) bool { return d.Channel == c.Channel }), c)
}

func (a *acks) end() { a.stop(); <-a.ended }

// stream is an SSE consumer for as long as one connection lives: it
// acknowledges by POST if manual, else by coming back with last.
func (w *world) stream(ctx context.Context, book *oracle.Book, manual bool, number int, last *string) error {
	q := url.Values{"subscription": {book.Name}, "consumer": {"stream"}, "window": {"64"}}
	if manual {
		q.Set("ack", "manual")
	}
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+w.front.Addr+"/v1/sse?"+q.Encode(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+adminToken())
	r.Header.Set("Accept", "text/event-stream, application/problem+json")
	if *last != "" && !manual {
		r.Header.Set("Last-Event-ID", *last)
	}
	resp, err := w.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &refusal{status: resp.StatusCode}
	}
	l := &line{book: book, by: fmt.Sprintf("stream#%d", number), announced: map[string]event.Cursor{}}
	acks := acknowledge(ctx, 50*time.Millisecond, func(ctx context.Context, c event.Cursor) error {
		// A POST that fails is made again: what it would say is still so.
		for manual && ctx.Err() == nil {
			if w.do(ctx, 4*time.Second, "POST", "/v1/subscriptions/"+book.Name+"/ack", map[string]string{"cursor": c.String()}, nil) == nil {
				book.Acked(c)
				break
			}
			pause(ctx, 100*time.Millisecond)
		}
		return nil
	})
	defer acks.end()
	kind, id, data := "", "", ""
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "event":
			kind = strings.TrimPrefix(value, "longline.")
		case "data":
			data = value
		}
		if lines.Text() != "" {
			continue // what a cut line leaves is not a message
		}
		var m message
		if data != "" {
			if err := json.Unmarshal([]byte(data), &m); err != nil {
				book.Break("not JSON: %s", data)
				return err
			}
		}
		switch {
		case data == "":
		case kind != "":
			if l.control(kind, &m) != nil {
				return nil // an end of the window is this one's way to acknowledge
			}
		default:
			acks.of(l.take(&m))
			book.Done(m.ID)
		}
		if id != "" {
			*last = id
		}
		kind, id, data = "", "", ""
	}
	return lines.Err()
}

// pull pulls until ctx ends or it is refused.
func (w *world) pull(ctx context.Context, book *oracle.Book, number int) error {
	for ack := ""; ; {
		var out struct {
			Events []message
			Cursor string
			Gaps   []struct{ From, To string }
		}
		q := url.Values{"max": {"50"}, "wait": {"2s"}, "consumer": {"puller"}, "hold": {"5s"}}
		if ack != "" {
			q.Set("ack", ack)
		}
		if err := w.ask(ctx, 8*time.Second, "http://"+w.front.Addr, "GET", "/v1/subscriptions/"+book.Name+"/events?"+q.Encode(), nil, &out); err != nil {
			return err
		}
		if ack != "" {
			p, err := event.ParsePosition(ack)
			if err != nil {
				book.Break("pull's cursor: %v", err)
			}
			for _, c := range p {
				book.Acked(c)
			}
		}
		for _, g := range out.Gaps {
			book.Gap(g.From, g.To)
		}
		for _, m := range out.Events {
			c, err := event.ParseCursor(m.Cursor)
			if err != nil {
				book.Break("pull: %v", err)
				return err
			}
			// What a puller doesn't acknowledge comes again: that needs no word.
			book.Given(oracle.Delivery{ID: m.ID, Type: m.Type, Key: m.PartitionKey, Cursor: c, By: fmt.Sprintf("pull#%d", number), Announced: true})
			book.Done(m.ID)
		}
		ack = out.Cursor
	}
}
