package main

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/longline-push/longline/"

// imports is what each package imports of this module, tests left out. Imports
// point down: main → cli → node → gateway → the packages of gateway → the
// broker's contract → event. Only node chooses a broker, transports (ws, sse,
// pull, callback) never import each other, and the SDK needs no gateway. Who
// adds a line or a name here sees whether it still is so.
var imports = map[string]string{
	"":                            "cli",
	"broker":                      "event",
	"broker/brokertest":           "broker event",
	"broker/embedded":             "broker event",
	"broker/redis":                "broker event",
	"broker/redis/redistest":      "",
	"cli":                         "broker client/go demo event gateway/auth gateway/expr gateway/webhook node",
	"client/behaviour":            "",
	"client/behaviour/godriver":   "client/go",
	"client/go":                   "event",
	"client/js":                   "",
	"demo":                        "client/go gateway/console loadtest/crm loadtest/measure loadtest/probe loadtest/server loadtest/token",
	"deploy":                      "",
	"docs":                        "",
	"docs/recipes":                "",
	"e2e":                         "",
	"e2e/chaos":                   "",
	"e2e/hostile":                 "",
	"event":                       "",
	"examples/go":                 "client/go",
	"examples/three-workers":      "client/go",
	"examples":                    "",
	"gateway":                     "broker client/js docs/recipes event gateway/access gateway/auth gateway/console gateway/cursor gateway/feed gateway/guard gateway/proxies gateway/publish gateway/quota gateway/session gateway/sse gateway/stats gateway/trace gateway/wire gateway/ws",
	"gateway/access":              "event gateway/auth gateway/wire",
	"gateway/auth":                "broker event gateway/wire",
	"gateway/auth/authtest":       "gateway/auth",
	"gateway/callback":            "broker event gateway/cursor gateway/durable gateway/expr gateway/feed gateway/guard gateway/shape gateway/trace gateway/webhook gateway/wire",
	"gateway/conn":                "",
	"gateway/console":             "",
	"gateway/cursor":              "broker event gateway/expr gateway/feed gateway/wire",
	"gateway/durable":             "broker event gateway/access gateway/cursor gateway/expr gateway/guard gateway/shape gateway/webhook gateway/wire",
	"gateway/durable/durabletest": "broker/embedded gateway/durable",
	"gateway/durable/simulation":  "",
	"gateway/expr":                "",
	"gateway/feed":                "broker event gateway/guard gateway/wire",
	"gateway/feed/feedtest":       "broker event",
	"gateway/guard":               "",
	"gateway/lag":                 "broker event",
	"gateway/proxies":             "",
	"gateway/publish":             "broker event gateway/access gateway/auth gateway/wire",
	"gateway/pull":                "broker event gateway/auth gateway/cursor gateway/durable gateway/feed gateway/guard gateway/session gateway/wire",
	"gateway/quota":               "gateway/auth gateway/wire",
	"gateway/session":             "broker event gateway/access gateway/auth gateway/conn gateway/cursor gateway/durable gateway/feed gateway/guard gateway/quota gateway/trace gateway/wire",
	"gateway/shape":               "event gateway/expr gateway/webhook",
	"gateway/sse":                 "event gateway/access gateway/auth gateway/conn gateway/feed gateway/session gateway/wire",
	"gateway/stats":               "",
	"gateway/subscriptions":       "broker event gateway/access gateway/auth gateway/callback gateway/cursor gateway/durable gateway/feed gateway/lag gateway/quota gateway/webhook gateway/wire",
	"gateway/trace":               "broker event",
	"gateway/webhook":             "event",
	"gateway/wire":                "broker event",
	"gateway/ws":                  "event gateway/access gateway/auth gateway/conn gateway/cursor gateway/feed gateway/session gateway/wire",
	"internal/ledger":             "event",
	"internal/oracle":             "event",
	"internal/process":            "",
	"loadtest":                    "loadtest/child loadtest/floor loadtest/measure loadtest/report loadtest/scenario loadtest/swarm loadtest/target loadtest/token",
	"loadtest/callbacks":          "loadtest/child loadtest/measure loadtest/target loadtest/token",
	"loadtest/child":              "",
	"loadtest/crm":                "loadtest/measure loadtest/probe",
	"loadtest/floor":              "loadtest/child loadtest/poll loadtest/probe loadtest/wire",
	"loadtest/ledger":             "",
	"loadtest/measure":            "loadtest/ledger",
	"loadtest/poll":               "",
	"loadtest/probe":              "",
	"loadtest/pump":               "loadtest/measure loadtest/poll loadtest/probe loadtest/token loadtest/wire",
	"loadtest/report":             "loadtest/measure loadtest/target",
	"loadtest/scenario":           "client/go loadtest/crm loadtest/ledger loadtest/measure loadtest/probe loadtest/pump loadtest/swarm loadtest/target loadtest/token",
	"loadtest/server":             "",
	"loadtest/swarm":              "loadtest/child loadtest/ledger loadtest/measure loadtest/poll loadtest/probe loadtest/token loadtest/wire",
	"loadtest/target":             "loadtest/floor loadtest/measure loadtest/server loadtest/token",
	"loadtest/token":              "",
	"loadtest/wire":               "",
	"node":                        "broker broker/embedded broker/redis event gateway gateway/auth gateway/callback gateway/conn gateway/durable gateway/guard gateway/lag gateway/proxies gateway/publish gateway/pull gateway/quota gateway/session gateway/stats gateway/subscriptions gateway/trace gateway/wire",
}

func TestImportsPointDown(t *testing.T) {
	listed := list(t)
	for path, own := range listed {
		want, ok := imports[path]
		if got := strings.Join(own, " "); !ok || got != want {
			t.Errorf("%q imports %q, listed is %q: is it right that it does? Then change the list", path, got, want)
		}
	}
	for path := range imports {
		if _, ok := listed[path]; !ok {
			t.Errorf("%q is listed, but there is no such package", path)
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
		slices.Sort(own)
		packages[strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, strings.TrimSuffix(module, "/")), "/")] = own
	}
	if len(packages) < 10 {
		t.Fatalf("only %d packages listed", len(packages))
	}
	return packages
}

// TestRightsAreAskedInOnePlace: gateway/access alone compares a grant with a
// name, so that no way into a channel can forget to.
func TestRightsAreAskedInOnePlace(t *testing.T) {
	asks := regexp.MustCompile(`\.(MaySubscribe|MayPublish|MayPublishAnything|MaySubscription)\(`)
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		if dir := filepath.ToSlash(filepath.Dir(path)); dir == "gateway/access" || dir == "gateway/auth" {
			return nil
		}
		text, err := os.ReadFile(path)
		if m := asks.Find(text); m != nil {
			t.Errorf("%s asks a grant with %s…; want package access to", path, m)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
