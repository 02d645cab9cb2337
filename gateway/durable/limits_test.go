package durable_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/durable"
	"github.com/longline-push/longline/gateway/expr"
)

// TestDefinitionsAreBounded: what is at a limit is taken, what is one beyond it
// is refused by name.
func TestDefinitionsAreBounded(t *testing.T) {
	list := func(n int, format string) string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(out, ",")
	}
	call := func(format string) string {
		return `{"channels":["c"],"callback":{"url":"https://a.example/",` + format + `}}`
	}
	for _, limit := range []struct {
		names string
		most  int
		of    func(n int) string
	}{
		{"channels", durable.MaxChannels, func(n int) string { return `{"channels":[` + list(n, `"c%d"`) + `]}` }},
		{"types", durable.MaxTypes, func(n int) string { return `{"channels":["c"],"types":[` + list(n, `"t%d"`) + `]}` }},
		{"filter", expr.MaxFilter, func(n int) string {
			return `{"channels":["c"],"filter":"true` + strings.Repeat(" ", n-4) + `"}`
		}},
		{"description", durable.MaxDescription, func(n int) string { return `{"channels":["c"],"description":"` + strings.Repeat("x", n) + `"}` }},
		{"labels", durable.MaxLabels, func(n int) string { return `{"channels":["c"],"labels":{` + list(n, `"l%d":"v"`) + `}}` }},
		{"labels", durable.MaxLabel, func(n int) string { return `{"channels":["c"],"labels":{"l":"` + strings.Repeat("v", n) + `"}}` }},
		{"window", durable.MaxWindow, func(n int) string { return fmt.Sprintf(`{"channels":["c"],"window":%d}`, n) }},
		{"group.partitions", durable.MaxPartitions, func(n int) string { return fmt.Sprintf(`{"channels":["c"],"group":{"partitions":%d}}`, n) }},
		{"callback.concurrency", durable.MaxConcurrency, func(n int) string { return call(fmt.Sprintf(`"order":"key","concurrency":%d`, n)) }},
		{"callback.batch.max_events", durable.MaxBatch, func(n int) string { return call(fmt.Sprintf(`"batch":{"max_events":%d}`, n)) }},
		{"callback.batch.max_wait", int(durable.MaxBatchWait.Milliseconds()), func(n int) string {
			return call(fmt.Sprintf(`"batch":{"max_events":2,"max_wait":"%dms"}`, n))
		}},
		{"callback.timeout", int(durable.MaxTimeout.Milliseconds()), func(n int) string { return call(fmt.Sprintf(`"timeout":"%dms"`, n)) }},
		{"callback.grace", int(durable.MaxGrace.Milliseconds()), func(n int) string { return call(fmt.Sprintf(`"grace":"%dms"`, n)) }},
		{"callback.rate", durable.MaxRate, func(n int) string { return call(fmt.Sprintf(`"rate":%d`, n)) }},
		{"callback.headers", durable.MaxHeaders, func(n int) string { return call(`"headers":{` + list(n, `"X-H%d":"v"`) + `}`) }},
		{"callback.url", durable.MaxURL, func(n int) string {
			return `{"channels":["c"],"callback":{"url":"https://a.example/` + strings.Repeat("x", n-18) + `"}}`
		}},
	} {
		if _, err := durable.ParseDefinition([]byte(limit.of(limit.most))); err != nil {
			t.Errorf("%s at its limit of %d: %v", limit.names, limit.most, err)
		}
		if _, err := durable.ParseDefinition([]byte(limit.of(limit.most + 1))); err == nil || !strings.HasPrefix(err.Error(), limit.names) {
			t.Errorf("%s beyond its limit of %d: %v", limit.names, limit.most, err)
		}
	}
	for name, ok := range map[string]bool{strings.Repeat("n", durable.MaxName): true, strings.Repeat("n", durable.MaxName+1): false} {
		if err := durable.CheckName(name); (err == nil) != ok {
			t.Errorf("a name of %d bytes: %v", len(name), err)
		}
	}
}
