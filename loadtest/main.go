// Loadtest loads a running Longline, or one that it starts itself, as an
// operator would to size a deployment, and checks while it measures that every
// event arrives, once and in order.
//
//	main ─► scenario ─► target   the gateway (running or our own), the floor
//	            │  └──► pump     publishes on time            ┐ one epoll
//	            └─────► swarm    thousands of clients, ledger ┘ thread each
//	        report  ◄── measure  histograms, CPU, memory, series, results
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"github.com/longline-push/longline/loadtest/child"
	"github.com/longline-push/longline/loadtest/floor"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/report"
	"github.com/longline-push/longline/loadtest/scenario"
	"github.com/longline-push/longline/loadtest/swarm"
	"github.com/longline-push/longline/loadtest/target"
	"github.com/longline-push/longline/loadtest/token"
)

var roles = map[string]child.Main{floor.Role: floor.Run, swarm.Role: swarm.RunChild}

func main() {
	child.Run(roles)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	var usage *usageError
	switch {
	case err == nil:
	case errors.As(err, &usage):
		fmt.Fprintln(os.Stderr, "loadtest:", err)
		os.Exit(2)
	case errors.Is(err, errFailed):
		os.Exit(1) // the table has said why
	default:
		fmt.Fprintln(os.Stderr, "loadtest:", err)
		os.Exit(1)
	}
}

// errFailed says that the results, which were shown, are failures.
var errFailed = errors.New("the run failed")

// usageError is a wrong command line.
type usageError struct{ error }

// flags are what every scenario takes.
type flags struct {
	URL       string   `help:"A running gateway, http://host:port." group:"target"`
	Token     string   `help:"Token for all clients (with --url)." env:"LONGLINE_TOKEN" group:"target"`
	JWTSecret string   `name:"jwt-secret" help:"The gateway's secret: each client gets a token of its own (with --url)." env:"LONGLINE_JWT_SECRET" group:"target"`
	PID       []int    `help:"Processes whose CPU and memory are counted (with --self: besides the gateway's, e.g. Redis)." group:"target"`
	Metrics   string   `help:"URL of the gateway's Prometheus metrics (with --url)." group:"target"`
	Self      bool     `help:"Build and start a gateway for each run." group:"target"`
	Binary    string   `help:"With --self: this binary instead of building one." type:"existingfile" group:"target"`
	Broker    string   `help:"With --self: its --broker; default an embedded one in a new directory." group:"target"`
	Fsync     string   `help:"With --self and the embedded broker: always or everysec." enum:",always,everysec" default:"" group:"target"`
	Serve     []string `help:"With --self: a further flag of serve, e.g. --serve=--write-timeout=10s; may be repeated." sep:"none" group:"target"`
	ServeEnv  []string `help:"With --self: a variable of the gateway's environment, KEY=value; may be repeated." sep:"none" group:"target"`
	ServeLog  string   `help:"With --self: write the gateway's output to this file." group:"target"`
	Floor     bool     `help:"Run the floor, a minimal server, in turns: figures are also given as ratios to its." group:"target"`

	Connections int           `help:"How many clients." short:"n"`
	Channels    int           `help:"How many channels, where it isn't given by the connections."`
	Publishers  []int         `help:"How many publishing connections."`
	Rate        float64       `help:"Events (fanout: deliveries) per second."`
	Duration    time.Duration `help:"How long to measure." short:"d"`
	Warmup      time.Duration `help:"How long to run before that."`
	Settle      time.Duration `help:"How long idle connections rest before they are measured."`
	Size        int           `help:"Bytes of an event's data."`
	Batch       int           `help:"Events per publish."`
	Events      int           `help:"How many events, where it isn't a matter of time."`
	Transport   []string      `help:"ws, sse or both."`
	PublishBy   string        `help:"http or ws." enum:",http,ws" default:""`
	Scale       float64       `help:"crm: multiplies all times of the CRM, its callers and their retries."`
	Runs        int           `help:"How often each case is run; the table shows medians." default:"1"`

	JSON  string `help:"Keep the raw results in this file."`
	HTML  string `help:"Write a report with pictures to this file."`
	Quiet bool   `help:"No progress." short:"q"`
}

// reportCommand shows results again that --json kept.
type reportCommand struct {
	File string `arg:"" help:"Results kept by --json." type:"existingfile"`
	HTML string `help:"Write a report with pictures to this file."`
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var cli struct {
		Report reportCommand `cmd:"" help:"Show kept results again."`
	}
	options := []kong.Option{
		kong.Name("loadtest"),
		kong.Description("Load a Longline gateway and check that every event arrives, once and in order."),
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.UsageOnError(),
	}
	chosen := map[string]*flags{}
	for _, s := range scenario.All() {
		chosen[s.Name] = &flags{}
		options = append(options, kong.DynamicCommand(s.Name, s.Brief, "scenarios", chosen[s.Name]))
	}
	exited := false
	parser, err := kong.New(&cli, append(options, kong.Exit(func(int) { exited = true }))...)
	if err != nil {
		return fmt.Errorf("set up command line: %w", err)
	}
	parsed, err := parser.Parse(args)
	if exited { // --help
		return nil
	}
	if err != nil {
		return &usageError{err}
	}
	if parsed.Selected().Name == "report" {
		return showAgain(cli.Report, stdout)
	}
	s, err := scenario.Find(parsed.Selected().Name)
	if err != nil {
		return &usageError{err}
	}
	return load(ctx, s, chosen[s.Name], args, stdout, stderr)
}

func load(ctx context.Context, s *scenario.Scenario, f *flags, args []string, stdout, stderr io.Writer) error {
	bar := report.NewBar(io.Discard, false)
	if !f.Quiet {
		bar = report.NewBar(stderr, isTerminal(stderr))
	}
	targets, done, err := f.targets(ctx, s, bar)
	if err != nil {
		return err
	}
	defer done()
	r, err := scenario.Execute(ctx, s, f.options(), targets, bar)
	bar.Clear()
	r.Command = withoutSecrets(args)
	if len(r.Runs) > 0 {
		if err := show(r, f.JSON, f.HTML, stdout); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	if r.Err() != nil {
		return errFailed
	}
	return nil
}

// targets are what the scenario is run against, in the order of their turns.
func (f *flags) targets(ctx context.Context, s *scenario.Scenario, bar *report.Bar) ([]target.Maker, func(), error) {
	done := func() {}
	var makers []target.Maker
	switch {
	case f.Self && f.URL != "":
		return nil, done, &usageError{errors.New("--self and --url: want one of them")}
	case f.Self:
		o := target.SelfOptions{Broker: f.Broker, Fsync: f.Fsync, Binary: f.Binary, Flags: f.Serve, Env: f.ServeEnv, Also: f.PID}
		if f.Broker != "" && f.Fsync != "" {
			return nil, done, &usageError{errors.New("--fsync is for the tester's own embedded broker: put ?fsync= into --broker instead")}
		}
		if f.ServeLog != "" {
			log, err := os.Create(f.ServeLog)
			if err != nil {
				return nil, done, fmt.Errorf("open gateway's log: %w", err)
			}
			o.Log, done = log, func() { log.Close() }
		}
		if o.Binary == "" {
			bar.Show("building the gateway", 0)
			var err error
			if o.Binary, err = target.Build(ctx); err != nil {
				return nil, done, err
			}
		}
		makers = append(makers, target.Self(o))
	case f.URL != "":
		m, err := target.Running(f.URL, token.Source{Fixed: f.Token, Secret: f.JWTSecret}, f.PID, f.Metrics)
		if err != nil {
			return nil, done, &usageError{err}
		}
		makers = append(makers, m)
	case !f.Floor:
		return nil, done, &usageError{errors.New("nothing to load: want --self, --url or --floor")}
	}
	if f.Floor {
		if !s.Floored {
			return nil, done, &usageError{fmt.Errorf("--floor: the floor can't do %q", s.Name)}
		}
		makers = append(makers, target.NewFloor)
	}
	return makers, done, nil
}

func (f *flags) options() scenario.Options {
	return scenario.Options{
		Connections: f.Connections, Channels: f.Channels, Publishers: f.Publishers, Rate: f.Rate,
		Duration: f.Duration, Warmup: f.Warmup, Settle: f.Settle, Size: f.Size, Batch: f.Batch,
		Events: f.Events, Transports: f.Transport, PublishBy: f.PublishBy, Runs: f.Runs, Scale: f.Scale,
	}
}

func showAgain(c reportCommand, stdout io.Writer) error {
	f, err := os.Open(c.File)
	if err != nil {
		return fmt.Errorf("open results: %w", err)
	}
	defer f.Close()
	r, err := measure.Load(f)
	if err != nil {
		return fmt.Errorf("%s: %w", c.File, err)
	}
	if err := show(r, "", c.HTML, stdout); err != nil {
		return err
	}
	if r.Err() != nil {
		return errFailed
	}
	return nil
}

// show writes the table and the files asked for.
func show(r *measure.Report, jsonFile, htmlFile string, stdout io.Writer) error {
	if err := report.Table(stdout, r); err != nil {
		return err
	}
	for _, out := range []struct {
		file  string
		write func(io.Writer) error
	}{{jsonFile, r.Save}, {htmlFile, func(w io.Writer) error { return report.HTML(w, r) }}} {
		if out.file == "" {
			continue
		}
		f, err := os.Create(out.file)
		if err != nil {
			return fmt.Errorf("write results: %w", err)
		}
		if err := errors.Join(out.write(f), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w", out.file, err)
		}
		fmt.Fprintln(stdout, "wrote", out.file)
	}
	return nil
}

// withoutSecrets is the command line as it may be kept.
func withoutSecrets(args []string) []string {
	var kept []string
	hide := false
	for _, a := range args {
		switch {
		case hide:
			a, hide = "…", false
		case a == "--token" || a == "--jwt-secret" || a == "--serve-env" || a == "--broker":
			hide = true
		default:
			for _, name := range []string{"--token=", "--jwt-secret=", "--serve-env=", "--broker="} {
				if len(a) > len(name) && a[:len(name)] == name {
					a = name + "…"
				}
			}
		}
		kept = append(kept, a)
	}
	return kept
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
