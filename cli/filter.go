package cli

import (
	"bufio"
	"fmt"
	"io"

	"github.com/longline-push/longline/gateway/expr"
)

// filterCmd tries a filter on events as `longline listen` prints them.
type filterCmd struct {
	Expression string `arg:"" placeholder:"EXPRESSION" help:"An expression over event, e.g. 'event.data.amount > 100'."`
	Why        bool   `help:"Say on stderr why an event was left out because of an error."`
}

// maxFiltered bounds a line that is read.
const maxFiltered = 4 << 20

// Run prints the events of stdin, one a line, for which the expression says
// yes.
func (c *filterCmd) Run(env *environment) error {
	filter, err := expr.CompileFilter(c.Expression)
	if err != nil {
		return usage("EXPRESSION", "%v", err)
	}
	lines := bufio.NewScanner(env.stdin)
	lines.Buffer(nil, maxFiltered)
	failed := 0
	for n := 1; lines.Scan(); n++ {
		if len(lines.Bytes()) == 0 {
			continue
		}
		yes, err := filter.Match(expr.NewEvent(lines.Bytes()))
		switch {
		case yes:
			if err := printLine(env, lines.Bytes()); err != nil {
				return err
			}
		case err != nil:
			if failed++; c.Why {
				fmt.Fprintf(env.stderr, "line %d: %v\n", n, err)
			}
		}
	}
	if err := lines.Err(); err != nil && err != io.EOF {
		return fmt.Errorf("read events: %w", err)
	}
	if failed > 0 && !c.Why {
		fmt.Fprintf(env.stderr, "%d events left out because the expression errs on them; --why says how\n", failed)
	}
	return nil
}
