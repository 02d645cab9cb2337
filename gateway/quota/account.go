// Package quota is what a node takes on: one budget for the node, each token's
// sub and each connection, in bytes and in objects. Each limit has a name, by
// which it is configured, counted and told of.
package quota

import "sync/atomic"

// Account holds so many bytes or objects, up to its limit, and as many of the
// account above it. Its methods may be called by any goroutine.
type Account struct {
	name  string // of the limit, as the flag is called
	limit int64  // 0: none
	above *Account
	held  atomic.Int64
}

// NewAccount returns an account of its own limit, 0 for none, within another,
// nil for none.
func NewAccount(name string, limit int64, within *Account) *Account {
	return &Account{name: name, limit: limit, above: within}
}

// Take takes n, here and above, or nothing and returns the account that is
// full.
func (a *Account) Take(n int64) (full *Account) {
	for at := a; at != nil; at = at.above {
		if held := at.held.Add(n); at.limit > 0 && held > at.limit {
			for back := a; ; back = back.above {
				back.held.Add(-n)
				if back == at {
					return at
				}
			}
		}
	}
	return nil
}

// put takes n whatever the limits.
func (a *Account) put(n int64) {
	for at := a; at != nil; at = at.above {
		at.held.Add(n)
	}
}

// Give gives back n that were taken.
func (a *Account) Give(n int64) {
	for at := a; at != nil; at = at.above {
		at.held.Add(-n)
	}
}

// Held returns how much is taken.
func (a *Account) Held() int64 { return a.held.Load() }

// Limit returns how much may be, 0 for any.
func (a *Account) Limit() int64 { return a.limit }

// Name is that of the limit.
func (a *Account) Name() string { return a.name }
