package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// The SDKs of this repository live through all stories, each as a process of
// its own against a gateway of its own.
func TestSDKs(t *testing.T) {
	dir := t.TempDir()
	var built sync.WaitGroup
	for name, path := range map[string]string{"longline": "", "godriver": "/client/behaviour/godriver"} {
		built.Go(func() {
			out, err := exec.Command("go", "build", "-o", filepath.Join(dir, name), "github.com/longline-push/longline"+path).CombinedOutput()
			if err != nil {
				t.Errorf("build %s: %v\n%s", name, err, out)
			}
		})
	}
	built.Wait()
	if t.Failed() {
		return
	}
	for _, sdk := range []struct{ name, kind, command string }{
		{"Go by WebSocket", "line", filepath.Join(dir, "godriver") + " websocket"},
		{"Go by SSE", "line", filepath.Join(dir, "godriver") + " sse"},
		{"JavaScript", "line", "node ../js/test/e2e/driver.js"},
		{"Python", "line", "/usr/bin/python3 ../python/tests/driver.py"},
		{"Python pulling", "pull", "/usr/bin/python3 ../python/tests/driver.py"},
	} {
		t.Run(sdk.name, func(t *testing.T) {
			t.Parallel()
			results, err := Judge(t.Context(), Options{Binary: filepath.Join(dir, "longline"), Kind: sdk.kind, Command: strings.Fields(sdk.command)})
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
	binary := filepath.Join(t.TempDir(), "longline")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/longline-push/longline").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
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
