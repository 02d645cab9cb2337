package report_test

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/longline-push/longline/loadtest/ledger"
	"github.com/longline-push/longline/loadtest/measure"
	"github.com/longline-push/longline/loadtest/report"
)

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 3: "3", 0.123: "0.12", 9.999: "10.00", 12.34: "12.3", 123.4: "123", 1234567: "1,234,567", -1234.5: "-1,235", math.NaN(): "–", math.Inf(1): "–",
	} {
		if got := report.Number(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}

func sample() *measure.Report {
	r := &measure.Report{Format: measure.Format, Scenario: "growth", Brief: "a <b>bold</b> claim", Started: time.Unix(0, 0)}
	for _, target := range []string{"longline", "floor"} {
		for i, n := range []float64{100, 1000} {
			h := measure.NewHistogram()
			for k := range 1000 {
				h.Record(time.Duration(k) * time.Millisecond)
			}
			run := &measure.Run{Case: []string{"ws 100 connections", "ws 1000 connections"}[i], X: n, Target: target, Number: 1}
			run.SetLatency("", h)
			run.SetLatency("publish", measure.NewHistogram()) // empty
			run.Set("CPU per delivery", "µs", n/10)
			run.Add("RSS", "MiB", 0, 10)
			run.Add("RSS", "MiB", time.Second, 10)
			run.Add("nothing", "1/s", time.Second, math.NaN())
			r.Runs = append(r.Runs, run)
		}
	}
	return r
}

func TestTable(t *testing.T) {
	r := sample()
	r.Findings = []string{"it is flat"}
	r.Verdicts = []measure.Verdict{{Name: "memory", Passed: true, Detail: "10 MiB"}}
	var b bytes.Buffer
	if err := report.Table(&b, r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"CPU per delivery µs", "ws 100 connections  longline", "÷ floor", "1.00", "it is flat", "ok      memory", "Every event arrived once"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, &b)
		}
	}
	r.Runs[0].Faults = ledger.Faults{Duplicated: 3}
	b.Reset()
	if err := report.Table(&b, r); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "FAILED") || !strings.Contains(b.String(), "3 duplicated") || strings.Contains(b.String(), "Every event arrived") {
		t.Errorf("a failure looks like this:\n%s", &b)
	}
}

// TestPageIsWellFormed parses the page: every element is closed, pictures too.
func TestPageIsWellFormed(t *testing.T) {
	for _, compare := range [][]string{nil, {"RSS"}} {
		r := sample()
		r.Compare = compare
		var b bytes.Buffer
		if err := report.HTML(&b, r); err != nil {
			t.Fatal(err)
		}
		page := b.String()
		if strings.Contains(page, "<b>bold</b>") {
			t.Error("text isn't escaped")
		}
		if n := strings.Count(page, "<svg"); n < 2 {
			t.Errorf("got %d pictures, want some", n)
		}
		body := page[strings.Index(page, "<h1>"):strings.Index(page, "</html>")]
		d := xml.NewDecoder(strings.NewReader("<html>" + strings.ReplaceAll(strings.ReplaceAll(body, "<br>", "<br/>"), "<details open>", "<details>") + "</html>"))
		for {
			_, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("the page isn't well formed: %v", err)
			}
		}
	}
}

func TestPageOfNothing(t *testing.T) {
	var b bytes.Buffer
	if err := report.HTML(&b, &measure.Report{Format: measure.Format}); err != nil {
		t.Fatal(err)
	}
}

func TestBar(t *testing.T) {
	var b bytes.Buffer
	bar := report.NewBar(&b, false)
	for range 3 {
		bar.Show("connecting, 5", 0.1)
	}
	bar.Show("measuring", 2)
	bar.Clear()
	if got, want := b.String(), "connecting\nmeasuring\n"; got != want {
		t.Errorf("no terminal: got %q, want %q", got, want)
	}
	b.Reset()
	bar = report.NewBar(&b, true)
	bar.Show("measuring", 0.5)
	bar.Clear()
	if got := b.String(); !strings.Contains(got, "██████████░░░░░░░░░░  50%  measuring") || !strings.HasSuffix(got, "\r") {
		t.Errorf("terminal: got %q", got)
	}
}
