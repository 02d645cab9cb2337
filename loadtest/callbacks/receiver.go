package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/longline-push/longline/loadtest/child"
	"github.com/longline-push/longline/loadtest/measure"
)

const receiverRole = "callback-receiver"

// receive is the receiver's process: one endpoint per path, each noting when
// which event came. It ends with its stdin.
//
//	POST /NAME        an event, answered as the endpoint is told to
//	PUT  /NAME/STATUS how to answer from now on
//	PUT  /NAME/sleep/TIME
//	GET  /NAME        [[number, time], …]
func receive(in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(out, l.Addr())
	r := &receiver{endpoints: map[string]*endpoint{}}
	go func() { // ends the process with its parent
		io.Copy(io.Discard, in)
		os.Exit(0)
	}()
	return http.Serve(l, r)
}

type receiver struct {
	mu        sync.Mutex
	endpoints map[string]*endpoint
}

type endpoint struct {
	status atomic.Int32
	sleep  atomic.Int64

	mu   sync.Mutex
	came [][2]int64
}

func (r *receiver) of(name string) *endpoint {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.endpoints[name]
	if e == nil {
		e = &endpoint{}
		e.status.Store(200)
		r.endpoints[name] = e
	}
	return e
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	came := measure.Now()
	parts := strings.Split(strings.TrimPrefix(q.URL.Path, "/"), "/")
	e := r.of(parts[0])
	switch q.Method {
	case http.MethodPost:
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return
		}
		if d := e.sleep.Load(); d > 0 {
			time.Sleep(time.Duration(d))
		}
		if s := int(e.status.Load()); s != 200 {
			w.WriteHeader(s)
			return
		}
		e.note(body, came)
	case http.MethodPut:
		if parts[1] == "sleep" {
			d, _ := time.ParseDuration(parts[2])
			e.sleep.Store(int64(d))
			return
		}
		s, _ := strconv.Atoi(parts[1])
		e.status.Store(int32(s))
	case http.MethodGet:
		e.mu.Lock()
		defer e.mu.Unlock()
		json.NewEncoder(w).Encode(e.came)
	}
}

// note notes the numbers of a body's events, of one as of a batch: each event
// has "n":NUMBER in its data, and nowhere else.
func (e *endpoint) note(body []byte, came int64) {
	text := string(body)
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		_, rest, ok := strings.Cut(text, `"n":`)
		if !ok {
			return
		}
		end := strings.IndexAny(rest, ",}")
		n, err := strconv.ParseInt(rest[:max(end, 0)], 10, 64)
		if err != nil {
			return
		}
		e.came = append(e.came, [2]int64{n, came})
		text = rest
	}
}

// startReceiver runs the receiver in a process of its own.
func startReceiver() (addr string, pid int, stop func(), err error) {
	var cmd *exec.Cmd = child.Command(receiverRole)
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", 0, nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return "", 0, nil, fmt.Errorf("start receiver: %w", err)
	}
	if _, err := fmt.Fscanln(out, &addr); err != nil {
		return "", 0, nil, fmt.Errorf("start receiver: %w", err)
	}
	return addr, cmd.Process.Pid, func() { in.Close(); cmd.Wait() }, nil
}
