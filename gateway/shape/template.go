package shape

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/longline-push/longline/gateway/expr"
)

// template is a URL whose path and query name attributes of an event, by RFC
// 6570 level 1: {subject}, {data.contact.id}. Scheme and host are constant.
type template struct {
	parts []part
	query int // where the query begins: an index of parts, len(parts) for none
}

// part is a literal or, where path isn't nil, an attribute.
type part struct {
	literal string
	path    []string
}

const maxExpanded = 8 << 10

// CheckURL names what is wrong with the attributes that a URL names.
func CheckURL(text string) error {
	_, err := parseTemplate(text)
	return err
}

// parseTemplate returns nil for a URL that names no attribute.
func parseTemplate(text string) (*template, error) {
	if !strings.ContainsAny(text, "{}") {
		return nil, nil
	}
	_, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, errors.New("not a URL")
	}
	host := len(text) - len(rest) + strings.IndexAny(rest+"/", "/?#")
	if strings.ContainsAny(text[:host], "{}") {
		return nil, errors.New("an attribute stands in the scheme or host, which are constant, want it in path or query")
	}
	t := &template{query: -1}
	for rest := text; rest != ""; {
		literal, after, found := strings.Cut(rest, "{")
		if strings.Contains(literal, "}") {
			return nil, errors.New(`a "}" without "{"`)
		}
		if before, query, ok := strings.Cut(literal, "?"); ok && t.query < 0 {
			if before != "" {
				t.parts = append(t.parts, part{literal: before})
			}
			t.query, literal = len(t.parts), "?"+query
		}
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(after, "}")
		if !closed {
			return nil, errors.New(`a "{" without "}"`)
		}
		path, err := parsePath(name)
		if err != nil {
			return nil, err
		}
		t.parts, rest = append(t.parts, part{path: path}), after
	}
	if t.query < 0 {
		t.query = len(t.parts)
	}
	return t, nil
}

func parsePath(name string) ([]string, error) {
	path := strings.Split(name, ".")
	for i, member := range path {
		ok := member != "" && (i == 0 || path[0] == "data")
		for j := 0; j < len(member); j++ {
			c := member[j]
			ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || i > 0 && (c >= 'A' && c <= 'Z' || c == '_'))
		}
		if !ok {
			return nil, fmt.Errorf("{%.80s} is not an attribute, want one such as {subject} or {data.contact.id}", name)
		}
	}
	if name == "data" {
		return nil, errors.New("{data} is all of the data, want a member such as {data.id}")
	}
	return path, nil
}

// expand puts an event's attributes in. What would change the shape of the
// path is refused: nothing, "." and ".." as a segment.
func (t *template) expand(e *expr.Event) (*url.URL, error) {
	var out strings.Builder
	begin := 0 // of the segment that is being written
	named := ""
	segment := func() error {
		if s := out.String()[begin:]; named != "" && (s == "" || s == "." || s == "..") {
			return fmt.Errorf("{%s} makes the path's segment %q", named, s)
		}
		named = ""
		return nil
	}
	for i, p := range t.parts {
		if i == t.query {
			if err := segment(); err != nil {
				return nil, err
			}
		}
		if p.path != nil {
			text, err := e.Text(p.path...)
			if err != nil {
				return nil, err
			}
			named = strings.Join(p.path, ".")
			escape(&out, text)
			continue
		}
		literal := p.literal
		for i < t.query {
			before, after, found := strings.Cut(literal, "/")
			out.WriteString(before)
			if !found {
				literal = ""
				break
			}
			if err := segment(); err != nil {
				return nil, err
			}
			out.WriteByte('/')
			begin, literal = out.Len(), after
		}
		out.WriteString(literal)
	}
	if t.query == len(t.parts) {
		if err := segment(); err != nil {
			return nil, err
		}
	}
	if out.Len() > maxExpanded {
		return nil, fmt.Errorf("the URL has %d bytes, want %d at most", out.Len(), maxExpanded)
	}
	u, err := url.Parse(out.String())
	if err != nil {
		return nil, errors.New("the attributes make no URL")
	}
	return u, nil
}

// escape writes what RFC 6570 level 1 makes of a text: all but the unreserved
// characters become %XX.
func escape(out *strings.Builder, s string) {
	const hexDigits = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_', c == '~':
			out.WriteByte(c)
		default:
			out.WriteByte('%')
			out.WriteByte(hexDigits[c>>4])
			out.WriteByte(hexDigits[c&15])
		}
	}
}
