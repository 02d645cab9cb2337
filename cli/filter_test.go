package cli_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/longline-push/longline/cli"
)

func TestFilterTriesAnExpression(t *testing.T) {
	const events = `{"id":"1","type":"order.paid","data":{"amount":120}}
{"id":"2","type":"order.paid","data":{"amount":20}}

{"id":"3","type":"order.sent","data":{}}
`
	for _, tt := range []struct {
		args           []string
		stdout, stderr string
		status         int
	}{
		{[]string{"filter", "event.data.amount > 100"}, `{"id":"1","type":"order.paid","data":{"amount":120}}` + "\n", "1 events left out because the expression errs on them; --why says how\n", 0},
		{[]string{"filter", "--why", "event.data.amount > 200"}, "", "line 4: no such key: amount\n", 0},
		{[]string{"filter", "event.data.amount >"}, "", "EXPRESSION: line 1, column ", 2},
		{[]string{"filter", "evnt.data"}, "", "EXPRESSION: line 1, column 1: undeclared reference to 'evnt'", 2},
	} {
		var stdout, stderr bytes.Buffer
		err := cli.Run(t.Context(), tt.args, strings.NewReader(events), &stdout, &stderr)
		if err != nil {
			stderr.WriteString(err.Error())
		}
		if got := cli.ExitStatus(err); got != tt.status || stdout.String() != tt.stdout || !strings.HasPrefix(stderr.String(), tt.stderr) {
			t.Errorf("%q: status %d\n%s\n%s", tt.args, got, &stdout, &stderr)
		}
	}
}
