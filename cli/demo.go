package cli

import (
	"fmt"
	"os"

	"github.com/longline-push/longline/demo"
)

// demoCmd runs the demo: everything it needs is started by it, on this machine
// alone, and ends with it.
type demoCmd struct {
	Listen string  `env:"-" default:"127.0.0.1:8090" placeholder:"HOST:PORT" help:"Where its page is."`
	Rate   float64 `default:"200" placeholder:"N" help:"Events a second, on average."`
	Log    bool    `help:"Print what its gateway logs."`
}

// Run runs the demo until its context ends.
func (c *demoCmd) Run(env *environment) error {
	if c.Rate < 1 || c.Rate > 2000 {
		return usage("--rate", "%v; want 1 to 2000", c.Rate)
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program, to run the gateway: %w", err)
	}
	o := demo.Options{Binary: binary, Listen: c.Listen, Rate: c.Rate}
	if c.Log {
		o.Log = env.stderr
	}
	d, err := demo.Start(env.ctx, o)
	if err != nil {
		return err
	}
	defer d.Stop()
	fmt.Fprintf(env.stdout, "Longline's demo is at %s\nCtrl-C ends it and leaves nothing behind.\n", d.URL)
	<-env.ctx.Done()
	return nil
}
