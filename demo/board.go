package demo

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/longline-push/longline/loadtest/probe"
)

const (
	every = 500 * time.Millisecond // a look at everything
	kept  = 240                    // looks that a page begins with: two minutes
	notes = 12
)

// Look is what the page shows of one moment.
type Look struct {
	Seconds   float64 `json:"seconds"` // since the beginning
	Mailshot  int     `json:"mailshot"`
	Emitted   uint64  `json:"emitted"`   // events that happened
	Published uint64  `json:"published"` // that the gateway has answered for
	Rate      float64 `json:"rate"`      // events a second, of late

	Webhooks Account `json:"webhooks"`
	Longline Account `json:"longline"`
	Holder   Holder  `json:"holder"`
	Gateway  Gateway `json:"gateway"`

	Plugged bool   `json:"plugged"`
	Second  bool   `json:"second"`
	Broken  bool   `json:"broken"`
	Notes   []Note `json:"notes"` // newest first
}

// Holder is who has the CRM's events now, as the gateway tells.
type Holder struct {
	State   string   `json:"state"` // of the subscription; "" if the gateway doesn't answer
	Members []Member `json:"members"`
	Breaker string   `json:"breaker"`
	Status  int      `json:"status"` // of the callback's last answer
	Dead    int      `json:"dead"`
}

// Member is a worker of the group.
type Member struct {
	Consumer   string `json:"consumer"`
	Transport  string `json:"transport"`
	Partitions []int  `json:"partitions"`
}

// Gateway is the child process.
type Gateway struct {
	Up      bool   `json:"up"`
	PID     int    `json:"pid"`
	Starts  int    `json:"starts"`
	Console string `json:"console"`
}

// Note is something that was done or came of it.
type Note struct {
	Seconds float64 `json:"seconds"`
	Text    string  `json:"text"`
}

// board is where looks are kept, and told to pages. Safe for concurrent use.
type board struct {
	began time.Time

	mu      sync.Mutex
	looks   []Look
	notes   []Note
	changed chan struct{} // closed with the next look
}

func newBoard() *board {
	return &board{began: time.Now(), changed: make(chan struct{})}
}

func (b *board) note(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notes = append([]Note{{time.Since(b.began).Seconds(), text}}, b.notes[:min(len(b.notes), notes-1)]...)
}

func (b *board) add(l Look) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.Notes = b.notes
	b.looks = append(b.looks[max(0, len(b.looks)+1-kept):], l)
	close(b.changed)
	b.changed = make(chan struct{})
}

// since returns the looks after the one at seconds, and what is closed when
// there are more.
func (b *board) since(seconds float64) ([]Look, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, l := range b.looks {
		if l.Seconds > seconds {
			return b.looks[i:len(b.looks):len(b.looks)], b.changed
		}
	}
	return nil, b.changed
}

// watch looks at everything, again and again.
func (d *Demo) watch(ctx context.Context) {
	t := time.NewTicker(every)
	defer t.Stop()
	var last Look
	for n := 0; ; n++ {
		look := d.look(ctx, n%4 == 0)
		d.tell(last.Holder.State, look.Holder.State)
		look.Rate = last.Rate
		if span := look.Seconds - last.Seconds; span > 0 {
			look.Rate = 0.8*last.Rate + 0.2*float64(look.Emitted-last.Emitted)/span
		}
		d.board.add(look)
		last = look
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// tell notes who has come to hold the line.
func (d *Demo) tell(before, state string) {
	if state == before {
		return
	}
	switch state {
	case "live":
		d.board.note("A worker holds the line.")
	case "waiting":
		if before == "live" {
			d.board.note("Nobody holds the line: the callback takes over after the grace.")
		}
	case "callback":
		d.board.note("The callback has taken over.")
	}
}

// look asks the gateway first, then the CRM: whatever the gateway takes for
// done then, the CRM has processed before, or it is lost.
func (d *Demo) look(ctx context.Context, delays bool) Look {
	var l Look
	l.Holder, l.Gateway.Up = d.ask(ctx)
	if delays {
		d.longline.renew()
		d.webhooks.renew()
	}
	at := time.Since(d.board.began)
	l.Seconds, l.Mailshot = at.Seconds(), mailshot(at)
	l.Emitted, l.Published = d.campaign.counts()
	l.Longline = d.longline.account(l.Emitted, d.campaign)
	l.Webhooks = d.webhooks.account(l.Emitted, d.campaign)
	l.Plugged, l.Second = d.crew.state()
	l.Broken = d.receiver.broken.Load()
	l.Gateway.PID, l.Gateway.Starts = int(d.pid.Load()), int(d.starts.Load())
	l.Gateway.Console = d.console
	return l
}

// ask has the gateway tell who holds the subscription and how far it is: what
// is before that and wasn't processed will never be.
func (d *Demo) ask(ctx context.Context) (h Holder, up bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var answer struct {
		Cursor string
		Status struct {
			State    string
			Members  []Member
			Callback struct {
				Breaker    string
				LastStatus int `json:"last_status"`
			}
		}
	}
	if err := d.client.Do(ctx, http.MethodGet, "/v1/subscriptions/"+subscription, nil, &answer); err != nil {
		return h, false
	}
	if _, offset, ok := probe.SplitCursor([]byte(answer.Cursor)); ok {
		for done := d.campaign.upTo(offset); d.settled < done; {
			d.settled++
			d.longline.api.GiveUp(d.settled) // nothing, for those that were processed
		}
	}
	s := answer.Status
	return Holder{State: s.State, Members: s.Members, Breaker: s.Callback.Breaker, Status: s.Callback.LastStatus}, true
}
