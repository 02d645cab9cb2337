// Package cli is the command line: a file for each command, with its flags,
// and what they share: the configuration file, the environment, and what is
// printed for people.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// environment is what a command may use of the world.
type environment struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	args           []string // as they were given
	model          *kong.Node
}

// commands is the command line: one field a command, each in a file of its
// own. A command's Run gets the environment.
type commands struct {
	Serve serveCmd `cmd:"" default:"withargs" help:"Run the gateway (what bare longline does too)."`
	Token tokenCmd `cmd:"" help:"Mint tokens with the gateway's key, or look into them."`

	Demo demoCmd `cmd:"" help:"Show what it is for: a mailshot, a slow CRM behind webhooks and behind Longline, on a page."`

	Publish publishCmd `cmd:"" help:"Publish events to a channel."`
	Listen  listenCmd  `cmd:"" help:"Print events as they come, or forward them to a local URL."`
	Sub     subCmd     `cmd:"" help:"List, make, change and look into durable subscriptions."`
	Filter  filterCmd  `cmd:"" help:"Try a filter on events, one a line on stdin."`
	Ready   readyCmd   `cmd:"" help:"Ask a gateway whether it is ready, for health checks."`

	Channels    channelsCmd    `cmd:"" help:"List channels, or print how one is."`
	Connections connectionsCmd `cmd:"" help:"List or close connections."`
	Nodes       nodesCmd       `cmd:"" help:"List the gateways of this broker."`
	Revoke      revokeCmd      `cmd:"" help:"Revoke tokens."`

	Backup backupCmd `cmd:"" help:"Copy an embedded gateway's data while it runs."`
	Check  checkCmd  `cmd:"" help:"Read a data directory, and say what it holds and whether it is whole."`

	Context    contextCmd    `cmd:"" help:"Keep where gateways are, by name."`
	Completion completionCmd `cmd:"" help:"Print a shell's completions."`
	VersionCmd versionCmd    `cmd:"" name:"version" help:"Print version, commit, Go and formats."`

	Version kong.VersionFlag `help:"Print version, commit, Go and formats."`
}

// usageError is a wrong flag, variable or file: exit status 2.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usage makes a usageError about a flag. The message says what the flag takes.
func usage(flag, format string, args ...any) error {
	return usageError{fmt.Errorf("%s: %s", flag, fmt.Sprintf(format, args...))}
}

// ExitStatus is what the program exits with: 2 where the command line or the
// configuration is wrong, 1 for any other error.
func ExitStatus(err error) int {
	var u usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &u):
		return 2
	}
	return 1
}

// exited is how kong ends the program for --help and --version.
type exited int

// Run reads args, environment and configuration file, in this order of
// precedence, and does what they say until that is done or ctx ends. The
// error is one line; ExitStatus tells what to exit with.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) (err error) {
	defer func() {
		if r := recover(); r != nil {
			if _, ok := r.(exited); !ok {
				panic(r)
			}
		}
	}()
	file, err := readConfig(configFile(args))
	if err != nil {
		return err
	}
	var c commands
	c.Serve.file = file
	parser, err := kong.New(&c,
		kong.Name("longline"),
		kong.Description("A push gateway: durable, ordered events over WebSocket, SSE, pull and callbacks."),
		variables(),
		kong.Vars{"version": versionText()},
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { panic(exited(code)) }),
		kong.Resolvers(file),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.ValueFormatter(describe),
	)
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return usageError{errors.New(oneLine(err.Error()))}
	}
	return parsed.Run(&environment{ctx, stdin, stdout, stderr, args, parser.Model.Node})
}

func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }
