// Longline is a push gateway: events come in by HTTP, are kept in a log per
// channel, and go out over whatever line their receivers opened.
//
//	                 ┌──────────────── gateway.Server ───────────────────┐
//	POST events ───▶ │ publish.Publisher ─────────┐                      │
//	                 │      ▲ Budget (limits)     │ append               │
//	WS, SSE ◀──────▶ │ ws, sse ─▶ session.Hub     ▼                      │
//	                 │              └─▶ feed ◀─ Broker (log, tail) ──────│─▶ disk or Redis
//	POSTs ◀───────── │ callback.Engine ◀─ Dispatcher ◀─ durable.Manager ──│─▶ (who owns what)
//	token ─────────▶ │ auth.Verifier ◀── Revocations ◀┘                  │
//	                 └───────────────────────────────────────────────────┘
//	/metrics, pprof ─▶ admin listener
//
// Package node builds it from right to left and takes it down from left to
// right; package cli has the commands, serve among them.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/longline-push/longline/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	err := run(ctx, cli.Args(), os.Stdin, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "longline:", err)
	}
	os.Exit(cli.ExitStatus(err))
}

// run is the whole program: it parses args and does what they say until that
// is done or ctx ends.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	return cli.Run(ctx, args, stdin, stdout, stderr)
}
