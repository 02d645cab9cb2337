package ledger_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/longline-push/longline/internal/ledger"
)

// TestRollingUpgrade upgrades two gateways on one Redis, one after the other,
// under load: a consumer that is attached, a group, and a callback lose nothing
// while the old binary and the new one run side by side.
func TestRollingUpgrade(t *testing.T) {
	old := previous(t)
	server := redisURL(t)
	nodes := []*node{startNodeOf(t, old, server, "one"), startNodeOf(t, old, server, "two")}
	live, shared, called := ledger.New(), ledger.New(), ledger.New()
	r := startReceiver(t, called)
	for name, definition := range map[string]map[string]any{
		"live":   {"channels": []string{"acct-1"}, "window": 64},
		"shared": {"channels": []string{"acct-1"}, "group": map[string]any{"partitions": 4}},
		"called": {"channels": []string{"acct-1"}, "callback": map[string]any{"url": r.URL, "grace": "0s", "order": "key", "concurrency": 2}},
	} {
		nodes[0].must("PUT", "/v1/subscriptions/"+name, definition, nil)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var consumers sync.WaitGroup
	leave := sync.OnceFunc(func() { cancel(); consumers.Wait() })
	t.Cleanup(leave)
	consumers.Go(func() { keepAttached(ctx, live, "live", "c", 1, nodes...) })
	consumers.Go(func() { keepAttached(ctx, shared, "shared", "a", 1, nodes...) })
	consumers.Go(func() { keepAttached(ctx, shared, "shared", "b", 1, nodes[1], nodes[0]) })
	p := publish(t, live, 100, nodes...)
	flow := func() {
		t.Helper()
		_, a := live.Counts()
		_, b := shared.Counts()
		_, c := called.Counts()
		eventually(t, "events flow every way", func() bool {
			_, nowA := live.Counts()
			_, nowB := shared.Counts()
			_, nowC := called.Counts()
			return nowA > a+50 && nowB > b+50 && nowC > c+50
		})
	}
	flow()
	for _, n := range nodes {
		n.end()
		n.binary = binary
		n.start()
		flow() // side by side after the first
	}
	p.finish()
	live.Copy(shared)
	live.Copy(called)
	for _, kept := range []struct {
		name  string
		book  *ledger.Ledger
		byKey bool
	}{{"live", live, false}, {"shared", shared, true}, {"called", called, true}} {
		a := balance(t, nodes[0], kept.book, kept.name, kept.byKey)
		wantAnnounced(t, a)
		if a.Dead > 0 || a.Gap > 0 {
			t.Errorf("%s: %d dead, %d in gaps, want none", kept.name, a.Dead, a.Gap)
		}
	}
	leave()
}

// previous is the gateway that an upgrade is from: that of the commit in
// testdata/previous. Where that isn't to be had, because the history was
// rewritten, the checkout is shallow or none, it is the last tag's, then the
// commit's before this one; and without any history today's own, which tests a
// restart and no upgrade, and says so.
func previous(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/previous")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	for _, name := range []string{lines[len(lines)-1], lastTag(), "HEAD~1"} {
		commit, err := git("rev-parse", "--verify", "--quiet", name+"^{commit}")
		if name == "" || err != nil {
			continue
		}
		path, err := buildCommit(t, strings.TrimSpace(string(commit)))
		if err == nil {
			t.Logf("the old gateway is that of %s", name)
			return path
		}
		t.Logf("the gateway of %s can't be built: %v", name, err)
	}
	t.Log("NO OLD GATEWAY: there is no history here to build one of, so the new one stands for it")
	return binary
}

// lastTag is the newest tag before HEAD, "" if there is none.
func lastTag() string {
	tag, err := git("describe", "--tags", "--abbrev=0", "HEAD~1")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(tag))
}

func git(args ...string) ([]byte, error) {
	return exec.Command("git", append([]string{"-C", "../.."}, args...)...).Output()
}

// buildCommit builds the gateway as it was. It is kept for the next time, where
// the checkout may be written to.
func buildCommit(t *testing.T, commit string) (string, error) {
	kept := filepath.Join("../../.tools", "longline-"+commit[:12])
	if path, err := filepath.Abs(kept); err == nil {
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
	}
	archive, err := git("archive", commit)
	if err != nil {
		return "", err
	}
	dir := t.TempDir()
	if err := unpack(archive, dir); err != nil {
		return "", err
	}
	built := filepath.Join(dir, "built-longline")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", built, ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	if os.MkdirAll(filepath.Dir(kept), 0o755) == nil && copyFile(kept, built) == nil {
		return filepath.Abs(kept)
	}
	return built, nil
}

func unpack(archive []byte, dir string) error {
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeReg:
			var text []byte
			if text, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, text, fs.FileMode(h.Mode)&0o755)
			}
		}
		if err != nil {
			return err
		}
	}
}

// copyFile leaves a whole file or none.
func copyFile(to, from string) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(to), "longline-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(0o755), f.Close()); err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
