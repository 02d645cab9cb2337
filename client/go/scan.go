package longline

import (
	"encoding/json"
	"unicode/utf8"
)

// scanner walks over JSON text (RFC 8259) once, checking it and copying
// nothing. It exists because decoding an event through encoding/json, which
// reads everything twice and into a map, costs several times as much.
type scanner struct {
	text string
	at   int
}

// deepest is how far values may be nested, as in encoding/json.
const deepest = 10000

func (s *scanner) space() {
	for s.at < len(s.text) {
		switch s.text[s.at] {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return
		}
	}
}

// take consumes c, after any white space.
func (s *scanner) take(c byte) bool {
	s.space()
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

// object calls member for each member of the object that the text is, with
// where its value stands, and returns whether the text is one whole object.
// key is quoted.
func (s *scanner) object(member func(key string, from, to int)) bool {
	if !s.take('{') {
		return false
	}
	if s.take('}') {
		s.space()
		return s.at == len(s.text)
	}
	for {
		s.space()
		from := s.at
		if !s.str() {
			return false
		}
		key := s.text[from:s.at]
		if !s.take(':') {
			return false
		}
		s.space()
		from = s.at
		if !s.value(1) {
			return false
		}
		member(key, from, s.at)
		if s.take(',') {
			continue
		}
		if !s.take('}') {
			return false
		}
		s.space()
		return s.at == len(s.text)
	}
}

func (s *scanner) value(depth int) bool {
	if s.at >= len(s.text) || depth > deepest {
		return false
	}
	switch c := s.text[s.at]; c {
	case '"':
		return s.str()
	case '{', '[':
		return s.nested(c, depth)
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	}
	return s.number()
}

func (s *scanner) nested(open byte, depth int) bool {
	closing := open + 2 // in ASCII both brackets close two above where they open
	s.at++
	if s.take(closing) {
		return true
	}
	for {
		s.space()
		if open == '{' && !(s.str() && s.take(':')) {
			return false
		}
		s.space()
		if !s.value(depth + 1) {
			return false
		}
		if s.take(',') {
			continue
		}
		return s.take(closing)
	}
}

func (s *scanner) word(w string) bool {
	if len(s.text)-s.at < len(w) || s.text[s.at:s.at+len(w)] != w {
		return false
	}
	s.at += len(w)
	return true
}

func (s *scanner) str() bool {
	if s.at >= len(s.text) || s.text[s.at] != '"' {
		return false
	}
	for i := s.at + 1; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.at = i + 1
			return true
		case c < ' ':
			return false
		case c == '\\':
			i++
			if i >= len(s.text) {
				return false
			}
			switch s.text[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					if i++; i >= len(s.text) || !hexDigit(s.text[i]) {
						return false
					}
				}
			default:
				return false
			}
		}
	}
	return false
}

func (s *scanner) number() bool {
	if s.at < len(s.text) && s.text[s.at] == '-' {
		s.at++
	}
	if s.at < len(s.text) && s.text[s.at] == '0' {
		s.at++
	} else if !s.digits() {
		return false
	}
	if s.at < len(s.text) && s.text[s.at] == '.' {
		s.at++
		if !s.digits() {
			return false
		}
	}
	if s.at < len(s.text) && s.text[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.text) && (s.text[s.at] == '+' || s.text[s.at] == '-') {
			s.at++
		}
		return s.digits()
	}
	return true
}

func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.text) && s.text[s.at] >= '0' && s.text[s.at] <= '9' {
		s.at++
	}
	return s.at > from
}

func hexDigit(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// unquote returns the string that quoted, a checked JSON value, stands for.
// null is the empty string, as in encoding/json.
func unquote(quoted string) (string, bool) {
	if quoted == "null" {
		return "", true
	}
	if len(quoted) < 2 || quoted[0] != '"' {
		return "", false
	}
	for i := 1; i < len(quoted)-1; i++ {
		if c := quoted[i]; c == '\\' || c >= utf8.RuneSelf {
			var s string
			return s, json.Unmarshal([]byte(quoted), &s) == nil
		}
	}
	return quoted[1 : len(quoted)-1], true
}
