package docs_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/api.md anew")

// openAPI is what of gateway/openapi.json is shown.
type openAPI struct {
	Tags  []struct{ Name, Description string }
	Paths map[string]map[string]json.RawMessage

	Components struct {
		Parameters map[string]parameter
		Responses  map[string]response
		Schemas    map[string]schema
	}
}

type operation struct {
	Tags                 []string
	Summary, Description string
	Parameters           []parameter
	RequestBody          struct {
		Content map[string]struct{ Schema schema }
	}
	Responses map[string]response
}

type parameter struct {
	Ref         string `json:"$ref"`
	Name, In    string
	Description string
	Schema      schema
}

type response struct {
	Ref         string `json:"$ref"`
	Description string
	Content     map[string]struct{ Schema schema }
}

type schema struct {
	Ref         string `json:"$ref"`
	Type        any
	Description string
	Enum        []any
	Const       any
	Default     any
	Items       *schema
	Properties  map[string]schema
	Required    []string
	OneOf       []schema
	AnyOf       []schema
	AllOf       []schema
}

func last(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

// shape is a type in a few words, with a link where it has a name.
func (s schema) shape() string {
	switch {
	case s.Ref != "":
		return "[" + last(s.Ref) + "](#" + strings.ToLower(last(s.Ref)) + ")"
	case len(s.OneOf)+len(s.AnyOf) > 0:
		var all []string
		for _, one := range append(s.OneOf, s.AnyOf...) {
			all = append(all, one.shape())
		}
		return strings.Join(slices.Compact(all), " or ")
	case s.Const != nil:
		return fmt.Sprintf("`%v`", s.Const)
	case len(s.Enum) > 0:
		var all []string
		for _, v := range s.Enum {
			all = append(all, fmt.Sprintf("`%v`", v))
		}
		return strings.Join(all, ", ")
	case s.Items != nil:
		return "list of " + s.Items.shape()
	case len(s.AllOf) == 1:
		return s.AllOf[0].shape()
	case len(s.Properties) > 0:
		return "`{" + strings.Join(slices.Sorted(maps.Keys(s.Properties)), ", ") + "}`"
	}
	switch kind := s.Type.(type) {
	case string:
		return kind
	case []any:
		return strings.Trim(strings.ReplaceAll(fmt.Sprint(kind), " ", " or "), "[]")
	}
	return "anything"
}

func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(text), "\n", " "), "|", "\\|")
}

// TestAPIIsRendered holds docs/api.md to gateway/openapi.json. Run with -update
// after a change.
func TestAPIIsRendered(t *testing.T) {
	var api openAPI
	if err := json.Unmarshal([]byte(read(t, "../gateway/openapi.json")), &api); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# HTTP API\n\nMade from the gateway's own description (`GET /v1/openapi.json`), which a test holds each answer to. What goes over a line is in [asyncapi.yaml](asyncapi.yaml); what it all means is in [Protocol](protocol.md). Every request but those for health and pages shows a token, as [there](protocol.md#tokens); every refusal is a [Problem](#problem).\n")
	rank := []string{"get", "put", "post", "patch", "delete"}
	for _, tag := range api.Tags {
		b.WriteString("\n## " + tag.Description + "\n")
		for _, path := range slices.Sorted(maps.Keys(api.Paths)) {
			item := api.Paths[path]
			var shared []parameter
			if raw := item["parameters"]; raw != nil {
				if err := json.Unmarshal(raw, &shared); err != nil {
					t.Fatal(err)
				}
			}
			for _, method := range rank {
				if item[method] == nil {
					continue
				}
				var op operation
				if err := json.Unmarshal(item[method], &op); err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				if op.Tags[0] == tag.Name {
					api.operation(&b, strings.ToUpper(method)+" "+path, op, shared)
				}
			}
		}
	}
	b.WriteString("\n## Schemas\n")
	for _, name := range slices.Sorted(maps.Keys(api.Components.Schemas)) {
		api.schema(&b, name)
	}
	want := b.String()
	if *update {
		if err := os.WriteFile("api.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if read(t, "api.md") != want {
		t.Error("docs/api.md isn't what gateway/openapi.json says: go test ./docs -run APIIsRendered -update")
	}
}

func (api *openAPI) operation(b *strings.Builder, name string, op operation, shared []parameter) {
	fmt.Fprintf(b, "\n### %s\n\n%s.", name, strings.TrimSuffix(op.Summary, "."))
	if op.Description != "" {
		fmt.Fprintf(b, " %s", op.Description)
	}
	b.WriteString("\n\n")
	var rows []string
	for _, p := range append(shared, op.Parameters...) {
		if p.Ref != "" {
			p = api.Components.Parameters[last(p.Ref)]
		}
		if p.In == "path" {
			continue
		}
		rows = append(rows, fmt.Sprintf("| `%s` | %s | %s | %s |", p.Name, p.In, p.Schema.shape(), cell(p.Description)))
	}
	if len(rows) > 0 {
		b.WriteString("| parameter | in | | |\n|---|---|---|---|\n" + strings.Join(rows, "\n") + "\n\n")
	}
	for _, kind := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
		s := op.RequestBody.Content[kind].Schema
		fmt.Fprintf(b, "- takes `%s`: %s%s\n", kind, s.shape(), describe(s))
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		if r.Ref != "" {
			r = api.Components.Responses[last(r.Ref)]
		}
		fmt.Fprintf(b, "- **%s** %s", status, cell(r.Description))
		for _, kind := range slices.Sorted(maps.Keys(r.Content)) {
			if kind == "application/json" {
				fmt.Fprintf(b, " %s", r.Content[kind].Schema.shape())
			} else if kind != "application/problem+json" {
				fmt.Fprintf(b, " `%s`", kind)
			}
		}
		b.WriteString("\n")
	}
}

func describe(s schema) string {
	if s.Description == "" {
		return ""
	}
	return ". " + cell(s.Description)
}

func (api *openAPI) schema(b *strings.Builder, name string) {
	s := api.Components.Schemas[name]
	fmt.Fprintf(b, "\n### %s\n\n", name)
	if s.Description != "" {
		fmt.Fprintf(b, "%s\n\n", cell(s.Description))
	}
	fields := make(map[string]schema)
	maps.Copy(fields, s.Properties)
	for _, part := range s.AllOf {
		if part.Ref != "" {
			fmt.Fprintf(b, "All of %s, and:\n\n", part.shape())
		}
		maps.Copy(fields, part.Properties)
	}
	if len(fields) == 0 {
		if shape := s.shape(); shape != "object" {
			fmt.Fprintf(b, "%s\n", shape)
		}
		return
	}
	b.WriteString("| | | |\n|---|---|---|\n")
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		star := ""
		if slices.Contains(s.Required, field) {
			star = " \\*"
		}
		fmt.Fprintf(b, "| `%s`%s | %s | %s |\n", field, star, fields[field].shape(), cell(fields[field].Description))
	}
}
