package publish

import (
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/longline-push/longline/event"
	"github.com/longline-push/longline/gateway/wire"
)

// isBinary tells whether the headers are those of CloudEvents' binary mode.
// Any of its required attributes tells, so that one who forgets another hears
// about that.
func isBinary(h http.Header) bool {
	return h["Ce-Specversion"] != nil || h["Ce-Type"] != nil || h["Ce-Id"] != nil || h["Ce-Source"] != nil
}

// readBinary reads an event whose attributes are headers and whose data is the
// body (CloudEvents' HTTP binding §3.1).
func (b *batch) readBinary(h http.Header) error {
	if err := b.begin(); err != nil {
		return err
	}
	for key, values := range h {
		name, ok := strings.CutPrefix(key, "Ce-")
		if !ok {
			continue
		}
		if err := b.readHeader(strings.ToLower(name), values); err != nil {
			return err
		}
	}
	// Headers come in no order; the event's bytes should.
	slices.SortFunc(b.fields.Extensions, func(a, b event.Attribute) int { return strings.Compare(a.Name, b.Name) })
	if !b.given.has(attrVersion) {
		return b.bad("header ce-specversion is missing; want 1.0")
	}
	if err := b.readData(h.Get("Content-Type")); err != nil {
		return err
	}
	return b.end()
}

func (b *batch) readHeader(name string, values []string) error {
	if len(values) > 1 {
		return b.bad("header ce-%s is there %d times; want it once", name, len(values))
	}
	from := len(b.scratch)
	var problem string
	if b.scratch, problem = appendHeader(b.scratch, values[0]); problem != "" {
		return b.bad("header ce-%s %s", name, problem)
	}
	text := b.scratch[from:len(b.scratch):len(b.scratch)]
	if !utf8.Valid(text) {
		return b.bad("header ce-%s is not UTF-8 once percent-decoded", name)
	}
	switch set, to := b.field(name); {
	case name == "data" || set == attrBase64:
		return b.bad("header ce-%s; in binary mode the data is the body", name)
	case set == attrContentType:
		return b.bad("header ce-datacontenttype; in binary mode Content-Type says it")
	case set != 0:
		b.given |= set
		return b.set(set, name, alias(text), to)
	}
	quoted := len(b.scratch)
	b.scratch = event.AppendString(b.scratch, alias(text))
	return b.extension(name, b.scratch[quoted:len(b.scratch):len(b.scratch)])
}

// appendHeader appends what a header's value says: first a quoted string is
// unquoted, then percent-encoding is undone, once (HTTP binding §3.1.3.2). The
// problem, if any, completes a sentence.
func appendHeader(dst []byte, value string) (out []byte, problem string) {
	value = strings.Trim(value, " \t")
	if strings.HasPrefix(value, `"`) {
		unquoted, ok := unquoteHeader(value)
		if !ok {
			return dst, "begins a quoted string that doesn't end where the value does"
		}
		value = unquoted
	}
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c == '%' {
			if i+2 >= len(value) || !isHex(value[i+1]) || !isHex(value[i+2]) {
				return dst, `holds a "%" that two hex digits don't follow; want %25 for the sign itself`
			}
			c = fromHex(value[i+1])<<4 | fromHex(value[i+2])
			i += 2
		}
		dst = append(dst, c)
	}
	return dst, ""
}

// unquoteHeader reads a quoted-string (RFC 9110 §5.6.4) that is all of s.
func unquoteHeader(s string) (string, bool) {
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return out.String(), i == len(s)-1
		case c == '\\' && i+1 < len(s):
			i++
			out.WriteByte(s[i])
		default:
			out.WriteByte(c)
		}
	}
	return "", false
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func fromHex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}

// readData makes the body data: JSON as it is, text as a JSON string, anything
// else as data_base64. JSON's format §3.1.
func (b *batch) readData(contentType string) error {
	b.fields.ContentType = contentType
	if len(b.body) == 0 {
		return nil
	}
	media, parameters, err := mime.ParseMediaType(contentType)
	if err != nil && contentType != "" {
		return wire.BadRequest("Content-Type %.80q can't be read; want a media type (RFC 2046)", contentType)
	}
	charset := strings.ToLower(parameters["charset"])
	readable := charset == "" || charset == "utf-8" || charset == "us-ascii"
	switch {
	case media == "" || media == "application/json" || media == "text/json" || strings.HasSuffix(media, "+json"):
		b.startJSON()
		value, err := b.value()
		if err == nil {
			err = b.atEnd()
		}
		if err != nil {
			return err
		}
		if b.fields.Data, err = b.compact(value); err != nil {
			return err
		}
	case strings.HasPrefix(media, "text/") && readable:
		if !utf8.Valid(b.body) {
			return wire.BadRequest("body is not UTF-8, as Content-Type %.80q has it", contentType)
		}
		from := len(b.scratch)
		b.scratch = event.AppendString(b.scratch, alias(b.body))
		b.fields.Data = b.scratch[from:len(b.scratch):len(b.scratch)]
	default:
		b.fields.Binary = b.body
	}
	return nil
}
