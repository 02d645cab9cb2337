package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/longline-push/longline/internal/process"
)

// skewEnv says by how many seconds a gateway's wall clock is off, maxSkew at most
// here; its monotonic one is right.
const (
	skewEnv = "CHAOS_SKEW"
	maxSkew = 120
)

// skewed is added to Go's own package time.
const skewed = `package time

import "syscall"

// skew is added to each reading of the wall clock.
var skew = func() (seconds int64) {
	text, _ := syscall.Getenv("` + skewEnv + `")
	sign := int64(1)
	for _, c := range text {
		if c == '-' {
			sign = -1
		} else {
			seconds = 10*seconds + int64(c-'0')
		}
	}
	return sign * seconds
}()
`

// buildSkewable builds a gateway whose clock can be set wrong. The gateway itself
// is what everybody has: it is the standard library whose clock is another.
func buildSkewable(dir string) (string, error) {
	const reading = "sec, nsec, mono := runtimeNow()\n"
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("ask go where its library is: %w", err)
	}
	library := filepath.Join(strings.TrimSpace(string(root)), "src/time")
	text, err := os.ReadFile(filepath.Join(library, "time.go"))
	if err != nil {
		return "", err
	}
	if strings.Count(string(text), reading) != 1 {
		return "", fmt.Errorf("package time of %s reads the clock in another way", runtime.Version())
	}
	replace := map[string]string{}
	for name, text := range map[string]string{"time.go": strings.Replace(string(text), reading, reading+"\tsec += skew\n", 1), "skew.go": skewed} {
		replace[filepath.Join(library, name)] = filepath.Join(dir, name)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o644); err != nil {
		return "", err
	}
	return process.Build(dir, "-overlay", path)
}
