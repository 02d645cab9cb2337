// Package floor is the least that a push server can do, to measure others
// against: one thread, one epoll, a frame built once per event and one write()
// for each subscriber. It keeps nothing, checks nothing and waits for a slow
// reader. What a gateway costs beyond it is what its features cost.
//
// It speaks the few bytes of the gateway's protocol that load clients and
// publishers use: GET /v1/ws and /v1/sse with one channel, POST of probes to
// /v1/channels/{channel}/events, and the publish operation over WebSocket.
package floor

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/longline-push/longline/loadtest/child"
	"github.com/longline-push/longline/loadtest/poll"
)

// Role is the name under which the tester's binary runs the floor as a child,
// so that its CPU time and memory are a process's own.
const Role = "floor"

// A Process is a floor running as a child.
type Process struct {
	Addr string // host:port it listens on
	PID  int

	cmd *exec.Cmd
	in  io.WriteCloser
}

// Start runs a floor and waits until it listens.
func Start() (*Process, error) {
	cmd := child.Command(Role)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start floor: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start floor: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start floor: %w", err)
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, in: in}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		p.Stop()
		return nil, fmt.Errorf("start floor: it ended at once: %w", err)
	}
	p.Addr = strings.TrimSpace(line)
	return p, nil
}

// Stop ends the floor and waits for its end.
func (p *Process) Stop() {
	p.in.Close()
	_ = p.cmd.Wait() // it ends by closing its stdin; nothing depends on how
}

// Run is the child's main: it prints its address and serves until in ends.
func Run(in io.Reader, out io.Writer) error {
	debug.SetGCPercent(400)
	runtime.GOMAXPROCS(1)
	s, err := listen()
	if err != nil {
		return err
	}
	fmt.Fprintln(out, s.addr)
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(ended)
		s.poller.Wake()
	}()
	return s.serve(ended)
}

// listen opens a server's socket and its epoll.
func listen() (*server, error) {
	fd, addr, err := poll.Listen()
	if err != nil {
		return nil, err
	}
	poller, err := poll.Open(512)
	if err != nil {
		return nil, err
	}
	if err := poller.Add(fd, int32(fd), 0, poll.In); err != nil {
		return nil, err
	}
	return &server{
		addr: addr, listener: fd, poller: poller,
		buf:      make([]byte, 1<<20),
		channels: map[string]*channel{},
	}, nil
}
