package demo_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/longline-push/longline/cli"
	"github.com/longline-push/longline/demo"
)

// The test's own binary is what the demo runs its gateway with, and what runs
// as the demo's process where that is to be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "demo") {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		err := cli.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(cli.ExitStatus(err))
	}
	goleak.VerifyTestMain(m)
}

// visitor is somebody at the page.
type visitor struct {
	t   *testing.T
	url string
}

// newDemo starts a demo whose CRMs are five times as fast as the real ones.
func newDemo(t *testing.T) visitor {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d, err := demo.Start(t.Context(), demo.Options{Binary: binary, Listen: "127.0.0.1:0", Rate: 100, Scale: 0.2, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	return visitor{t, d.URL}
}

func (v visitor) press(button string) {
	v.t.Helper()
	resp, err := http.Post(v.url+"press/"+button, "", nil)
	if err != nil {
		v.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		v.t.Fatalf("press %s: got %s", button, resp.Status)
	}
}

// sees waits until the page shows what ok says.
func (v visitor) sees(what string, ok func(demo.Look) bool) demo.Look {
	v.t.Helper()
	var l demo.Look
	for deadline := time.After(30 * time.Second); ; {
		resp, err := http.Get(v.url + "looks?once")
		if err != nil {
			v.t.Fatal(err)
		}
		l = demo.Look{}
		err = json.NewDecoder(resp.Body).Decode(&l)
		resp.Body.Close()
		if err == nil && ok(l) {
			return l
		}
		for name, a := range map[string]demo.Account{"Longline": l.Longline, "webhooks": l.Webhooks} {
			if err == nil && uint64(a.Processed+a.Waiting+a.Lost) != l.Emitted {
				v.t.Fatalf("%s: %d processed, %d waiting, %d lost of %d events: the sum is wrong", name, a.Processed, a.Waiting, a.Lost, l.Emitted)
			}
		}
		select {
		case <-deadline:
			v.t.Fatalf("never saw %s; the last look: %+v", what, l)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestEveryButtonAndNothingIsLost(t *testing.T) {
	v := newDemo(t)
	v.sees("a worker hold all of the line", func(l demo.Look) bool {
		return l.Holder.State == "live" && len(l.Holder.Members) == 1 && l.Longline.Processed > 50
	})

	v.press("hire")
	v.sees("two workers share the line", func(l demo.Look) bool {
		return len(l.Holder.Members) == 2 && len(l.Holder.Members[0].Partitions) == 4 && len(l.Holder.Members[1].Partitions) == 4
	})
	v.press("dismiss")
	v.sees("one of them go", func(l demo.Look) bool {
		return !l.Second && len(l.Holder.Members) == 1 && len(l.Holder.Members[0].Partitions) == 8
	})

	v.press("break")
	v.press("unplug")
	broken := v.sees("the callback take over and fail", func(l demo.Look) bool {
		return l.Broken && !l.Plugged && l.Holder.State == "callback" && l.Holder.Status == http.StatusInternalServerError
	})
	v.press("repair")
	v.sees("the callback bring events", func(l demo.Look) bool {
		return l.Longline.Processed > broken.Longline.Processed+100
	})

	killed := v.sees("the gateway up", func(l demo.Look) bool { return l.Gateway.Up })
	v.press("kill")
	v.sees("the gateway down", func(l demo.Look) bool { return !l.Gateway.Up })
	v.press("plug")
	back := v.sees("the gateway and the worker back, and all events through", func(l demo.Look) bool {
		return l.Gateway.Up && l.Gateway.PID != killed.Gateway.PID && l.Holder.State == "live" &&
			l.Longline.Processed > killed.Longline.Processed+200 && l.Longline.Oldest < 3
	})
	if a := back.Longline; a.Lost != 0 || a.Refused != 0 || a.Peak > 10 {
		t.Errorf("Longline: got %+v; want nothing lost, nobody overrun", a)
	}
	drowned := v.sees("the webhooks drown the other CRM", func(l demo.Look) bool { return l.Webhooks.Lost > 0 })
	if a := drowned.Webhooks; a.Refused == 0 || a.Processed > drowned.Longline.Processed/2 {
		t.Errorf("webhooks: got %+v beside %+v; they should do badly", a, drowned.Longline)
	}
}

func TestThePageIsForThisMachineAlone(t *testing.T) {
	v := newDemo(t)
	ask := func(method, path, header, value string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, v.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Header.Set(header, value); header == "Host" {
			r.Host = value
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, c := range []struct {
		method, path, header, value string
		want                        int
	}{
		{"GET", "", "Accept", "text/html", 200},
		{"GET", "console/ui.js", "Accept", "*/*", 200},
		{"GET", "looks?once", "Host", "rebound.example.com", 403},
		{"POST", "press/unplug", "Origin", "https://evil.example.com", 403},
		{"POST", "press/unplug", "Sec-Fetch-Site", "cross-site", 403},
		{"GET", "press/unplug", "Accept", "*/*", 404},
		{"POST", "press/nothing", "Accept", "*/*", 405},
	} {
		if got := ask(c.method, c.path, c.header, c.value); got != c.want {
			t.Errorf("%s /%s with %s %s: got %d, want %d", c.method, c.path, c.header, c.value, got, c.want)
		}
	}
	if l := v.sees("a look", func(demo.Look) bool { return true }); !l.Plugged {
		t.Error("a foreign page has unplugged the line")
	}
}

// TestNothingStaysBehind: neither Ctrl-C nor a SIGKILL of the demo leaves its
// gateway.
func TestNothingStaysBehind(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, os.Kill} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "demo", "--listen", "127.0.0.1:0", "--rate", "5")
			cmd.Env = append(os.Environ(), "LONGLINE_BROKER=redis://127.0.0.1:1", "LONGLINE_TLS_CERT=/nowhere") // not for its gateway
			cmd.Stderr = t.Output()
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatalf("%q, %v; want its URL", said, err)
			}
			v := visitor{t, regexp.MustCompile(`http://\S+`).FindString(said)}
			pid := v.sees("the gateway", func(l demo.Look) bool { return l.Gateway.PID != 0 }).Gateway.PID
			_ = cmd.Process.Signal(sig)
			err = cmd.Wait()
			if sig == os.Interrupt && err != nil {
				t.Errorf("it ended by %v; want no error", err)
			}
			for deadline := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil; {
				if state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); strings.Contains(string(state), ") Z ") {
					break // dead, and waited for by nobody here
				}
				if time.Now().After(deadline) {
					t.Fatalf("the gateway, process %d, is still there", pid)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

func TestWhereItsPageMayBe(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for addr, want := range map[string]string{
		taken.Addr().String(): "is in use; want another port",
		"0.0.0.0:0":           "for this machine alone",
		"example.com:80":      "for this machine alone",
		"8090":                "want HOST:PORT",
	} {
		d, err := demo.Start(t.Context(), demo.Options{Listen: addr, Rate: 1})
		if err == nil {
			d.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", addr, err, want)
		}
	}
}
