// Package recipes has the definitions of subscriptions that are somebody's API
// call, as their pages in this directory show them.
package recipes

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
)

//go:embed *.md
var pages embed.FS

// Recipe is one of them.
type Recipe struct {
	Name       string          `json:"name"` // e.g. "salesforce"
	Title      string          `json:"title"`
	Text       string          `json:"text"`       // what is to be done at the other end; Markdown
	Definition json.RawMessage `json:"definition"` // with names in it that are to be replaced
}

// All are all of them, by name. They are not to be changed.
var All = sync.OnceValue(func() (all []Recipe) {
	entries, err := pages.ReadDir(".")
	if err != nil {
		panic(err) // the embedded directory has no such name
	}
	for _, e := range entries {
		name, _ := strings.CutSuffix(e.Name(), ".md")
		if name == "README" {
			continue
		}
		page, err := pages.ReadFile(e.Name())
		if err != nil {
			panic(err)
		}
		r, err := read(name, string(page))
		if err != nil {
			panic(err) // a test reads them all
		}
		all = append(all, r)
	}
	return all
})

// read takes a page apart: its title, what stands before the definition, and
// that.
func read(name, page string) (Recipe, error) {
	title, rest, _ := strings.Cut(strings.TrimPrefix(page, "# "), "\n")
	text, rest, ok := strings.Cut(rest, "```json\n")
	definition, _, closed := strings.Cut(rest, "```")
	var compact bytes.Buffer
	if !ok || !closed {
		return Recipe{}, fmt.Errorf("recipe %s: no definition in it", name)
	}
	if err := json.Compact(&compact, []byte(definition)); err != nil {
		return Recipe{}, fmt.Errorf("recipe %s: %w", name, err)
	}
	return Recipe{Name: name, Title: strings.TrimSpace(title), Text: strings.TrimSpace(text), Definition: compact.Bytes()}, nil
}
