package hostile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// last ends each conversation: whoever takes the bytes before it as one request
// answers it too and closes.
const last = "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// smuggled publishes where nobody should. It stands where somebody might take it
// for a body and somebody else for a request.
func (g *gateway) smuggled() string {
	return fmt.Sprintf("POST /v1/channels/smuggled/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"type\":\"t\"}", g.token)
}

// talk says something on a connection of its own and returns the answers'
// statuses, until the gateway closes it.
func (g *gateway) talk(t *testing.T, said string) (statuses []int) {
	t.Helper()
	c, err := net.Dial("tcp", g.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go io.WriteString(c, said) // it may close before it has read all
	if err := c.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewReader(c); ; {
		answer, err := http.ReadResponse(in, nil)
		if err != nil {
			if t := net.Error(nil); errors.As(err, &t) && t.Timeout() {
				return append(statuses, -1) // it waits for more
			}
			return statuses
		}
		if answer.StatusCode != http.StatusContinue {
			statuses = append(statuses, answer.StatusCode)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			return statuses
		}
	}
}

// Requests whose end can be seen in two places are taken for what RFC 9112 says or
// refused, and the connection closed: nothing hides in a body.
func TestNoRequestHidesInAnother(t *testing.T) {
	g := start(t)
	post := "POST /v1/channels/acct-1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + g.token + "\r\nContent-Type: application/json\r\n"
	event := `{"type":"t"}`
	chunked := "c\r\n" + event + "\r\n0\r\n\r\n"
	hidden := g.smuggled()
	for _, c := range []struct {
		name, said string
		want       []int // of what is said; a 200 of last may follow what is no error
	}{
		{"a plain one", post + "Content-Length: 12\r\n\r\n" + event, []int{200}},
		{"a chunked one", post + "Transfer-Encoding: chunked\r\n\r\n" + chunked, []int{200}},
		{"chunk extensions", post + "Transfer-Encoding: chunked\r\n\r\nc;a=b;c=\"d\"\r\n" + event + "\r\n0;x\r\n\r\n", []int{200}},
		{"two lengths", post + "Content-Length: 12\r\nContent-Length: 40\r\n\r\n" + event + hidden, []int{400}},
		{"a list of lengths", post + "Content-Length: 12, 40\r\n\r\n" + event + hidden, []int{400}},
		{"a length with a sign", post + "Content-Length: +12\r\n\r\n" + event + hidden, []int{400}},
		{"a length in hex", post + "Content-Length: 0xc\r\n\r\n" + event + hidden, []int{400}},
		{"a negative length", post + "Content-Length: -1\r\n\r\n" + event + hidden, []int{400}},
		{"a length beyond 64 bits", post + "Content-Length: 18446744073709551628\r\n\r\n" + event + hidden, []int{400}},
		{"no length", post + "Content-Length: \r\n\r\n" + event + hidden, []int{400}},
		{"an unknown coding", post + "Transfer-Encoding: xchunked\r\n\r\n" + chunked + hidden, []int{501}},
		{"two codings", post + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked + hidden, []int{501}},
		{"a coding twice", post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunked + hidden, []int{400, 501}},
		{"a coding with a tab in its name", post + "Transfer-Encoding\t: chunked\r\nContent-Length: 12\r\n\r\n" + event + hidden, []int{400}},
		{"a name with a blank", post + "Transfer-Encoding : chunked\r\nContent-Length: 12\r\n\r\n" + event + hidden, []int{400}},
		{"a folded header", post + "X-A: b\r\n Transfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n" + event, []int{200, 400}},
		{"a folded coding", post + "Transfer-Encoding:\r\n chunked\r\n\r\n" + chunked, []int{200, 400}},
		{"a size beyond 64 bits", post + "Transfer-Encoding: chunked\r\n\r\n1000000000000000c\r\n" + event + "\r\n0\r\n\r\n" + hidden, []int{400}},
		{"a size with a sign", post + "Transfer-Encoding: chunked\r\n\r\n+c\r\n" + event + "\r\n0\r\n\r\n" + hidden, []int{400}},
		{"a chunk that is longer than it says", post + "Transfer-Encoding: chunked\r\n\r\n4\r\n" + event + "\r\n0\r\n\r\n" + hidden, []int{400}},
		{"an extension that doesn't end", post + "Transfer-Encoding: chunked\r\n\r\nc;" + strings.Repeat("a", 1<<20), []int{400}},
		{"a trailer that says a length", post + "Transfer-Encoding: chunked\r\nTrailer: Content-Length\r\n\r\nc\r\n" + event + "\r\n0\r\nContent-Length: 99\r\n\r\n", []int{200, 400}},
		{"HTTP/1.0 in chunks", strings.Replace(post, "HTTP/1.1", "HTTP/1.0", 1) + "Transfer-Encoding: chunked\r\n\r\n" + chunked + hidden, []int{400, 501}},
		{"a NUL in a header", post + "X-A: b\x00c\r\nContent-Length: 12\r\n\r\n" + event + hidden, []int{400}},
		{"a lone CR in a header", post + "X-A: b\rTransfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n" + event, []int{400}},
		{"no Host", "GET /livez HTTP/1.1\r\n\r\n", []int{400}},
		{"two Hosts", "GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", []int{400}},
		{"a Host that is none", "GET /livez HTTP/1.1\r\nHost: x/../y\r\n\r\n", []int{400, 403, 421}},
		{"HTTP/2 without TLS", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{400, 505}},
		{"HTTP/0.9", "GET /livez\r\n\r\n", []int{400}},
		{"HTTP/3.0", "GET /livez HTTP/3.0\r\nHost: x\r\n\r\n", []int{505}},
		{"TLS where there is none", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", []int{400}},
		{"a tunnel", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n", []int{400, 404, 405}},
		{"another's address", "GET http://169.254.169.254/latest/meta-data HTTP/1.1\r\nHost: x\r\n\r\n", []int{400, 403, 404, 421}},
		{"a header of a megabyte", "GET /livez HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n", []int{431}},
		{"ten thousand headers", "GET /livez HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-Abcdefghijk: abcdefghijklmnopqrstuvwxyz\r\n", 10_000) + "\r\n", []int{431}},
		{"a path of a megabyte", "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: x\r\n\r\n", []int{431}},
		{"a path that goes up", "GET /v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", []int{301, 307, 400, 404}},
		{"a body that is expected and too long", post + "Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", []int{413}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := g.talk(t, c.said+last)
			if len(got) == 0 && slices.Contains(c.want, 400) {
				return // it was hung up on
			}
			if len(got) == 0 || !slices.Contains(c.want, got[0]) {
				t.Fatalf("answered %v, want one of %v", got, c.want)
			}
			if refused := got[0] >= 400 && c.said != "" && strings.Contains(c.said, hidden); len(got) > 2 || refused && len(got) > 1 {
				t.Errorf("answered %v: what came behind it was taken for a request", got)
			}
		})
	}
	if status, text := g.ask(t, "GET", "/v1/channels/smuggled", ""); status != http.StatusNotFound {
		t.Errorf("something was published from within a body: %d %s", status, text)
	}
	g.wantWell(t)
}
