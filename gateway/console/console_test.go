package console_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/longline-push/longline/gateway/console"
)

func get(path string, headers ...string) *http.Response {
	r := httptest.NewRequest("GET", path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	console.Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestPartsArePackedAndAskedForOnce(t *testing.T) {
	plain, _ := io.ReadAll(get("/console/ui.js").Body)
	packed := get("/console/ui.js", "Accept-Encoding", "gzip, br")
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	unpacked, _ := io.ReadAll(z)
	if len(plain) == 0 || string(unpacked) != string(plain) {
		t.Errorf("%d bytes as they are, %d unpacked", len(plain), len(unpacked))
	}
	if again := get("/console/ui.js", "Accept-Encoding", "gzip", "If-None-Match", packed.Header.Get("ETag")); again.StatusCode != 304 {
		t.Errorf("known already: %d", again.StatusCode)
	}
	if missing := get("/console/none.js"); missing.StatusCode != 404 || console.Has("none.js") || !console.Has("ui.js") {
		t.Errorf("missing: %d", missing.StatusCode)
	}
}

// TestThePagesTakeAtMost100KB, all parts together, as they are sent.
func TestThePagesTakeAtMost100KB(t *testing.T) {
	files, err := os.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	whole := 0
	for _, f := range files {
		body, _ := io.ReadAll(get("/console/"+f.Name(), "Accept-Encoding", "gzip").Body)
		whole += len(body)
	}
	if whole > 100<<10 {
		t.Errorf("%d bytes", whole)
	}
}

// TestNothingIsInlineOrTakenAsMarkup: what the policy would refuse isn't
// written, nor what makes elements of text.
func TestNothingIsInlineOrTakenAsMarkup(t *testing.T) {
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\(|new Function|javascript:`)
	inline := regexp.MustCompile(`(?i)<style|<script[^>]*>[^<]|\son[a-z]+=|\sstyle=`)
	elsewhere := regexp.MustCompile(`(?i)\b(src|href)="(https?:)?//`)
	files, err := os.ReadDir("static")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile("static/" + f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if found := markup.Find(text); found != nil {
			t.Errorf("%s has %q", f.Name(), found)
		}
		if found := inline.Find(text); found != nil && strings.HasSuffix(f.Name(), ".html") {
			t.Errorf("%s has %q", f.Name(), found)
		}
		if found := elsewhere.Find(text); found != nil {
			t.Errorf("%s has %q", f.Name(), found)
		}
	}
}
