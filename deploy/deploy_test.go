// Package deploy_test holds what is under deploy/ to what it says of itself,
// as far as that can be run on one machine.
package deploy_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// built is the static binary that the image has, made once.
var built string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "longline-deploy-")
	if err != nil {
		panic(err)
	}
	built = filepath.Join(dir, "longline")
	cmd := exec.Command("go", "build", "-o", built, "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		os.Exit(1)
	}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// TestImage runs what the image holds where there is nothing else: the binary
// alone in an empty root, as a user without rights, its data in one directory.
func TestImage(t *testing.T) {
	root := t.TempDir()
	binary, err := os.ReadFile(built)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "longline"), binary, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(root, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()

	inside := func(args ...string) *exec.Cmd {
		cmd := exec.Command("/longline", args...)
		cmd.Dir = "/"
		cmd.Env = []string{"LONGLINE_LISTEN=" + address, "LONGLINE_ADMIN_LISTEN=", "LONGLINE_BROKER=embedded:/data"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
		if os.Getuid() == 0 {
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65532, Gid: 65532}
		} else {
			// A user namespace of one's own is where anybody may chroot.
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		return cmd
	}
	if os.Getuid() == 0 {
		for path, mode := range map[string]os.FileMode{filepath.Dir(root): 0o755, root: 0o555, filepath.Join(root, "longline"): 0o555} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
		}
		t.Cleanup(func() { os.Chmod(root, 0o755) })
		if err := os.Chown(data, 65532, 65532); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	gateway := inside("serve", "--drain", "2s")
	gateway.Stdout, gateway.Stderr = &log, &log
	if err := gateway.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- gateway.Wait() }()
	t.Cleanup(func() { gateway.Process.Kill() })

	// As the image's HEALTHCHECK does, until it is.
	for deadline := time.Now().Add(30 * time.Second); ; {
		out, err := inside("ready").CombinedOutput()
		if err == nil {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("the gateway ended: %v\n%s", err, log.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s\n%s", out, log.Bytes())
		}
	}
	gateway.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, log.Bytes())
	}
	if out, err := inside("ready", "--timeout", "1s").CombinedOutput(); err == nil || !strings.Contains(string(out), "connection refused") {
		t.Errorf("a gateway that is gone: %v, %s", err, out)
	}
}

// TestUnit: systemd takes the unit, and finds little to say against it.
func TestUnit(t *testing.T) {
	unit := filepath.Join(t.TempDir(), "longline.service")
	text, err := os.ReadFile("systemd/longline.service")
	if err != nil {
		t.Fatal(err)
	}
	// It is checked where the binary isn't installed.
	text = bytes.Replace(text, []byte("/usr/bin/longline"), []byte("/bin/true"), 1)
	if err := os.WriteFile(unit, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", unit).CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--threshold=20", unit).CombinedOutput(); err != nil {
		t.Errorf("an exposure above 2.0: %v\n%s", err, out)
	}
}

// TestChart renders the chart as it is used: one gateway with a disk, several
// on Redis with everything that can be asked for, and what can't be.
func TestChart(t *testing.T) {
	helm, err := filepath.Abs("../.tools/helm")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(helm); err != nil {
		t.Fatalf("%v: `make deps` makes it", err)
	}
	const all = "autoscaling.enabled=true,ingress.enabled=true,ingress.host=push.example.com,ingress.tlsSecret=tls,metrics.serviceMonitor=true"
	for _, tt := range []struct{ story, set, want string }{
		{"alone", "", "ConfigMap PodDisruptionBudget Service StatefulSet"},
		{"on Redis", "replicas=3,broker=redis://redis:6379", "ConfigMap Deployment PodDisruptionBudget Service"},
		{"on Redis, the URL secret", "replicas=3,brokerSecret.name=redis", "ConfigMap Deployment PodDisruptionBudget Service"},
		{"on Redis, with all", "broker=redis://redis:6379," + all, "ConfigMap Deployment HorizontalPodAutoscaler Ingress PodDisruptionBudget Service ServiceMonitor"},
		{"several without Redis", "replicas=2", "the embedded broker takes exactly 1"},
		{"an ingress without a host", "ingress.enabled=true", "ingress.host is needed"},
	} {
		out, err := exec.Command(helm, "template", "push", "helm/longline", "--set", tt.set).CombinedOutput()
		if err != nil {
			if !strings.Contains(string(out), tt.want) {
				t.Errorf("%s: %v\n%s", tt.story, err, out)
			}
			continue
		}
		var kinds []string
		for _, text := range strings.Split(string(out), "\n---\n") {
			var object struct {
				Kind string
				Spec struct {
					Template struct {
						Spec struct {
							Grace int `yaml:"terminationGracePeriodSeconds"`
						}
					}
				}
			}
			if err := yaml.Unmarshal([]byte(text), &object); err != nil {
				t.Fatalf("%s: %v in\n%s", tt.story, err, text)
			}
			if object.Kind == "" {
				continue // a comment alone
			}
			kinds = append(kinds, object.Kind)
			runs := object.Kind == "Deployment" || object.Kind == "StatefulSet"
			if s := object.Spec.Template.Spec.Grace; runs && s != 40 {
				t.Errorf("%s: %d s to end, want --drain and 10 more", tt.story, s)
			}
		}
		slices.Sort(kinds)
		if got := strings.Join(kinds, " "); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.story, got, tt.want)
		}
	}
}

// TestCompose: both gateways share everything, and what is mounted is there.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("compose/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Image       string
			Build       map[string]string
			Environment map[string]string
			Volumes     []string
			Secrets     []string
		}
		Secrets map[string]struct{ File string }
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	if len(compose.Services["gateway1"].Environment) == 0 || len(compose.Services["gateway2"].Secrets) != len(compose.Secrets) {
		t.Errorf("the gateways aren't configured: %+v", compose.Services)
	}
	for name, s := range compose.Services {
		if s.Image == "" && s.Build["dockerfile"] != "deploy/docker/Dockerfile" {
			t.Errorf("%s has neither an image nor a Dockerfile", name)
		}
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if _, ok := compose.Volumes[from]; ok {
				continue
			}
			if _, err := os.Stat(filepath.Join("compose", from)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestReleases: what is released has a list of what is in it, checksums that are
// signed, and provenance; and hosted CI runs what everybody runs.
func TestReleases(t *testing.T) {
	var release struct {
		Sboms, Signs []struct{ Artifacts string }
		Checksum     struct {
			Name string `yaml:"name_template"`
		}
	}
	if err := yaml.Unmarshal([]byte(mustRead(t, "package/goreleaser.yaml")), &release); err != nil {
		t.Fatal(err)
	}
	if len(release.Sboms) != 2 || len(release.Signs) != 1 || release.Signs[0].Artifacts != "checksum" {
		t.Errorf("SBOMs %+v, signatures %+v; want them of archives and packages, and of checksums", release.Sboms, release.Signs)
	}
	for file, want := range map[string][]string{
		"ci.yml":      {"make test"},
		"release.yml": {"make test", "release --clean -f deploy/package/goreleaser.yaml", "actions/attest-build-provenance", "dist/" + release.Checksum.Name},
	} {
		var workflow struct {
			Jobs map[string]struct {
				Steps []struct {
					Run, Uses string
					With      map[string]any
				}
			}
		}
		text := mustRead(t, "../.github/workflows/"+file)
		if err := yaml.Unmarshal([]byte(text), &workflow); err != nil || len(workflow.Jobs) != 1 {
			t.Fatalf("%s: %d jobs, %v", file, len(workflow.Jobs), err)
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s has no %s", file, w)
			}
		}
	}
}
