package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dir holds the gateway's binary and that of the Go driver.
var dir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if dir, err = os.MkdirTemp("", "longline-behaviour-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		out, err := exec.Command("go", "build", "-o", dir+"/", "github.com/longline-push/longline", "github.com/longline-push/longline/client/behaviour/godriver").CombinedOutput()
		if err != nil {
			fmt.Fprintf(os.Stderr, "build the gateway and the driver: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// The SDKs of this repository live through all stories, each as a process of
// its own against a gateway of its own.
func TestSDKs(t *testing.T) {
	for _, sdk := range []struct{ name, kind, command, skip string }{
		{"Go by WebSocket", "line", filepath.Join(dir, "godriver") + " websocket", ""},
		{"Go by SSE", "line", filepath.Join(dir, "godriver") + " sse", ""},
		{"JavaScript", "line", "node ../js/test/e2e/driver.js", ""},
		{"Python", "line", "/usr/bin/python3 ../python/tests/driver.py", ""},
		{"Python pulling", "pull", "/usr/bin/python3 ../python/tests/driver.py", ""},
		{"PHP pulling", "pull", "php ../php/tests/driver.php", "slow"}, // it handles one at a time
	} {
		t.Run(sdk.name, func(t *testing.T) {
			t.Parallel()
			results, err := Judge(t.Context(), Options{Binary: filepath.Join(dir, "longline"), Kind: sdk.kind, Command: strings.Fields(sdk.command), Skip: split(sdk.skip)})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range results {
				if r.Err != nil {
					t.Errorf("%s: %v", r.Story, r.Err)
				}
			}
		})
	}
}

// A client that does nothing fails every story, and is told how.
func TestAClientThatDoesNothingIsTold(t *testing.T) {
	binary := filepath.Join(dir, "longline")
	results, err := Judge(t.Context(), Options{Binary: binary, Kind: "line", Command: []string{"sh", "-c", "echo hello; sleep 60"}, Only: []string{"order", "final"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err == nil || !strings.Contains(r.Err.Error(), "hello") {
			t.Errorf("%s: got %v, want it to name what the driver says", r.Story, r.Err)
		}
	}
	if _, err := Judge(t.Context(), Options{Binary: binary, Kind: "line", Only: []string{"nothing"}}); err == nil {
		t.Error("a story that there is not is lived through")
	}
}

// The protocol's page has each story, by its name and in its words.
func TestTheChecklistHasEachStory(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stories {
		row := fmt.Sprintf("| `%s` | %s | %s |", s.name, strings.Join(s.kinds, ", "), s.about)
		if !slices.Contains(strings.Split(string(page), "\n"), row) {
			t.Errorf("docs/protocol.md lacks the line\n%s", row)
		}
	}
}
