package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/longline-push/longline/broker/embedded"
)

// TestBackupIsStartedAnew: what was published is there in a gateway that is
// started on the copy, and nobody's cursor means something else.
func TestBackupIsStartedAnew(t *testing.T) {
	r := start(t, filepath.Join(t.TempDir(), "data"))
	t.Setenv("LONGLINE_URL", r.url)
	t.Setenv("LONGLINE_TOKEN", r.token)
	for _, id := range []string{"1", "2", "3"} {
		mustRun(t, "publish", "c", "--type", "t", "--id", id)
	}
	dir := filepath.Join(t.TempDir(), "copy")
	mustRun(t, "backup", dir)
	mustRun(t, "publish", "c", "--type", "t", "--id", "after")
	for _, want := range []string{fmt.Sprintf(`"format":%d`, embedded.Format), `"restored":true`} {
		if got := mustRun(t, "check", dir); !strings.Contains(got, want) {
			t.Errorf("check printed %s, want %s", got, want)
		}
	}
	var out bytes.Buffer
	if err := Run(t.Context(), []string{"backup", dir}, strings.NewReader(""), &out, &out); ExitStatus(err) != 2 {
		t.Errorf("onto what is there: %v", err)
	}
	r.stop()

	second := start(t, dir)
	_, body := second.do("GET", "/v1/channels/c/events", "")
	if strings.Count(body, `"type":"t"`) != 3 || strings.Contains(body, "after") {
		t.Errorf("restored: %s", body)
	}
	_, before := second.do("GET", "/v1/channels/c", "")
	second.do("POST", "/v1/channels/c/events", `{"type":"t"}`)
	if _, after := second.do("GET", "/v1/channels/c", ""); epochOf(after) == epochOf(before) {
		t.Errorf("still in the epoch of the original: %s", after)
	}
	t.Setenv("LONGLINE_TOKEN", "nonsense")
	other := filepath.Join(t.TempDir(), "other")
	if err := Run(t.Context(), []string{"backup", other, "--url", second.url}, strings.NewReader(""), &out, &out); err == nil || !strings.Contains(err.Error(), "unauthorized") {
		t.Errorf("without a token: %v", err)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("a backup that failed left a directory")
	}
}

func epochOf(channel string) string {
	f, _ := parseFields([]byte(channel))
	return f.at("epoch")
}

func TestServeCheckMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if got := mustRun(t, "serve", "--check", "--broker", "embedded:"+dir); !strings.Contains(got, "right") {
		t.Errorf("printed %q", got)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a check made the data directory")
	}
	var out bytes.Buffer
	for args, want := range map[string]string{
		"--jwt-public-key /none":  "--jwt-public-key",
		"--listen 0.0.0.0:1":      "--listen",
		"--broker redis://a":      "--jwt-secret",
		"--broker embedded:?x=y":  "--broker",
		"--tls-cert a":            "--tls-cert",
		"--callback-allow-cidr x": "--callback-allow-cidr",
	} {
		err := Run(t.Context(), append([]string{"serve", "--check"}, strings.Fields(args)...), strings.NewReader(""), &out, &out)
		if ExitStatus(err) != 2 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", args, err, want)
		}
	}
}
