package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/longline-push/longline/broker"
	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/cursor"
	"github.com/longline-push/longline/gateway/feed"
	"github.com/longline-push/longline/gateway/stats"
)

// NodesChannel is where each node sends itself an event every few seconds, to
// see that what is published arrives. By the same events nodes know of each
// other and of what each did lately, and they tell each other there which
// connection to close and which node to drain, and ask for their connections. Its retention should be short.
const NodesChannel = "longline.nodes"

// The types of its events.
const (
	typeProbe = "longline.node.probe"
	typeClose = "longline.node.close"
	typeDrain = "longline.node.drain"

	typeAsk    = "longline.node.connections"
	typeAnswer = "longline.node.connections.listed"
)

// nodeInfo is what a node says of itself with each probe.
type nodeInfo struct {
	Node        string    `json:"node"`
	Version     string    `json:"version,omitempty"`
	Started     time.Time `json:"started"`
	Seen        time.Time `json:"seen"`
	Connections int       `json:"connections"`
	Draining    bool      `json:"draining"`
}

// told is a probe's data.
type told struct {
	nodeInfo
	Totals stats.Totals `json:"totals,omitzero"` // not of every probe
}

// probe is the node's own subscriber on NodesChannel.
type probe struct {
	server *Server
	wake   chan struct{}
	summed time.Time // when totals were told last; only run's

	mu    sync.Mutex
	err   error // why the node isn't ready, or nil
	seen  map[string]nodeInfo
	asked map[string]chan<- listed // who waits for the answer to a question, by its ID
}

func newProbe(s *Server) *probe {
	return &probe{
		server: s, wake: make(chan struct{}, 1), seen: make(map[string]nodeInfo), asked: make(map[string]chan<- listed),
		err: errors.New("the node has not seen an event of its own yet"),
	}
}

// Mark implements feed.Member. It is not a session: it is woken here, and
// never goes on the ready list.
func (p *probe) Mark() bool {
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return false
}

func (p *probe) result() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

func (p *probe) set(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (err == nil) != (p.err == nil) {
		if err == nil {
			p.server.o.Logger.Info("node is ready")
		} else {
			p.server.o.Logger.Warn("node is not ready", "error", err)
		}
	}
	p.err = err
}

// run probes until ctx ends.
func (p *probe) run(ctx context.Context) {
	tick := time.NewTicker(p.server.o.ProbeEvery)
	defer tick.Stop()
	var r *cursor.Reader
	defer func() {
		if r != nil {
			r.Leave(p)
			r.Close()
		}
	}()
	for {
		if r == nil {
			r = p.open(ctx)
		}
		if r != nil {
			p.set(p.once(ctx, r))
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				waiting = false
			case <-p.wake:
				if r != nil {
					p.take(ctx, r, "")
				}
			}
		}
	}
}

func (p *probe) open(ctx context.Context) *cursor.Reader {
	ctx, cancel := context.WithTimeout(ctx, p.server.o.ProbeEvery)
	defer cancel()
	r, _, err := cursor.Open(ctx, p.server.o.Hub.Feeds(), NodesChannel, nil, cursor.Since{}, nil)
	if err != nil {
		p.server.o.Logger.Debug("nodes can't be followed", "error", err)
		p.set(errors.New("the broker can't be reached"))
		return nil
	}
	r.Join(p)
	return &r
}

// once sends one event and waits for it. The returned error is for everybody.
func (p *probe) once(ctx context.Context, r *cursor.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, p.server.o.ProbeEvery)
	defer cancel()
	sent := time.Now()
	id := uuid.NewString()
	if err := p.send(ctx, id); err != nil {
		p.server.o.Logger.Debug("probe can't be appended", "error", err)
		return errors.New("an event of the node's own could not be appended")
	}
	for {
		if p.take(ctx, r, id) {
			p.server.metrics.probes.Observe(time.Since(sent).Seconds())
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("an event of the node's own did not come back through its feed in time")
		case <-p.wake:
		}
	}
}

func (p *probe) send(ctx context.Context, id string) error {
	s := p.server
	what := told{nodeInfo: nodeInfo{
		Node: s.o.Hub.Node(), Version: s.o.Version, Started: s.started.UTC(),
		Connections: s.o.Hub.Count(), Draining: s.draining.Load(),
	}}
	if now := time.Now(); s.o.Totals != nil && now.Sub(p.summed) >= stats.Every {
		p.summed, what.Totals = now, s.o.Totals()
	}
	return p.tell(ctx, id, typeProbe, what)
}

// closing asks the other nodes to close a connection.
type closing struct {
	Connection string `json:"connection"`
}

// tell appends an event for all nodes.
func (p *probe) tell(ctx context.Context, id, typ string, what any) error {
	data, err := json.Marshal(what)
	if err != nil {
		return fmt.Errorf("encode %s: %w", typ, err)
	}
	f := event.Fields{
		ID: id, Source: "/nodes/" + p.server.o.Hub.Node(), Type: typ,
		Time: event.FormatTime(time.Now()), Data: data,
	}
	_, err = p.server.o.Broker.Append(ctx, NodesChannel, []broker.Entry{{Data: f.AppendStored(nil)}})
	return err
}

// take reads what came and tells whether id was among it.
func (p *probe) take(ctx context.Context, r *cursor.Reader, id string) (found bool) {
	var items []*feed.Item
	for {
		step, err := r.Read(ctx, &items, 256, 1<<20)
		if err != nil || len(step.Items) == 0 && step.Move == nil {
			return found
		}
		for _, item := range step.Items {
			r.Advance(item.Offset)
			found = found || item.ID() == id
			p.note(ctx, item)
		}
	}
}

// note takes in what a node has told.
func (p *probe) note(ctx context.Context, item *feed.Item) {
	var e event.Event
	if json.Unmarshal(item.JSON(), &e) != nil {
		return
	}
	switch e.Type {
	case typeProbe:
		var t told
		if e.DataAs(&t) != nil || t.Node == "" {
			return
		}
		info := t.nodeInfo
		info.Seen = item.Appended.UTC()
		if t.Totals != nil {
			p.server.stats.Note(stats.Sample{Node: info.Node, Started: info.Started, At: info.Seen, Totals: t.Totals})
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.seen[info.Node] = info
	case typeClose:
		var c closing
		if e.DataAs(&c) == nil {
			p.server.closeHere(c.Connection)
		}
	case typeDrain:
		var d draining
		if e.DataAs(&d) == nil && d.Node == p.server.o.Hub.Node() {
			p.server.drainHere(d.Drain)
		}
	case typeAsk:
		var a asking
		if e.DataAs(&a) == nil {
			p.answerHere(ctx, a)
		}
	case typeAnswer:
		var l listed
		if e.DataAs(&l) == nil {
			p.answered(l)
		}
	}
}

// nodes returns the nodes that were heard of lately, by name.
func (p *probe) nodes() []nodeInfo {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []nodeInfo{}
	for name, info := range p.seen {
		if time.Since(info.Seen) > 5*p.server.o.ProbeEvery {
			delete(p.seen, name)
			continue
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b nodeInfo) int { return strings.Compare(a.Node, b.Node) })
	return list
}
