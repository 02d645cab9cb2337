package report

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// A Bar shows progress: on a terminal as a bar that is redrawn in place, else
// as a line whenever something new begins. Its methods may be called by
// several goroutines.
type Bar struct {
	w        io.Writer
	terminal bool

	mu    sync.Mutex
	drawn time.Time
	stage string
	width int // of what stands on the line
}

// NewBar returns a bar on w.
func NewBar(w io.Writer, terminal bool) *Bar { return &Bar{w: w, terminal: terminal} }

// Show says what is going on and how much of it is done, between 0 and 1.
func (b *Bar) Show(what string, done float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	stage, _, _ := strings.Cut(what, ",")
	fresh := stage != b.stage
	b.stage = stage
	if !b.terminal {
		if fresh {
			fmt.Fprintln(b.w, stage)
		}
		return
	}
	if !fresh && time.Since(b.drawn) < 100*time.Millisecond {
		return
	}
	b.drawn = time.Now()
	const cells = 20
	full := int(min(max(done, 0), 1) * cells)
	line := fmt.Sprintf("%s%s %3.0f%%  %s", strings.Repeat("█", full), strings.Repeat("░", cells-full), 100*min(max(done, 0), 1), what)
	b.draw(line)
}

func (b *Bar) draw(line string) {
	n := utf8.RuneCountInString(line)
	fmt.Fprintf(b.w, "\r%s%s", line, strings.Repeat(" ", max(b.width-n, 0)))
	b.width = n
}

// Clear takes the bar off the line, for the table to begin there.
func (b *Bar) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.terminal && b.width > 0 {
		b.draw("")
		fmt.Fprint(b.w, "\r")
		b.width = 0
	}
}
