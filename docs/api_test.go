package docs_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// lines is docs/asyncapi.yaml.
type lines struct {
	Components struct {
		Messages map[string]struct {
			Examples []struct{ Payload any }
		}
	}
	compiler *jsonschema.Compiler
}

func readLines(t *testing.T) *lines {
	t.Helper()
	text, err := yaml.YAMLToJSON([]byte(read(t, "asyncapi.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	l := &lines{compiler: jsonschema.NewCompiler()}
	if err := json.Unmarshal(text, l); err != nil {
		t.Fatal(err)
	}
	whole, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.compiler.AddResource("asyncapi.json", whole); err != nil {
		t.Fatal(err)
	}
	return l
}

// check holds a frame to the message's schema.
func (l *lines) check(t *testing.T, message, frame string) error {
	t.Helper()
	schema, err := l.compiler.Compile("asyncapi.json#/components/messages/" + message + "/payload")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(frame))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

// TestLinesAreAsDescribed holds docs/asyncapi.yaml to the golden frames, which
// the gateway and the SDKs are held to: what is a message fits its schema, what
// is none fits no schema, and there is a frame for each.
func TestLinesAreAsDescribed(t *testing.T) {
	l := readLines(t)
	var frames []struct{ Name, From, Frame, Kind, Error string }
	if err := json.Unmarshal([]byte(read(t, "../gateway/wire/testdata/frames.json")), &frames); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, f := range frames {
		switch {
		case f.Kind == "unknown":
		case f.Kind != "":
			seen[f.Kind] = true
			if err := l.check(t, f.Kind, f.Frame); err != nil {
				t.Errorf("%s: %s\n%v", f.Name, f.Frame, err)
			}
		default:
			for message := range l.Components.Messages {
				if err := l.check(t, message, f.Frame); err == nil {
					t.Errorf("%s: %s\nis a %s by its schema", f.Name, f.Frame, message)
				}
			}
		}
	}
	for message, m := range l.Components.Messages {
		for _, example := range m.Examples {
			text, err := json.Marshal(example.Payload)
			if err != nil {
				t.Fatal(err)
			}
			seen[message] = true
			if err := l.check(t, message, string(text)); err != nil {
				t.Errorf("example of %s: %s\n%v", message, text, err)
			}
		}
		if !seen[message] {
			t.Errorf("there is no frame and no example of %s", message)
		}
	}
	if len(seen) < 15 {
		t.Errorf("only %d kinds of messages", len(seen))
	}
}
