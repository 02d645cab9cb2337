package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// secretFlags take values that are nobody else's business. A command line is
// read by everybody on the machine (ps), and a gateway's by whoever sees its
// profiles.
var secretFlags = []string{"--jwt-secret", "--secret-key", "--token", "--secret"}

// Args returns a copy of the process's own arguments, and wipes the secrets
// from what the process shows: from os.Args, which profiles print, and where
// the system reads a command line from the process (Linux) from that too. It
// is called once, before anything else.
func Args() []string {
	args := make([]string, len(os.Args))
	for i, arg := range os.Args {
		args[i] = strings.Clone(arg)
	}
	for i := 1; i < len(os.Args); i++ {
		flag, _, joined := strings.Cut(args[i], "=")
		switch {
		case args[i] == "--":
			return args[1:]
		case !slices.Contains(secretFlags, flag):
		case joined:
			os.Args[i] = wiped(os.Args[i], len(flag)+1)
		case i+1 < len(os.Args):
			i++
			os.Args[i] = wiped(os.Args[i], 0)
		}
	}
	return args[1:]
}

// warnOfSecrets tells who gave a gateway's secret on the command line that it
// was seen, whatever was wiped later.
func warnOfSecrets(w io.Writer, args []string) {
	for _, flag := range []string{"--jwt-secret", "--secret-key"} {
		if given(args, flag) {
			fmt.Fprintf(w, "longline: %s on a command line can be read by everybody on this machine; want %s-file FILE or %s\n",
				flag, flag, variable(strings.TrimPrefix(flag, "--")))
		}
	}
}

// given tells whether a flag is among arguments.
func given(args []string, flag string) bool {
	for _, arg := range args {
		if arg == "--" {
			return false
		}
		if arg == flag || strings.HasPrefix(arg, flag+"=") {
			return true
		}
	}
	return false
}

// secretOf returns a secret given as such or by file. A file's last line break
// doesn't count.
func secretOf(flag, value, file string) (string, error) {
	if file == "" {
		return value, nil
	}
	if value != "" {
		return "", usage(flag+"-file", "%s (or %s) is given too; want one of them", flag, variable(strings.TrimPrefix(flag, "--")))
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", usage(flag+"-file", "%v; want a file that holds the secret", err)
	}
	secret := strings.TrimRight(string(text), "\r\n")
	if secret == "" {
		return "", usage(flag+"-file", "%s is empty; want a file that holds the secret", file)
	}
	return secret, nil
}
