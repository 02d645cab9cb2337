package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadmePasted: the blocks of "Five minutes" do what they say when they
// are pasted into a shell at once, as people do.
func TestReadmePasted(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text5, ok := strings.Cut(string(text), "## Five minutes")
	blocks := regexp.MustCompile("(?s)```\n(.*?)```").FindAllStringSubmatch(text5, 2)
	if !ok || len(blocks) != 2 {
		t.Fatal("README has no \"Five minutes\" with two blocks")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	// Another port, and the sources' folder named, so that nothing is left in it.
	script := strings.NewReplacer("127.0.0.1:8080", address, "go build -o longline .", "go build -C "+root+" -o $OLDPWD/longline .").
		Replace(blocks[0][1] + blocks[1][1])
	dir := t.TempDir()
	cmd := exec.Command("bash", "-u")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader("OLDPWD=" + dir + "\n" + script + "\nkill %1; wait\n")
	cmd.Env = append(os.Environ(), "LONGLINE_LISTEN="+address, "LONGLINE_ADMIN_LISTEN=")
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(`\{"events":\[\{"id":"[^"]+","cursor":"acct-42@\w+-1"\}\]\}`).Match(out) {
		log, _ := os.ReadFile(filepath.Join(dir, "longline.log"))
		t.Errorf("%v: got\n%s\ngateway:\n%s", err, out, log)
	}
}

// TestPackagesAreTriedAgain: an apt that hiccups is shown and tried once more.
func TestPackagesAreTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		failures int
		ok       bool
		saying   string
	}{
		{0, true, ""},
		{1, true, "E: the mirror is being updated"},
		{9, false, "by hand"},
	} {
		bin := t.TempDir()
		command := func(name, script string) {
			if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/bash\n"+script), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		command("id", "echo 1000\n")
		command("sudo", `[ "$1" = apt-get ] || exit 0; exec "$@"`) // nothing but apt-get is run
		command("apt-get", fmt.Sprintf(`
n=$(cat %[1]s/calls 2>/dev/null || echo 0)
[ "$1" = update ] && { echo $((n + 1)) >%[1]s/calls; [ "$n" -ge %[2]d ] || { echo "E: the mirror is being updated"; exit 100; }; }
exit 0`, bin, tt.failures))
		cmd := exec.Command("../.ci/packages", "no-such-command", "no-such-package")
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "LONGLINE_RETRY_AFTER=0")
		out, err := cmd.CombinedOutput()
		if (err == nil) != tt.ok || !strings.Contains(string(out), tt.saying) {
			t.Errorf("apt failing %d times: %v, said %q", tt.failures, err, out)
		}
	}
}
