package auth

import (
	"crypto/sha256"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// memory is what a verifier remembers of tokens, so that a publisher's
// thousandth request costs no look at a signature. What was used longest ago
// goes first. It is safe for concurrent use.
type memory struct {
	limit int // bytes

	mu     sync.Mutex
	tokens *simplelru.LRU[digest, verified]
	bytes  int
}

type digest = [sha256.Size]byte

type verified struct {
	grant *Grant
	until int64 // Unix seconds
	size  int   // of the token; the grant made of it isn't larger
}

// perToken is what a token costs besides its size: the grant, the entry.
const perToken = 384

func newMemory(limit int) *memory {
	m := &memory{limit: limit}
	m.tokens, _ = simplelru.NewLRU(max(limit/perToken, 1), func(_ digest, v verified) { m.bytes -= v.size + perToken })
	return m
}

// get returns the grant of a token that still counts, or nil.
func (m *memory) get(key digest, now int64) *Grant {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.tokens.Get(key)
	if !ok || now >= v.until {
		return nil
	}
	return v.grant
}

func (m *memory) put(key digest, v verified) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens.Remove(key) // verified twice at once, or no longer counting
	m.bytes += v.size + perToken
	m.tokens.Add(key, v)
	for m.bytes > m.limit {
		m.tokens.RemoveOldest()
	}
}

func (m *memory) forget(key digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens.Remove(key)
}
