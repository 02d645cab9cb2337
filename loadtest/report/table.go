// Package report shows results: a table and a progress bar on the terminal,
// and a page that needs nothing but a browser.
package report

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/target"
)

// leading are the figures that lead a table, those that there are.
var leading = []string{
	"deliveries/s", "publishes/s", "connects/s", "p50", "p90", "p99", "p99.9", "max",
	"CPU per delivery", "CPU per publish", "CPU per connect", "RSS per connection",
}

// A column of the table.
type column struct{ name, unit string }

func (c column) title() string {
	if c.unit == "" {
		return c.name
	}
	return c.name + " " + c.unit
}

// columns are what any row has: the leading figures, then the rest.
func columns(rows []measure.Row, only func(string) bool) []column {
	var first, rest []column
	seen := map[string]bool{}
	units := map[string]string{}
	for _, r := range rows {
		for _, m := range r.Metrics {
			if !seen[m.Name] && only(m.Name) {
				seen[m.Name] = true
				units[m.Name] = m.Unit
				rest = append(rest, column{m.Name, m.Unit})
			}
		}
	}
	lead := map[string]bool{}
	for _, name := range leading {
		if seen[name] {
			first = append(first, column{name, units[name]})
			lead[name] = true
		}
	}
	for _, c := range rest {
		if !lead[c.name] {
			first = append(first, c)
		}
	}
	return first
}

// inTable keeps the terminal's table narrow; the page has all.
func inTable(name string) bool {
	for _, of := range []string{"connect", "publish"} {
		i := strings.Index(name, of+" ")
		if i >= 0 && (strings.HasPrefix(name[i:], of+" p") || strings.HasSuffix(name, of+" max")) {
			return false
		}
	}
	return name != "RSS before" && name != "RSS connected"
}

// Table writes the medians of all cases, and under each the ratios to the
// floor where it was run alongside.
func Table(w io.Writer, r *measure.Report) error {
	rows := r.Summarize(target.Floor)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	cols := columns(rows, inTable)
	head := []string{"case", "target", "runs"}
	for _, c := range cols {
		head = append(head, c.title())
	}
	fmt.Fprintln(t, strings.Join(head, "\t")+"\t")
	for _, row := range rows {
		cells := []string{row.Case, row.Target, fmt.Sprint(row.Runs)}
		ratios := []string{"", "÷ floor", ""}
		for _, c := range cols {
			cell, ratio := "", ""
			if v, ok := row.Get(c.name); ok {
				cell = Number(v)
			}
			if q, ok := row.Ratio[c.name]; ok {
				ratio = fmt.Sprintf("%.2f", q)
			}
			cells, ratios = append(cells, cell), append(ratios, ratio)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t")+"\t")
		if len(row.Ratio) > 0 {
			fmt.Fprintln(t, strings.Join(ratios, "\t")+"\t")
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for _, run := range r.Runs {
		for _, n := range run.Notes {
			fmt.Fprintf(w, "%s, %s, run %d: %s\n", run.Case, run.Target, run.Number, n)
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintln(w, f)
	}
	for _, v := range r.Verdicts {
		mark := "ok    "
		if !v.Passed {
			mark = "FAILED"
		}
		fmt.Fprintf(w, "%s  %s: %s\n", mark, v.Name, v.Detail)
	}
	if err := r.Err(); err != nil {
		fmt.Fprintf(w, "FAILED\n%v\n", err)
	} else {
		fmt.Fprintln(w, r.Good())
	}
	return nil
}

// Number writes a figure with three significant digits or whole, thousands
// apart.
func Number(v float64) string {
	abs := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case abs >= 100 || v == math.Trunc(v):
		return thousands(int64(math.Round(v)))
	case abs >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	sign := ""
	if n < 0 {
		sign, s = "-", s[1:]
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return sign + s
}
