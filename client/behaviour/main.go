// Command behaviour judges a client: it starts a real gateway, has the client
// live through what clients live through, and says what it did wrong.
//
//	go run ./client/behaviour -kind line -- python3 client/python/tests/driver.py
//
// The client is a program, the driver, that speaks JSON lines; see
// docs/protocol.md, "For client authors". Those of the SDKs in this repository
// are run by the tests.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "behaviour:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("behaviour", flag.ContinueOnError)
	flags.SetOutput(stderr)
	kind := flags.String("kind", "line", "what the client can do: line or pull")
	only := flags.String("story", "", "the stories to live through, joined by commas (all)")
	skip := flags.String("skip", "", "those to leave out, joined by commas")
	binary := flags.String("gateway", "", "the gateway's binary (built from this repository)")
	list := flags.Bool("list", false, "list the stories and end")
	verbose := flags.Bool("v", false, "show what the drivers say")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *list {
		for _, s := range stories {
			fmt.Fprintf(stdout, "%-14s %-10s %s\n", s.name, strings.Join(s.kinds, " "), s.about)
		}
		return nil
	}
	if *kind != "line" && *kind != "pull" {
		return fmt.Errorf("-kind is %q, want line or pull", *kind)
	}
	if flags.NArg() == 0 {
		return errors.New("want the driver's command behind --")
	}
	dir, err := os.MkdirTemp("", "longline-behaviour-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if *binary == "" {
		*binary = filepath.Join(dir, "longline")
		if out, err := exec.CommandContext(ctx, "go", "build", "-o", *binary, "github.com/longline-push/longline").CombinedOutput(); err != nil {
			return fmt.Errorf("build the gateway: %w\n%s", err, out)
		}
	}
	o := Options{Binary: *binary, Command: flags.Args(), Kind: *kind, Only: split(*only), Skip: split(*skip)}
	if *verbose {
		o.Log = stderr
	}
	results, err := Judge(ctx, o)
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range results {
		if r.Err == nil {
			fmt.Fprintf(stdout, "ok    %-14s %.1f s\n", r.Story, r.Took.Seconds())
			continue
		}
		failed++
		fmt.Fprintf(stdout, "FAIL  %-14s %v\n", r.Story, r.Err)
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d stories went wrong", failed, len(results))
	}
	return nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// Options of Judge.
type Options struct {
	Binary  string   // the gateway's
	Command []string // the driver's
	Kind    string   // line or pull
	Only    []string // stories; none: all of the kind
	Skip    []string
	Log     io.Writer // what drivers say; nil: nobody hears it
}

// Result is how a story went.
type Result struct {
	Story string
	Took  time.Duration
	Err   error
}

// Judge lives through the stories of a kind, all at once, and returns how each
// went, in their order. Those that need a gateway of their own get one.
func Judge(ctx context.Context, o Options) ([]Result, error) {
	known := func(name string) bool {
		return slices.ContainsFunc(stories, func(s story) bool { return s.name == name })
	}
	for _, name := range slices.Concat(o.Only, o.Skip) {
		if !known(name) {
			return nil, fmt.Errorf("there is no story %q; -list shows them", name)
		}
	}
	shared, err := startGateway(ctx, o.Binary)
	if err != nil {
		return nil, err
	}
	defer shared.remove()
	var results []Result
	var running sync.WaitGroup
	for _, s := range stories {
		if !slices.Contains(s.kinds, o.Kind) || len(o.Only) > 0 && !slices.Contains(o.Only, s.name) || slices.Contains(o.Skip, s.name) {
			continue
		}
		results = append(results, Result{Story: s.name})
	}
	for i := range results {
		r := &results[i]
		s := stories[slices.IndexFunc(stories, func(s story) bool { return s.name == r.Story })]
		running.Go(func() {
			began := time.Now()
			defer func() { r.Took = time.Since(began) }()
			t := &tale{ctx: ctx, options: o, gateway: shared, name: s.name}
			if s.own {
				if t.gateway, r.Err = startGateway(ctx, o.Binary); r.Err != nil {
					return
				}
				defer t.gateway.remove()
			}
			r.Err = t.live(s.live)
		})
	}
	running.Wait()
	return results, nil
}
