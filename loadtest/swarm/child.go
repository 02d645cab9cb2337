package swarm

import (
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"github.com/longline-push/longline/loadtest/child"
)

// Role is the name under which the tester's binary runs clients as a child.
const Role = "swarm"

// request is what a parent asks of a child: its state, or, with Settle, its
// last account.
type question struct {
	Settle bool
	Heads  []uint64
}

type answer struct {
	State State
	Err   string
}

// process is a part that runs in a child process, spoken to in gob over its
// stdin and stdout. It ends when its stdin does, so it can't outlive us.
type process struct {
	cmd *exec.Cmd
	in  io.WriteCloser

	mu  sync.Mutex // one question at a time
	enc *gob.Encoder
	dec *gob.Decoder
}

func startChild(spec Spec) (*process, error) {
	cmd := child.Command(Role)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start clients: %w", err)
	}
	p := &process{cmd: cmd, in: in, enc: gob.NewEncoder(in), dec: gob.NewDecoder(out)}
	if err := p.enc.Encode(spec); err != nil {
		p.stop()
		return nil, fmt.Errorf("start clients: %w", err)
	}
	return p, nil
}

func (p *process) ask(q question) (State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a := answer{State: newState()}
	if err := p.enc.Encode(q); err != nil {
		return a.State, fmt.Errorf("ask client process: %w", err)
	}
	if err := p.dec.Decode(&a); err != nil {
		return newState(), fmt.Errorf("client process ended: %w", err)
	}
	if a.Err != "" {
		return a.State, fmt.Errorf("client process: %s", a.Err)
	}
	return a.State, nil
}

func (p *process) state() (State, error) { return p.ask(question{}) }
func (p *process) settle(heads []uint64) (State, error) {
	return p.ask(question{Settle: true, Heads: heads})
}

func (p *process) stop() {
	p.in.Close()
	_ = p.cmd.Wait() // its end is all we want; how it ended was told before
}

// RunChild is a child's main: it runs the clients that its stdin describes
// and answers questions until stdin ends.
func RunChild(in io.Reader, out io.Writer) error {
	dec, enc := gob.NewDecoder(in), gob.NewEncoder(out)
	var spec Spec
	if err := dec.Decode(&spec); err != nil {
		return fmt.Errorf("read swarm: %w", err)
	}
	l, err := startLoop(spec)
	if err != nil {
		return enc.Encode(answer{State: newState(), Err: err.Error()})
	}
	p := local{l}
	defer p.stop()
	for {
		var q question
		if err := dec.Decode(&q); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("read question: %w", err)
		}
		var a answer
		if q.Settle {
			a.State, err = p.settle(q.Heads)
		} else {
			a.State, err = p.state()
		}
		if err != nil {
			a.Err = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}
