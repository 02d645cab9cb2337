package docs_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// snippet is a fenced block of a page. A reason not to run it stands in a
// comment before it: <!-- not run: it goes on until Ctrl-C -->.
type snippet struct {
	page, language, text string
	line                 int
	notRun               string
}

func (s snippet) String() string { return fmt.Sprintf("%s:%d", s.page, s.line) }

var fence = regexp.MustCompile("(?m)(?:^<!-- not run: (.+) -->\n)?^```(\\w*)\n((?s:.*?))^```$")

// snippets returns the blocks of the pages, but those of packages that others
// made.
func snippets(t *testing.T) (all []snippet) {
	t.Helper()
	walk(t, ".md", func(path string) {
		text := read(t, path)
		for _, m := range fence.FindAllStringSubmatchIndex(text, -1) {
			s := snippet{page: path, language: text[m[4]:m[5]], text: text[m[6]:m[7]], line: 1 + strings.Count(text[:m[6]], "\n")}
			if m[2] >= 0 {
				s.notRun = text[m[2]:m[3]]
			}
			all = append(all, s)
		}
	})
	if len(all) < 40 {
		t.Fatalf("only %d snippets were found", len(all))
	}
	return all
}

var command = regexp.MustCompile(`(?m)^(\w+=\S* )?(curl|go|make|npm|pip|\./longline|longline|docker|helm|kubectl) `)

// TestSnippets: each block of README, docs, examples and SDKs is what it says it
// is: JSON and YAML that parse, programs that a compiler takes, and commands
// that are run, by TestCommands or because of a reason aren't.
func TestSnippets(t *testing.T) {
	for _, s := range snippets(t) {
		var err error
		switch s.language {
		case "json":
			var v any
			err = json.Unmarshal([]byte(s.text), &v)
		case "yaml", "yml":
			var v any
			err = yaml.Unmarshal([]byte(s.text), &v)
		case "go":
			err = checkGo(t, s.text)
		case "js":
			err = check(t, s.text, "snippet.mjs", "node", "--check")
		case "php":
			err = check(t, s.text, "snippet.php", "php", "-l")
		case "python", "py":
			err = check(t, s.text, "snippet.py", "/usr/bin/python3", "-c", "import ast, sys; compile(open(sys.argv[1]).read(), 'snippet', 'exec', ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)")
		case "html":
			// Pages are for browsers, which take anything; their scripts are modules.
			for _, m := range regexp.MustCompile(`(?s)<script[^>]*>(.*?)</script>`).FindAllStringSubmatch(s.text, -1) {
				if err == nil {
					err = check(t, m[1], "snippet.mjs", "node", "--check")
				}
			}
		case "sh", "bash", "":
			if command.MatchString(s.text) && s.notRun == "" && !isRun(s) {
				t.Errorf("%s: these commands are run by no test; say why not before them: <!-- not run: … -->\n%s", s, s.text)
			}
		case "text", "ini", "ruby", "sql", "nginx", "toml", "dockerfile", "diff", "css":
		default:
			t.Errorf("%s: a block in %q: teach this test what that is", s, s.language)
		}
		if err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// isRun tells of commands that a test runs: TestCommands here, TestReadmePasted
// (e2e) for the README, and for an example the test beside it.
func isRun(s snippet) bool {
	if strings.HasPrefix(s.page, "../examples/") {
		beside, _ := filepath.Glob(filepath.Join(filepath.Dir(s.page), "*test*"))
		return len(beside) > 0
	}
	return slices.Contains(runPages, s.page) || s.page == "../README.md" && (strings.HasPrefix(s.text, "go build -o longline .") || strings.Contains(s.text, `"partitionkey":"alice@example.com"`))
}

// checkGo compiles a program, and parses anything less.
func checkGo(t *testing.T, text string) error {
	t.Helper()
	text = strings.ReplaceAll(text, "…", "")
	files := token.NewFileSet()
	if !strings.HasPrefix(text, "package ") {
		if _, err := parser.ParseFile(files, "", "package p\n"+text, 0); err == nil {
			return nil
		}
		_, err := parser.ParseFile(files, "", "package p\nfunc _() error {\n"+text+"\nreturn nil\n}", 0)
		return err
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.Command("go", "build", "-o", os.DevNull, file)
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// check has a program look at the text.
func check(t *testing.T, text, name string, program ...string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(program[0], append(program[1:], file)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// runPages are those whose commands TestCommands runs.
var runPages = []string{"../docs/guide.md"}

// TestCommands runs a page's commands, one block after the other in one shell,
// as a reader does, against a gateway: each must do what it is there for, that
// is end well, and an answer be one of success.
func TestCommands(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "longline"), ".")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	var log bytes.Buffer
	gateway := exec.Command("./longline", "--listen", address, "--admin-listen", "")
	gateway.Dir, gateway.Stdout, gateway.Stderr = dir, &log, &log
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		gateway.Process.Kill()
		gateway.Wait()
	}()

	for _, page := range runPages {
		script := "set -euo pipefail\n" +
			"curl() { command curl -sS --fail-with-body --max-time 20 \"$@\"; }\n" +
			"until command curl -fs -o /dev/null http://" + address + "/readyz; do sleep 0.05; done\n"
		ran := 0
		for _, s := range snippets(t) {
			if s.page != page || s.language != "sh" || s.notRun != "" || !command.MatchString(s.text) && !strings.Contains(s.text, "export ") {
				continue
			}
			ran++
			script += fmt.Sprintf("echo '== %s'\n", s)
			if strings.Contains(s.text, "for an admin's token") {
				script += "export LONGLINE_TOKEN=$(./longline token --admin)\n"
			}
			if strings.Contains(s.text, "@k3f9zq-") { // a cursor of the example's
				script += `CURSOR="acct-42@$(curl "$LONGLINE_URL/v1/channels/acct-42" -H "Authorization: Bearer $LONGLINE_TOKEN" | grep -o '"epoch":"[^"]*"' | cut -d'"' -f4)-1"` + "\n"
			}
			text := strings.ReplaceAll(s.text, "http://127.0.0.1:8080", "http://"+address)
			script += regexp.MustCompile(`acct-42@k3f9zq-\d+`).ReplaceAllLiteralString(text, `'"$CURSOR"'`)
		}
		if ran < 5 {
			t.Errorf("%s: only %d blocks are run", page, ran)
		}
		cmd := exec.Command("bash", "-c", script)
		cmd.Dir = dir
		cmd.WaitDelay = time.Second
		timeout := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
		out, err := cmd.CombinedOutput()
		timeout.Stop()
		if err != nil {
			t.Errorf("%s: %v, after\n%s\ngateway:\n%s", page, err, out, &log)
		}
	}
}
