package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/longline-push/longline/"

// TestImportsPointDown: main → gateway → brokers' contract → event. Packages
// named here may import, of this module, what stands behind them only.
func TestImportsPointDown(t *testing.T) {
	rules := map[string][]string{
		"event":  {},
		"broker": {"event"},
		// Each broker by itself.
		"broker/brokertest": {"broker", "event"},
		"broker/embedded":   {"broker", "event"},
		"broker/redis":      {"broker", "event"},
		// The live path, from the bottom up.
		"gateway/wire":    {"broker", "event"},
		"gateway/conn":    {"broker", "event", "gateway/wire"},
		"gateway/auth":    {"broker", "event", "gateway/wire"},
		"gateway/feed":    {"broker", "event", "gateway/wire"},
		"gateway/publish": {"broker", "event", "gateway/wire", "gateway/auth"},
		"gateway/console": {},
		"gateway/webhook": {"event"},
		"gateway/expr":    {},
		// The SDK needs no gateway.
		"client/go": {"event", "gateway/wire"},
	}
	// Transports never import each other, nor the server above them.
	transports := []string{"gateway/ws", "gateway/sse", "gateway/pull", "gateway/callback"}

	for path, imports := range list(t) {
		if allowed, ok := rules[path]; ok {
			for _, i := range imports {
				if !slices.Contains(allowed, i) {
					t.Errorf("%s imports %s; it may import %v", path, i, allowed)
				}
			}
		}
		for _, i := range imports {
			if i == "gateway" && path != "" {
				t.Errorf("%s imports gateway; only main does", path)
			}
			if strings.HasPrefix(path, "gateway") && (i == "broker/embedded" || i == "broker/redis") && !strings.HasSuffix(path, "test") {
				t.Errorf("%s imports %s; only main chooses a broker", path, i)
			}
			for _, a := range transports {
				for _, b := range transports {
					if a != b && path == a && i == b {
						t.Errorf("%s imports %s; transports never import each other", a, b)
					}
				}
			}
		}
	}
}

// list returns the module's packages with what they import of it, tests left
// out, by path within the module.
func list(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := make(map[string][]string)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		var own []string
		for _, i := range p.Imports {
			if path, ok := strings.CutPrefix(i, module); ok {
				own = append(own, path)
			}
		}
		packages[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, strings.TrimSuffix(module, "/")), "/")] = own
	}
	if len(packages) < 10 {
		t.Fatalf("only %d packages listed", len(packages))
	}
	return packages
}
