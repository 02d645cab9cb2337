package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/target"
)

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

type page struct {
	Report        *measure.Report
	Command       string
	Failure       string
	Columns       []string
	Rows          []pageRow
	Notes         []string
	Lead          []template.HTML
	Distributions []template.HTML
	Cases         []pageCase
}

type pageRow struct {
	Case, Target string
	Runs         int
	Cells        []pageCell
}

type pageCell struct{ Value, Ratio string }

type pageCase struct {
	Name     string
	Pictures []template.HTML
}

// HTML writes a page that holds the figures and, as inline SVG, the pictures
// of a report; it loads nothing from elsewhere.
func HTML(w io.Writer, r *measure.Report) error {
	rows := r.Summarize(target.Floor)
	cols := columns(rows, func(string) bool { return true })
	p := page{Report: r, Command: strings.Join(r.Command, " ")}
	if err := r.Err(); err != nil {
		p.Failure = err.Error()
	}
	for _, c := range cols {
		p.Columns = append(p.Columns, c.title())
	}
	for _, row := range rows {
		p.Rows = append(p.Rows, newPageRow(row, cols))
	}
	for _, run := range r.Runs {
		for _, n := range run.Notes {
			p.Notes = append(p.Notes, fmt.Sprintf("%s, %s, run %d: %s", run.Case, run.Target, run.Number, n))
		}
	}
	var err error
	if p.Lead, err = leadPictures(r, rows); err != nil {
		return err
	}
	for _, name := range cases(r) {
		if len(r.Compare) > 0 {
			break // the lead pictures have it all
		}
		runs := ofCase(r, name)
		distributions, err := distributionPictures(name, runs)
		if err != nil {
			return err
		}
		p.Distributions = append(p.Distributions, distributions...)
		pictures, err := seriesPictures(runs)
		if err != nil {
			return err
		}
		if len(pictures) > 0 {
			p.Cases = append(p.Cases, pageCase{name, pictures})
		}
	}
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return nil
}

func newPageRow(row measure.Row, cols []column) pageRow {
	pr := pageRow{Case: row.Case, Target: row.Target, Runs: row.Runs}
	for _, c := range cols {
		var cell pageCell
		if v, ok := row.Get(c.name); ok {
			cell.Value = Number(v)
		}
		if q, ok := row.Ratio[c.name]; ok {
			cell.Ratio = fmt.Sprintf("%.2f", q)
		}
		pr.Cells = append(pr.Cells, cell)
	}
	return pr
}

// cases are the names of a report's cases in their order.
func cases(r *measure.Report) []string {
	var names []string
	for _, run := range r.Runs {
		if !slices.Contains(names, run.Case) {
			names = append(names, run.Case)
		}
	}
	return names
}

func ofCase(r *measure.Report, name string) []*measure.Run {
	var runs []*measure.Run
	for _, run := range r.Runs {
		if run.Case == name {
			runs = append(runs, run)
		}
	}
	return runs
}
