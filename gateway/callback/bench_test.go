package callback_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/callback"
	"github.com/longline-push/longline/gateway/webhook"
)

// receiverEnv makes this test binary a receiver of callbacks, for benchmarks:
// its CPU is not ours.
const receiverEnv = "LONGLINE_TEST_RECEIVER"

func serveReceiver() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	go func() { // ends with the benchmark
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
}

func startReceiver(b *testing.B) (address string) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), receiverEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// endless is a Source of one event over and over, n times.
type endless struct {
	*memory
	n    uint64
	json []byte
}

func (s *endless) Read(_ context.Context, after event.Position, limit, _ int) (callback.Page, error) {
	p := callback.Page{Position: event.Position{after[0]}}
	for range limit {
		if p.Position[0].Offset >= s.n {
			break
		}
		p.Position[0].Offset++
		p.Events = append(p.Events, callback.Event{Cursor: p.Position[0], ID: "0198f2aa-1c5e-7d40-9a51-0a6d6d1b7f01", JSON: s.json})
	}
	return p, nil
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkPost sends callbacks back to back to a receiver in another process,
// one call at a time to each endpoint.
func BenchmarkPost(b *testing.B) {
	for _, endpoints := range []int{1, 20} {
		b.Run(fmt.Sprintf("endpoints=%d", endpoints), func(b *testing.B) {
			to := startReceiver(b)
			e := callback.New(callback.Options{Dialing: callback.Dialing{Loopback: true}, Linger: time.Millisecond})
			body := fmt.Appendf(nil, `{"specversion":"1.0","id":"0198f2aa-1c5e-7d40-9a51-0a6d6d1b7f01","type":"email.opened","data":%q}`, strings.Repeat("x", 200))
			secret, err := webhook.ParseSecret(webhook.NewSecret())
			if err != nil {
				b.Fatal(err)
			}
			ended := make(chan callback.Result, endpoints)
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime()
			for i := range endpoints {
				m := &endless{newMemory(), uint64(b.N/endpoints + 1), body}
				if _, err := e.Deliver(callback.Subscription{
					Name: fmt.Sprint("crm-", i), Position: event.Position{cursor(0)},
					Target: callback.Target{URL: fmt.Sprintf("http://%s/%d", to, i), Secrets: []webhook.Secret{secret}},
				}, m, m, func(r callback.Result) { ended <- r }); err != nil {
					b.Fatal(err)
				}
			}
			for range endpoints {
				if r := <-ended; r.Outcome != callback.CaughtUp {
					b.Fatalf("ended by %v", r.Outcome)
				}
			}
			b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "posts/s")
			e.Close(b.Context())
		})
	}
}
