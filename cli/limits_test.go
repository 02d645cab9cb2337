package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestLimitsAreDocumented holds docs/limits.md to the code: each row's flag is
// there with its default, what it is counted as is, and so is the test that
// shows what is said; and each limit of serve and each name that the budget
// counts has its row.
func TestLimitsAreDocumented(t *testing.T) {
	read := func(file string) string {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	metrics := read("../docs/metrics.md")
	budget, tests := sources(t)
	set, fixed, _ := strings.Cut(read("../docs/limits.md"), "\n## Fixed\n")
	code := regexp.MustCompile("`([^`]+)`")
	names := func(cell string) (all []string) {
		for _, m := range code.FindAllStringSubmatch(cell, -1) {
			all = append(all, m[1])
		}
		return all
	}

	flags := make(map[string]string) // limits of serve, with their defaults
	isLimit := regexp.MustCompile(`^(Max[A-Z]|ConnectRate|Publish|Memory$|WriteTimeout$)`)
	for f := range reflect.TypeFor[serveCmd]().Fields() {
		if isLimit.MatchString(f.Name) {
			flags["--"+strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(f.Name, "$1-$2"))] = f.Tag.Get("default")
		}
	}
	var flagged, counted []string
	plain := strings.NewReplacer(",", "", " KiB", "KiB", " MiB", "MiB", " s", "s")
	for _, row := range rowsOf(set) {
		what, flag, byDefault, count, shownBy := row[0], row[1], row[2], row[3], row[5]
		for _, name := range names(flag) {
			want, ok := flags[name]
			if strings.HasPrefix(name, "--") && !ok {
				t.Errorf("%s: there is no %s", what, name)
			}
			if want != "" && want != "0" && plain.Replace(byDefault) != want {
				t.Errorf("%s: %s is %s by default, not %s", what, name, want, byDefault)
			}
			flagged = append(flagged, name)
		}
		for _, name := range names(count) {
			if strings.HasPrefix(name, "longline_") && !strings.Contains(metrics, "`"+name+"`") || !strings.HasPrefix(name, "longline_") && !slices.Contains(budget, name) {
				t.Errorf("%s: nothing is counted as %s", what, name)
			}
			counted = append(counted, name)
		}
		wantTests(t, what, names(shownBy), tests)
	}
	for flag := range flags {
		if !slices.Contains(flagged, flag) {
			t.Errorf("%s has no row", flag)
		}
	}
	for _, name := range budget {
		if !slices.Contains(counted, name) {
			t.Errorf("what is counted as %s has no row", name)
		}
	}
	if len(rowsOf(fixed)) < 15 || len(flags) < 15 || len(budget) < 10 {
		t.Errorf("found %d fixed limits, %d flags, %d names", len(rowsOf(fixed)), len(flags), len(budget))
	}
	for _, row := range rowsOf(fixed) {
		wantTests(t, row[0], names(row[3]), tests)
	}
}

func wantTests(t *testing.T, what string, names []string, tests string) {
	t.Helper()
	if len(names) == 0 {
		t.Errorf("%s: no test", what)
	}
	for _, name := range names {
		if !strings.Contains(tests, "func "+name+"(") {
			t.Errorf("%s: there is no test %s", what, name)
		}
	}
}

// rowsOf returns the cells of a page's tables, their heads left out.
func rowsOf(page string) (rows [][]string) {
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| what ") {
			continue
		}
		var row []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), "|") {
			row = append(row, strings.TrimSpace(cell))
		}
		rows = append(rows, row)
	}
	return rows
}

// sources returns the names by which the budget refuses, and the text of all
// tests and of the brokers' suite.
func sources(t *testing.T) (budget []string, tests string) {
	t.Helper()
	named := regexp.MustCompile(`(?:refusedBy\(|const limit = |NewAccount\("max-|take\([\w.]+, now, \w+, )"?([\w-]+)"`)
	var all strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && d.Name() != "..") {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		text, err := os.ReadFile(path)
		if strings.HasSuffix(path, "_test.go") || strings.Contains(path, "brokertest") {
			all.Write(text)
		} else if filepath.Base(filepath.Dir(path)) == "quota" {
			for _, m := range named.FindAllSubmatch(text, -1) {
				name := string(m[1])
				if strings.HasPrefix(string(m[0]), "NewAccount") {
					name = "max-" + name
				}
				budget = append(budget, name)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return budget, all.String()
}
