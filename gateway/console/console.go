// Package console is the gateway's page at "/": what an operator sees and does
// in a browser, by the same API that everybody has.
package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed static
var static embed.FS

// Policy is the pages' Content-Security-Policy: everything they need is the
// gateway's own; nothing else is loaded, run or framed.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Handler serves the console at "/" and what pages are made of below
// "/console/".
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(r.URL.Path, "/console/")
		if r.URL.Path == "/" {
			name = "page.html"
		}
		Serve(w, r, name)
	})
}

// Has tells whether there is a part of that name, e.g. "page.js".
func Has(name string) bool { return parts()[name] != nil }

// Serve answers with a part, packed for those who take it so. Browsers ask each
// time whether they still have the right one.
func Serve(w http.ResponseWriter, r *http.Request, name string) {
	p := parts()[name]
	if p == nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	if h.Get("Content-Security-Policy") == "" {
		h.Set("Content-Security-Policy", Policy)
	}
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Type", p.kind)
	h.Set("Vary", "Accept-Encoding")
	body, tag := p.plain, p.tag
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body, tag = p.packed, p.tag+"-gzip"
	}
	h.Set("ETag", `"`+tag+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// part is a file, as it is and packed.
type part struct {
	kind, tag     string
	plain, packed []byte
}

// parts are packed when the first one is asked for: commands that serve nothing
// need none.
var parts = sync.OnceValue(func() map[string]*part {
	all := make(map[string]*part)
	files, err := fs.ReadDir(static, "static")
	if err != nil {
		panic(err) // the embedded directory has no such name
	}
	for _, f := range files {
		plain, err := static.ReadFile("static/" + f.Name())
		if err != nil {
			panic(err)
		}
		var packed bytes.Buffer
		z, _ := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		z.Write(plain)
		z.Close()
		sum := sha256.Sum256(plain)
		kind := mime.TypeByExtension(path.Ext(f.Name()))
		if strings.HasSuffix(f.Name(), ".js") {
			kind = "text/javascript; charset=utf-8" // whatever the machine's table says
		}
		all[f.Name()] = &part{kind: kind, tag: hex.EncodeToString(sum[:9]), plain: plain, packed: packed.Bytes()}
	}
	return all
})
