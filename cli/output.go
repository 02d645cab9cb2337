package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

// Commands print for people on a terminal, and JSON into a pipe or with
// --json: a list one entry a line, anything else as one object.

// terminal is a writer that says whether people read it.
type terminal interface{ Terminal() bool }

// people tells whether what is printed is read by people.
func (e *environment) people(asJSON bool) bool { return !asJSON && isTerminal(e.stdout) }

func isTerminal(w io.Writer) bool {
	switch w := w.(type) {
	case terminal:
		return w.Terminal()
	case *os.File:
		info, err := w.Stat()
		return err == nil && info.Mode()&os.ModeCharDevice != 0 && w.Name() != os.DevNull
	}
	return false
}

// colour is an ANSI sequence.
type colour string

const (
	green  colour = "32"
	yellow colour = "33"
	red    colour = "31"
	faint  colour = "2"
)

// paint colours text for w, if that is a terminal and NO_COLOR isn't set.
func paint(w io.Writer, c colour, text string) string {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// printLine prints one line of JSON.
func printLine(env *environment, line []byte) error {
	if _, err := fmt.Fprintf(env.stdout, "%s\n", line); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}

// printJSON prints an answer, indented.
func printJSON(env *environment, answer json.RawMessage) error {
	var indented bytes.Buffer
	if err := json.Indent(&indented, answer, "", "  "); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return printLine(env, indented.Bytes())
}

// column is one of a table: a heading, and where its cell is in an entry.
type column struct {
	heading string
	cell    func(entry fields) string
}

// fields are a JSON object's.
type fields map[string]any

// at is the value at a path of names joined by dots, "" if it isn't there.
func (f fields) at(path string) string {
	var value any = map[string]any(f)
	for _, name := range strings.Split(path, ".") {
		object, ok := value.(map[string]any)
		if !ok {
			return ""
		}
		value = object[name]
	}
	switch value := value.(type) {
	case nil:
		return ""
	case []any:
		parts := make([]string, len(value))
		for i, v := range value {
			parts[i] = fmt.Sprint(v)
		}
		return strings.Join(parts, " ")
	case map[string]any:
		text, _ := json.Marshal(value) // it was JSON a moment ago
		return string(text)
	default:
		return fmt.Sprint(value)
	}
}

// parseFields reads an object; numbers stay as they were written.
func parseFields(raw json.RawMessage) (fields, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var f fields
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return f, nil
}

// field is a column that shows what is at a path.
func field(heading, path string) column {
	return column{heading, func(entry fields) string { return entry.at(path) }}
}

// table prints entries for people; without columns they are names.
func table(env *environment, columns []column, entries []json.RawMessage, none string) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(env.stdout, none)
		return err
	}
	if columns == nil {
		return names(env, entries)
	}
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	for i, c := range columns {
		fmt.Fprint(w, c.heading, separator(i, columns))
	}
	for _, raw := range entries {
		entry, err := parseFields(raw)
		if err != nil {
			return err
		}
		for i, c := range columns {
			cell := c.cell(entry)
			if cell == "" {
				cell = "-"
			}
			fmt.Fprint(w, printable(cell), separator(i, columns))
		}
	}
	return w.Flush()
}

func names(env *environment, entries []json.RawMessage) error {
	for _, raw := range entries {
		var name string
		if err := json.Unmarshal(raw, &name); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if err := printLine(env, []byte(printable(name))); err != nil {
			return err
		}
	}
	return nil
}

func separator(i int, columns []column) string {
	if i == len(columns)-1 {
		return "\n"
	}
	return "\t"
}

// printable keeps what others wrote from steering a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '�'
		}
		return r
	}, text)
}

// facts prints what is known of one thing, a line each; empty ones are left out.
func facts(env *environment, pairs ...string) error {
	w := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", pairs[i], printable(pairs[i+1]))
		}
	}
	return w.Flush()
}
