package cli

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// Each limit of serve is in the table of docs/operations.md with its default.
func TestLimitsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "\n## Limits\n")
	table, _, _ = strings.Cut(table, "\n## ")
	table = strings.NewReplacer(",", "", " KiB", "KiB", " MiB", "MiB").Replace(table)
	fields := reflect.TypeFor[serveCmd]()
	found := 0
	for i := range fields.NumField() {
		f := fields.Field(i)
		if !regexp.MustCompile(`^(Max[A-Z]|ConnectRate|Publish|Memory$)`).MatchString(f.Name) || f.Name == "MaxTotalBytes" {
			continue
		}
		found++
		flag := "`--" + strings.ToLower(regexp.MustCompile(`([a-z])([A-Z])`).ReplaceAllString(f.Name, "$1-$2")) + "`"
		var row string
		for line := range strings.Lines(table) {
			if strings.Contains(line, flag) && strings.HasPrefix(line, "|") {
				row = line
			}
		}
		if byDefault := f.Tag.Get("default"); row == "" || byDefault != "0" && !strings.Contains(row, byDefault) {
			t.Errorf("%s, by default %s, has the row %q", flag, byDefault, row)
		}
	}
	if found < 10 {
		t.Errorf("only %d limits were found", found)
	}
}
