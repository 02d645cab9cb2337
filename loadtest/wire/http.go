package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// ErrHTTP is wrapped by all errors about malformed HTTP messages.
var ErrHTTP = errors.New("malformed HTTP message")

const maxHead = 64 << 10

// A Head is what the tester needs to know of an HTTP/1.1 request or response.
type Head struct {
	First   []byte // the request line or status line
	Status  int    // of a response
	Length  int    // of the body; -1: not given
	Chunked bool
	fields  []byte
}

// NextHead reads the head of a request or response and its size.
func NextHead(b []byte) (Head, int, error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(b) > maxHead {
			return Head{}, 0, fmt.Errorf("%w: head longer than %d bytes", ErrHTTP, maxHead)
		}
		return Head{}, 0, nil
	}
	first, fields, _ := bytes.Cut(b[:end], []byte("\r\n"))
	h := Head{First: first, Length: -1, fields: fields}
	if bytes.HasPrefix(first, []byte("HTTP/1.")) {
		if len(first) < 12 {
			return Head{}, 0, fmt.Errorf("%w: status line %q", ErrHTTP, first)
		}
		status, err := strconv.Atoi(string(first[9:12]))
		if err != nil || status < 100 {
			return Head{}, 0, fmt.Errorf("%w: status line %q", ErrHTTP, first)
		}
		h.Status = status
	}
	if v := h.Get("Content-Length"); v != nil {
		n, err := strconv.Atoi(string(v))
		if err != nil || n < 0 || n > maxFrame {
			return Head{}, 0, fmt.Errorf("%w: Content-Length %q", ErrHTTP, v)
		}
		h.Length = n
	}
	h.Chunked = bytes.EqualFold(h.Get("Transfer-Encoding"), []byte("chunked"))
	return h, end + 4, nil
}

// Get returns a field's value, nothing if it is empty or isn't there.
func (h Head) Get(name string) []byte {
	for rest := h.fields; len(rest) > 0; {
		line := rest
		if i := bytes.Index(rest, []byte("\r\n")); i >= 0 {
			line, rest = rest[:i], rest[i+2:]
		} else {
			rest = nil
		}
		if len(line) > len(name) && line[len(name)] == ':' && bytes.EqualFold(line[:len(name)], []byte(name)) {
			return bytes.TrimSpace(line[len(name)+1:])
		}
	}
	return nil
}

// A Dechunker takes the chunked coding (RFC 9112 section 7.1) off a body that
// arrives in pieces. The zero value is ready.
type Dechunker struct {
	left  int // of the current chunk
	phase dechunkPhase
	Done  bool // the last chunk and its trailer have been read
}

type dechunkPhase uint8

const (
	chunkSize dechunkPhase = iota
	chunkExtension
	chunkData
	chunkEnd
	chunkTrailer
	chunkTrailerLine
)

// Decode takes the next piece and returns the body bytes in it, in place. What
// follows the last chunk is dropped: the tester never sends a second request
// before the answer to the first.
func (d *Dechunker) Decode(b []byte) ([]byte, error) {
	out := b[:0]
	for len(b) > 0 && !d.Done {
		if d.phase == chunkData {
			n := min(d.left, len(b))
			out = append(out, b[:n]...)
			b, d.left = b[n:], d.left-n
			if d.left == 0 {
				d.phase = chunkEnd
			}
			continue
		}
		c := b[0]
		b = b[1:]
		if err := d.step(c); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (d *Dechunker) step(c byte) error {
	switch d.phase {
	case chunkSize:
		digit := bytes.IndexByte([]byte("0123456789abcdef"), c|0x20)
		switch {
		case c == '\n' || c == ';':
			d.phase = chunkExtension
			if c == '\n' {
				d.sized()
			}
		case c == '\r':
		case digit < 0 || c < '0':
			return fmt.Errorf("%w: chunk size has %q", ErrHTTP, c)
		default:
			if d.left = d.left<<4 | digit; d.left > maxFrame {
				return fmt.Errorf("%w: chunk of over %d bytes", ErrHTTP, maxFrame)
			}
		}
	case chunkExtension:
		if c == '\n' {
			d.sized()
		}
	case chunkEnd:
		if c == '\n' {
			d.phase = chunkSize
		} else if c != '\r' {
			return fmt.Errorf("%w: %q after a chunk", ErrHTTP, c)
		}
	case chunkTrailer:
		if c == '\n' {
			d.Done = true
		} else if c != '\r' {
			d.phase = chunkTrailerLine
		}
	case chunkTrailerLine:
		if c == '\n' {
			d.phase = chunkTrailer
		}
	}
	return nil
}

// sized goes on after the line that gave a chunk's size.
func (d *Dechunker) sized() {
	d.phase = chunkData
	if d.left == 0 {
		d.phase = chunkTrailer
	}
}
