package longline

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReadme: what the README begins with, done as it stands there in a module
// of one's own, brings the first event.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	block := func(language string) string {
		_, after, _ := strings.Cut(string(text), "```"+language+"\n")
		block, _, found := strings.Cut(after, "```")
		if !found {
			t.Fatalf("the README has no block of %s", language)
		}
		return block
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t)
	program := strings.NewReplacer("http://127.0.0.1:8080", g.url, "…", token(t, "customer-42", time.Minute)).Replace(block("go"))
	dir := t.TempDir()
	for name, content := range map[string]string{
		"main.go": program,
		// With the sums, so that nothing is asked of the network.
		"go.sum": string(sums),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	install := exec.Command("bash", "-euc", "go mod init example.com/mine\n"+strings.ReplaceAll(block("sh"), "/path/to/longline", root)+"go build -o mine .\n")
	install.Dir = dir
	install.Env = append(os.Environ(), "GOFLAGS=", "GOPROXY=off", "GOWORK=off")
	if out, err := install.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	mine := exec.Command(filepath.Join(dir, "mine"))
	mine.Stderr = os.Stderr
	out, err := mine.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		mine.Process.Kill() // an error means that it has ended
		mine.Wait()         // likewise: it was killed
	}()
	if got, err := bufio.NewReader(out).ReadString('\n'); got != "email.opened alice@example.com\n" {
		t.Errorf("got %q, %v, want the first event", got, err)
	}
}
