package demo

import (
	"context"
	"os"
	"strings"
	"time"
)

// restartAfter is how long a killed gateway is missing, so that one can see
// what that does.
const restartAfter = 2 * time.Second

// supervise starts the gateway again whenever it ends, by the button or by
// somebody's own kill -9.
func (d *Demo) supervise(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case killed := <-d.kills:
			d.gateway.Kill()
			close(killed)
		case <-d.gateway.Exited():
		}
		d.board.note("The gateway was killed. It starts again in a moment, on the same data.")
		again := time.After(restartAfter) // however often it is killed meanwhile
		for running := false; !running; {
			select {
			case <-ctx.Done():
				return
			case killed := <-d.kills:
				close(killed) // it is dead already
				continue
			case <-again:
			}
			err := d.gateway.Exec()
			if running = err == nil; !running {
				d.board.note(err.Error())
				again = time.After(restartAfter)
			}
		}
		d.started()
		d.board.note("The gateway runs again.")
	}
}

func (d *Demo) started() {
	d.pid.Store(int64(d.gateway.PID()))
	d.starts.Add(1)
}

// kill ends the gateway with SIGKILL and returns when it is dead.
func (d *Demo) kill(ctx context.Context) {
	killed := make(chan struct{})
	select {
	case d.kills <- killed:
		<-killed
	case <-ctx.Done():
	}
}

// bareEnvironment is this process's without what would configure a gateway.
func bareEnvironment() []string {
	env := []string{}
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "LONGLINE_") {
			env = append(env, e)
		}
	}
	return env
}
