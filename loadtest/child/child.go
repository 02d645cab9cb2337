// Package child lets the tester's binary run again as one of its own parts:
// the floor, or clients beyond what one process may hold.
package child

import (
	"fmt"
	"io"
	"os"
	"os/exec"
)

// variable names the role in the environment, so that no command line of the
// tester (nor of a test binary) has to know about it.
const variable = "LONGLINE_LOADTEST_ROLE"

// A Main is what a child does with its stdin and stdout; it returns when
// stdin ends, so that no child outlives its parent.
type Main func(in io.Reader, out io.Writer) error

// Command is this binary in another role.
func Command(role string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), variable+"="+role)
	return cmd
}

// Run takes on the role that this process was started for and exits; without
// one it returns. It belongs first in main and in TestMain.
func Run(roles map[string]Main) {
	role := os.Getenv(variable)
	if role == "" {
		return
	}
	main, ok := roles[role]
	if !ok {
		fmt.Fprintf(os.Stderr, "loadtest: no role %q\n", role)
		os.Exit(2)
	}
	if err := main(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "loadtest %s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}
