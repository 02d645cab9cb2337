package deploy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longline-push/longline/broker/redis/redistest"
	"github.com/longline-push/longline/gateway/auth"
)

// proxyKind is one of the proxies that deploy/proxies has a recipe for.
type proxyKind struct {
	name, recipe string
	// set replaces what a recipe says of its place by what a test has.
	set func(address, dir string) []string
	run func(file, dir string) *exec.Cmd
	// reload has it read its configuration again.
	reload func(p *process, file, dir string) error
}

const host = "push.example.com"

var proxyKinds = []*proxyKind{
	{
		name: "nginx", recipe: "nginx.conf",
		set: func(address, dir string) []string {
			return []string{"listen 443", "listen " + address, "/var/log/nginx", dir, "worker_shutdown_timeout 1h", "worker_shutdown_timeout 1s"}
		},
		run: func(file, dir string) *exec.Cmd {
			return exec.Command(program("nginx"), "-c", file, "-p", dir, "-e", "stderr", "-g", "daemon off; pid "+dir+"/nginx.pid;")
		},
		reload: func(p *process, _, _ string) error { return p.cmd.Process.Signal(syscall.SIGHUP) },
	},
	{
		name: "caddy", recipe: "Caddyfile",
		set: func(address, dir string) []string {
			_, port, _ := net.SplitHostPort(address)
			return []string{
				host + " {", host + ":" + port + " {\n\tbind 127.0.0.1",
				"grace_period 30s", "grace_period 1s\n\tadmin unix/" + dir + "/admin\n\tauto_https disable_redirects",
			}
		},
		run: func(file, dir string) *exec.Cmd {
			cmd := exec.Command("caddy", "run", "--adapter", "caddyfile", "--config", file)
			cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
			return cmd
		},
		reload: func(_ *process, file, dir string) error {
			cmd := exec.Command("caddy", "reload", "--force", "--adapter", "caddyfile", "--config", file, "--address", "unix/"+dir+"/admin")
			cmd.Env = append(os.Environ(), "HOME="+dir)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		},
	},
	{
		name: "haproxy", recipe: "haproxy.cfg",
		set: func(address, _ string) []string {
			return []string{"bind :443", "bind " + address, "hard-stop-after 1h", "hard-stop-after 1s"}
		},
		run:    func(file, _ string) *exec.Cmd { return exec.Command(program("haproxy"), "-W", "-db", "-f", file) },
		reload: func(p *process, _, _ string) error { return p.cmd.Process.Signal(syscall.SIGUSR2) },
	},
}

// program finds a server where only root's path has it.
func program(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return filepath.Join("/usr/sbin", name)
}

// process is a program that a test runs, with all that it starts itself.
type process struct {
	address string
	dir     string // what it works in, "" if nothing
	log     string // a file
	cmd     *exec.Cmd
	ended   chan struct{}
	reload  func(t testing.TB)
}

func launch(t testing.TB, address string, cmd *exec.Cmd) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{address: address, log: log.Name(), cmd: cmd, ended: make(chan struct{})}
	go func() { cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-p.ended
		log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", filepath.Base(cmd.Path), text[max(0, len(text)-6000):])
		}
	})
	return p
}

// site is two gateways on one Redis behind a proxy.
type site struct {
	url          string
	token        string
	proxy        *process // nil: there is none, url is a gateway's
	gateways     []*process
	http1, http2 *http.Client // from clientAddress
}

// clientAddress is not the proxy's, which the gateways believe.
const clientAddress = "127.0.0.2"

const siteSecret = "a secret that is long enough for HS256, and for the vault"

func newSite(t testing.TB, kind *proxyKind) *site {
	t.Helper()
	s := &site{}
	redis := redistest.Start(t).URL()
	for range 2 {
		address := freeAddress(t)
		s.gateways = append(s.gateways, launch(t, address, exec.Command(built, "serve", "--listen", address, "--admin-listen", "", "--broker", redis,
			"--jwt-secret", siteSecret, "--secret-key", siteSecret, "--trusted-proxies", "127.0.0.1", "--drain", "2s")))
	}
	for _, g := range s.gateways {
		eventually(t, "ready", func() error { return get("http://"+g.address+"/readyz", nil) })
	}
	var err error
	if s.token, err = auth.Mint([]byte(siteSecret), auth.Mintage{Subject: "test", Admin: true, TTL: time.Hour}, time.Now()); err != nil {
		t.Fatal(err)
	}
	if kind == nil {
		s.url, s.http1 = "http://"+s.gateways[0].address, http.DefaultClient
		return s
	}
	dir, address := t.TempDir(), freeAddress(t)
	roots := certify(t, dir)
	recipe := mustRead(t, filepath.Join("proxies", kind.recipe))
	set := append(kind.set(address, dir), "/etc/longline", dir, "gateway1:8080", s.gateways[0].address, "gateway2:8080", s.gateways[1].address)
	for i := 0; i < len(set); i += 2 {
		if !strings.Contains(recipe, set[i]) {
			t.Fatalf("%s has no %q", kind.recipe, set[i])
		}
	}
	file := filepath.Join(dir, kind.recipe)
	if err := os.WriteFile(file, []byte(strings.NewReplacer(set...).Replace(recipe)), 0o644); err != nil {
		t.Fatal(err)
	}
	s.proxy = launch(t, address, kind.run(file, dir))
	s.proxy.dir = dir
	s.proxy.reload = func(t testing.TB) {
		t.Helper()
		if err := kind.reload(s.proxy, file, dir); err != nil {
			t.Fatalf("reload %s: %v", kind.name, err)
		}
	}
	_, port, _ := net.SplitHostPort(address)
	s.url = "https://" + net.JoinHostPort(host, port)
	client := func(http2 bool) *http.Client {
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddress)}}
		transport := &http.Transport{
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return from.DialContext(ctx, network, address)
			},
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: 16,
		}
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: claiming{transport}}
	}
	s.http1, s.http2 = client(false), client(true)
	eventually(t, "the proxy is ready", func() error {
		resp, err := s.http1.Get(s.url + "/readyz")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
	return s
}

// claiming says of each request that it comes from elsewhere.
type claiming struct{ http.RoundTripper }

func (c claiming) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", "198.51.100.1")
	r.Header.Set("Forwarded", "for=198.51.100.1")
	return c.RoundTripper.RoundTrip(r)
}

// certify makes tls.crt, tls.key and, both in one, tls.pem in dir.
func certify(t testing.TB, dir string) *x509.CertPool {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(err)
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	must(os.WriteFile(filepath.Join(dir, "tls.crt"), crt, 0o644))
	must(os.WriteFile(filepath.Join(dir, "tls.key"), private, 0o644))
	must(os.WriteFile(filepath.Join(dir, "tls.pem"), append(crt, private...), 0o644))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(crt)
	return roots
}
