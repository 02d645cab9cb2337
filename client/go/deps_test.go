package longline

import (
	"os/exec"
	"strings"
	"testing"
)

// Whoever imports this package gets a WebSocket library and a reader of event
// streams with it, and no storage, no Redis, no gateway.
func TestDependsOnLittle(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	allowed := []string{
		"github.com/longline-push/longline/client/go", "github.com/longline-push/longline/event", "github.com/longline-push/longline/gateway/wire",
		"github.com/coder/websocket", "github.com/tmaxmax/go-sse",
	}
	for path := range strings.FieldsSeq(string(out)) {
		ok := false
		for _, a := range allowed {
			ok = ok || path == a || strings.HasPrefix(path, a+"/")
		}
		if !ok {
			t.Errorf("depends on %s", path)
		}
	}
}
