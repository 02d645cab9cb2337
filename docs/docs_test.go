// Package docs_test holds the pages to what is there: messages, links,
// snippets.
package docs_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const root = ".."

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// walk calls visit for each file of the project with the extension.
func walk(t *testing.T, extension string, visit func(path string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"node_modules", "vendor", "testdata"}, d.Name())) {
			return fs.SkipDir
		}
		if err == nil && !d.IsDir() && strings.HasSuffix(path, extension) {
			visit(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMessagesAreDocumented: what a gateway logs for an operator stands in the
// table of docs/operations.md with its level, what it means and what to do, and
// the table says nothing that isn't logged.
func TestMessagesAreDocumented(t *testing.T) {
	logged := messages(t)
	_, page, _ := strings.Cut(read(t, "operations.md"), "\n## What it says and what to do\n")
	page, _, _ = strings.Cut(page, "\n## ")
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([\\w, ]+) \\| [^|]{10,} \\|$").FindAllStringSubmatch(page, -1) {
		documented[row[1]] = row[2]
	}
	for text, at := range logged {
		if documented[text] != at.level {
			t.Errorf("%s: %q of level %s: the table has level %q", at.place, text, at.level, documented[text])
		}
	}
	for text := range documented {
		if _, ok := logged[text]; !ok {
			t.Errorf("the table has %q, which nothing logs", text)
		}
	}
	if len(logged) < 30 {
		t.Errorf("only %d messages were found", len(logged))
	}
}

type message struct{ level, place string }

// messages finds what a gateway logs above debug.
func messages(t *testing.T) map[string]message {
	t.Helper()
	found := make(map[string]message)
	logger := regexp.MustCompile(`(?i)(log|logger)$`)
	walk(t, ".go", func(path string) {
		part, _, _ := strings.Cut(strings.TrimPrefix(filepath.ToSlash(path), "../"), "/")
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "brokertest") || !slices.Contains([]string{"broker", "cli", "event", "gateway", "node"}, part) {
			return
		}
		files := token.NewFileSet()
		file, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !logger.MatchString(lastName(method.X)) {
				return true
			}
			level, argument := strings.TrimSuffix(method.Sel.Name, "Context"), 0
			if level != method.Sel.Name {
				argument = 1
			}
			if !slices.Contains([]string{"Info", "Warn", "Error"}, level) {
				return true
			}
			place := fmt.Sprint(files.Position(call.Pos()))
			literal, ok := call.Args[argument].(*ast.BasicLit)
			if !ok {
				t.Errorf("%s: the message is made up; want a literal, and what varies beside it", place)
				return true
			}
			text, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			level = strings.ToLower(level)
			if other, ok := found[text]; ok && other.level != level {
				level = "warn, error"
			}
			found[text] = message{level, place}
			return true
		})
	})
	return found
}

// lastName is the name that an expression ends with: Logger for w.e.opt.Logger.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.CallExpr: // s.logger(w)
		return lastName(e.Fun)
	}
	return ""
}

// TestLinksLead: each link to a file of the project, and to a heading in it,
// leads somewhere.
func TestLinksLead(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	checked := 0
	walk(t, ".md", func(path string) {
		for _, m := range link.FindAllStringSubmatch(read(t, path), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			checked++
			if info, err := os.Stat(target); err != nil {
				t.Errorf("%s: %s leads nowhere", path, m[1])
			} else if anchor != "" && !info.IsDir() && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s: %s: there is no such heading", path, m[1])
			}
		}
	})
	if checked < 40 {
		t.Errorf("only %d links were found", checked)
	}
}

// anchors are the headings of a page as GitHub links them.
func anchors(page string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		name := strings.ToLower(strings.TrimSpace(m[1]))
		name = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(name, "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}
