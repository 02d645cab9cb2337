package gateway_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// BenchmarkPublishBatch is a publish of 100 events over HTTP into the embedded
// broker. µs/event is CPU of the process, which is client and server both.
func BenchmarkPublishBatch(b *testing.B) {
	n := newTestNode(b, setup{})
	var body bytes.Buffer
	for i := range 100 {
		fmt.Fprintf(&body, `{"type":"email.opened","subject":"user%d@example.com","data":{"ip":"203.0.113.7","agent":"%s"}}`+"\n", i, strings.Repeat("x", 150))
	}
	token := admin(b)
	before := cpu(b)
	for b.Loop() {
		r, err := http.NewRequest("POST", n.url+"/v1/channels/c/events", bytes.NewReader(body.Bytes()))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		r.Header.Set("Content-Type", "application/x-ndjson")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			b.Fatal(resp.Status)
		}
	}
	b.ReportMetric(float64(cpu(b)-before)/float64(b.N)/100, "µs/event")
}

// cpu is the process's CPU time so far, in µs.
func cpu(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return (u.Utime.Nano() + u.Stime.Nano()) / 1000
}
