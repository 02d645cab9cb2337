// Package redistest starts real redis-server processes for tests: alone, under
// Sentinel, as a cluster; and lets tests kill, stop and restart them. They
// listen on free loopback ports, keep their data in temporary directories and
// end with the test. A missing redis-server fails the test.
package redistest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Server is one redis-server process. Its methods are called by the test's
// goroutine.
type Server struct {
	Addr string
	t    testing.TB
	dir  string
	args []string
	// Client is a plain client of this server, closed with the test.
	Client *goredis.Client

	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts a server. Settings are names and values as in redis.conf,
// e.g. "appendonly", "yes"; by default nothing is kept on disk.
func Start(t testing.TB, settings ...string) *Server {
	t.Helper()
	s := prepare(t, settings...)
	s.launch()
	return s
}

// binary finds redis-server.
func binary(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("redis-server is needed for these tests (apt-get install redis-server): %v", err)
	}
	return path
}

func prepare(t testing.TB, settings ...string) *Server {
	t.Helper()
	port := freePort(t)
	s := &Server{Addr: net.JoinHostPort("127.0.0.1", port), t: t, dir: t.TempDir()}
	s.args = append([]string{
		"--bind", "127.0.0.1", "--port", port, "--dir", s.dir, "--logfile", "log",
		"--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0",
	}, flags(settings)...)
	s.Client = goredis.NewClient(&goredis.Options{Addr: s.Addr, Protocol: 2, DisableIdentity: true, MaxRetries: -1})
	t.Cleanup(func() { _ = s.Client.Close() })
	return s
}

func flags(settings []string) []string {
	var args []string
	for i, s := range settings {
		if i%2 == 0 {
			s = "--" + s
		}
		args = append(args, s)
	}
	return args
}

func (s *Server) launch() {
	s.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(binary(s.t), s.args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("start redis-server: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-exited
	})
	Eventually(s.t, func() error {
		select {
		case <-exited:
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("redis-server ended: %s%s", out.String(), log)
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := s.Client.Ping(ctx).Err()
		if err != nil && strings.HasPrefix(err.Error(), "NOAUTH") {
			return nil
		}
		return err
	})
}

// URL is how a broker is told to use this server.
func (s *Server) URL() string { return "redis://" + s.Addr }

// PID is the process's id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Kill ends the server with SIGKILL and waits for its end.
func (s *Server) Kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatalf("kill redis-server: %v", err)
	}
	<-s.exited
}

// Restart starts the server again at the same address with the same data,
// after Kill.
func (s *Server) Restart() {
	s.t.Helper()
	s.launch()
}

// Pause stops the process, as if the machine hung; Resume lets it go on.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("signal redis-server: %v", err)
	}
}

// Do runs a command and fails the test if that fails.
func (s *Server) Do(args ...any) any {
	s.t.Helper()
	v, err := s.Client.Do(context.Background(), args...).Result()
	if err != nil && err != goredis.Nil {
		s.t.Fatalf("redis at %s: %v: %v", s.Addr, args, err)
	}
	return v
}

// Eventually calls check until it returns nil and fails the test with its last
// error if that takes a minute.
func Eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still after a minute: %v", err)
		}
		<-tick.C
	}
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// state is what CLUSTER INFO or INFO says under name.
func (s *Server) info(name string, command ...any) (string, error) {
	text, err := s.Client.Do(context.Background(), command...).Text()
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && k == name {
			return v, nil
		}
	}
	return "", fmt.Errorf("%v says nothing of %s", command, name)
}
