package auth

import (
	"fmt"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/longline-push/longline/event"
)

// channels is a list of channel patterns. Most tokens name their channels, so
// those are kept as bare names. A nil list matches nothing.
type channels struct {
	exact []string
	open  []event.Pattern
}

func parseChannels(list []string) (*channels, error) {
	if len(list) == 0 {
		return nil, nil
	}
	c := new(channels)
	for _, text := range list {
		p, err := event.ParsePattern(text)
		if err != nil {
			return nil, err
		}
		if p.Literal() {
			c.exact = append(c.exact, text)
		} else {
			c.open = append(c.open, p)
		}
	}
	return c, nil
}

func (c *channels) match(name string) bool {
	if c == nil {
		return false
	}
	for _, exact := range c.exact {
		if exact == name {
			return true
		}
	}
	for _, p := range c.open {
		if p.MatchChannel(name) {
			return true
		}
	}
	return false
}

// list returns the patterns, those without "*" first.
func (c *channels) list() []string {
	list := []string{}
	if c == nil {
		return list
	}
	list = append(list, c.exact...)
	for _, p := range c.open {
		list = append(list, p.String())
	}
	return list
}

func reserved(channel string) bool { return event.Reserved(channel) }

// names is a list of subscription name patterns, in which "*" is any run of
// characters. A nil list matches nothing.
type names []string

const maxName = 256

func parseNames(list []string) (*names, error) {
	if len(list) == 0 {
		return nil, nil
	}
	for _, text := range list {
		if text == "" || len(text) > maxName {
			return nil, fmt.Errorf(`name pattern of %d bytes: want 1 to %d, "*" being any run of characters`, len(text), maxName)
		}
	}
	n := names(list)
	return &n, nil
}

func (n *names) list() []string {
	if n == nil {
		return []string{}
	}
	return *n
}

func (n *names) match(name string) bool {
	if n == nil {
		return false
	}
	for _, pattern := range *n {
		if matchName(pattern, name) {
			return true
		}
	}
	return false
}

// matchName goes back to the latest "*" only: what an earlier one took can
// always be given to the later one instead, so it is linear in the product.
func matchName(pattern, name string) bool {
	p, n := 0, 0
	star, from := -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// interned shares the pattern lists that many tokens have in common. It is
// bounded: a list that each customer has to itself is soon forgotten here and
// lives with its grant alone.
type interned struct {
	channels *lru.Cache[string, *channels]
	names    *lru.Cache[string, *names]
}

const internSize = 512

func newInterned() interned {
	// The only error is a size below 1.
	c, _ := lru.New[string, *channels](internSize)
	n, _ := lru.New[string, *names](internSize)
	return interned{c, n}
}

func (i interned) parseChannels(list []string) (*channels, error) {
	return intern(i.channels, list, parseChannels)
}

func (i interned) parseNames(list []string) (*names, error) {
	return intern(i.names, list, parseNames)
}

func intern[T any](cache *lru.Cache[string, *T], list []string, parse func([]string) (*T, error)) (*T, error) {
	if len(list) == 0 {
		return nil, nil
	}
	for _, text := range list {
		if strings.Contains(text, "\x00") {
			return nil, fmt.Errorf("pattern %q holds a NUL", text)
		}
	}
	key := strings.Join(list, "\x00")
	if v, ok := cache.Get(key); ok {
		return v, nil
	}
	v, err := parse(list)
	if err == nil {
		cache.Add(key, v)
	}
	return v, err
}
