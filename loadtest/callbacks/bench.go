package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/target"
)

// bench is a gateway, a receiver, and this process, which publishes.
type bench struct {
	ctx      context.Context
	gateway  *target.Target
	token    string
	receiver string
	pid      int // the receiver's
	client   *http.Client
	serial   int

	mu       sync.Mutex
	answered map[string]map[int64]int64 // channel → event's number → when its publish was answered
}

func (b *bench) call(method, url string, body any) error {
	var r io.Reader
	if text, ok := body.([]byte); ok {
		r = bytes.NewReader(text)
	} else if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(text)
	}
	q, err := http.NewRequestWithContext(b.ctx, method, url, r)
	if err != nil {
		return err
	}
	q.Header.Set("Authorization", "Bearer "+b.token)
	if body != nil {
		q.Header.Set("Content-Type", "application/json")
	}
	resp, err := b.client.Do(q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %d %s", method, url, resp.StatusCode, text)
	}
	return nil
}

func (b *bench) api(path string) string { return "http://" + b.gateway.Addr + "/v1/" + path }

func (b *bench) tell(endpoint, what string) error {
	return b.call("PUT", "http://"+b.receiver+"/"+endpoint+"/"+what, nil)
}

// name makes a name that no earlier scenario used.
func (b *bench) name(what string) string {
	b.serial++
	return fmt.Sprintf("%s-%d", what, b.serial)
}

// subscribe makes a channel's callback subscription; both have the name of the
// endpoint it calls.
func (b *bench) subscribe(name string) error {
	return b.call("PUT", b.api("subscriptions/"+name), map[string]any{
		"channels": []string{name}, "start": "earliest",
		"callback": map[string]any{"url": "http://" + b.receiver + "/" + name, "mode": "always"},
	})
}

func (b *bench) post(name, what string) error {
	return b.call("POST", b.api("subscriptions/"+name+"/"+what), map[string]any{})
}

var padding = strings.Repeat("x", 200)

// publish publishes events numbered from to to-1 and notes when that was
// answered.
func (b *bench) publish(channel string, from, to int64) error {
	var body bytes.Buffer
	body.WriteByte('[')
	for n := from; n < to; n++ {
		if n > from {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"type":"email.opened","subject":"alice@example.com","data":{"n":%d,"pad":"%s"}}`, n, padding)
	}
	body.WriteByte(']')
	if err := b.call("POST", b.api("channels/"+channel+"/events"), body.Bytes()); err != nil {
		return err
	}
	now := measure.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.answered[channel] == nil {
		b.answered[channel] = map[int64]int64{}
	}
	for n := from; n < to; n++ {
		b.answered[channel][n] = now
	}
	return nil
}

// publishEvenly publishes rate events a second, one by one, for a time, and
// returns how many.
func (b *bench) publishEvenly(channel string, rate int, d time.Duration) (int64, error) {
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	n := int64(rate) * int64(d/time.Second)
	for i := range n {
		<-tick.C
		if err := b.publish(channel, i, i+1); err != nil {
			return i, err
		}
	}
	return n, nil
}

// arrivals is when each event first came to an endpoint.
type arrivals struct {
	first     map[int64]int64
	overtaken int // came first after one that was published later
	again     int
	last      int64
}

func (b *bench) arrivals(name string) (arrivals, error) {
	a := arrivals{first: map[int64]int64{}}
	resp, err := b.client.Get("http://" + b.receiver + "/" + name)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	var came [][2]int64
	if err := json.NewDecoder(resp.Body).Decode(&came); err != nil {
		return a, err
	}
	newest := int64(-1)
	for _, c := range came {
		if _, ok := a.first[c[0]]; ok {
			a.again++
			continue
		}
		a.first[c[0]] = c[1]
		a.last = max(a.last, c[1])
		if c[0] < newest {
			a.overtaken++
		}
		newest = max(newest, c[0])
	}
	return a, nil
}

// all waits until n events came to an endpoint.
func (b *bench) all(name string, n int64, within time.Duration) (arrivals, error) {
	deadline := time.Now().Add(within)
	for {
		a, err := b.arrivals(name)
		if err != nil || int64(len(a.first)) >= n {
			return a, err
		}
		if time.Now().After(deadline) {
			return a, fmt.Errorf("%s: %d of %d events came within %v", name, len(a.first), n, within)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// latency is how long after the answer to its publish each event came.
func (b *bench) latency(h *measure.Histogram, channel string, a arrivals) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, at := range a.first {
		// A POST may arrive before the publisher has read its answer.
		h.Record(time.Duration(max(at-b.answered[channel][n], 0)))
	}
}

// usage is the CPU that the gateway, the receiver and this process used.
type usage struct{ gateway, receiver, self time.Duration }

func (b *bench) usage() usage {
	var u usage
	u.gateway, _ = b.gateway.Processes.CPU()
	u.receiver, _ = measure.Processes{b.pid}.CPU()
	u.self, _ = measure.Processes{os.Getpid()}.CPU()
	return u
}

func (u usage) since(v usage) usage {
	return usage{u.gateway - v.gateway, u.receiver - v.receiver, u.self - v.self}
}

func micros(d time.Duration, n int64) float64 { return float64(d.Nanoseconds()) / 1000 / float64(n) }
