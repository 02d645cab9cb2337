package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// order is what a driver is told, one JSON object a line.
type order struct {
	Do           string   `json:"do"` // attach, pull, subscribe, serve, close
	URL          string   `json:"url,omitempty"`
	TokenFile    string   `json:"token_file,omitempty"` // read anew whenever a token is needed
	Subscription string   `json:"subscription,omitempty"`
	Consumer     string   `json:"consumer,omitempty"`
	Channels     []string `json:"channels,omitempty"`
	Since        string   `json:"since,omitempty"`
	Concurrency  int      `json:"concurrency,omitempty"`
	Secret       string   `json:"secret,omitempty"` // of callbacks
}

// word is what a driver says, one JSON object a line.
type word struct {
	Told        string  `json:"told"` // begin, end, state, gap, reject, partitions, ended, serving
	ID          string  `json:"id"`
	Outcome     string  `json:"outcome"` // of end: done, failed, rejected
	Attempt     int     `json:"attempt"`
	Redelivered bool    `json:"redelivered"`
	Transport   string  `json:"transport"`
	Phase       string  `json:"phase"`
	Reason      string  `json:"reason"`
	Partitions  []int   `json:"partitions"`
	Code        string  `json:"code"` // of ended; "": it was closed
	URL         string  `json:"url"`
	At          float64 `json:"-"`

	by *driver
}

// driver is a client's process.
type driver struct {
	tale    *tale
	process *exec.Cmd
	in      io.WriteCloser
	read    sync.WaitGroup
}

// drive starts the client; it ends with the tale.
func (t *tale) drive(o order) *driver {
	d := &driver{tale: t, process: exec.CommandContext(t.ctx, t.options.Command[0], t.options.Command[1:]...)}
	out, err := d.process.StdoutPipe()
	t.must("the driver's output", err)
	d.in, err = d.process.StdinPipe()
	t.must("the driver's input", err)
	d.process.Stderr = t.options.Log
	t.must("start the driver", d.process.Start())
	t.drivers = append(t.drivers, d)
	d.read.Go(func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			w := word{by: d}
			if t.options.Log != nil {
				fmt.Fprintf(t.options.Log, "%s: %s\n", t.name, lines.Bytes())
			}
			if err := json.Unmarshal(lines.Bytes(), &w); err != nil || w.Told == "" {
				w = word{by: d, Told: "nonsense", Reason: lines.Text()}
			}
			t.hear(w)
		}
		t.hear(word{by: d, Told: "gone"})
	})
	d.tell(o)
	return d
}

// tell gives an order; where and by which token is filled in.
func (d *driver) tell(o order) {
	if o.URL == "" {
		o.URL = d.tale.gateway.url
	}
	if o.TokenFile == "" {
		o.TokenFile = d.tale.tokenFile(time.Hour)
	}
	b, err := json.Marshal(o)
	d.tale.must("an order", err)
	if _, err := d.in.Write(append(b, '\n')); err != nil {
		d.tale.fail("the driver takes no orders: %v", err)
	}
}

// kill ends the client on the spot.
func (d *driver) kill() {
	d.process.Process.Kill() // an error means that it has ended
	d.read.Wait()
	d.process.Wait()
}

// tokenFile writes a token and returns where.
func (t *tale) tokenFile(ttl time.Duration) string {
	f, err := os.CreateTemp(t.gateway.dir, "token-")
	t.must("a token's file", err)
	f.Close()
	t.writeToken(f.Name(), ttl)
	return f.Name()
}

func (t *tale) writeToken(name string, ttl time.Duration) {
	rights := map[string]any{"subscribe": []string{"**"}, "publish": []string{"**"}, "subscriptions": []string{"*"}}
	t.must("a token", os.WriteFile(name+".new", []byte(token("driver-"+t.name, ttl, rights)), 0o600))
	t.must("a token", os.Rename(name+".new", name))
}
