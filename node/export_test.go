package node

import (
	"errors"
	"testing"
)

// Break is for tests: from now on the node's store is b.
func (n *Node) Break(b interface {
	Broken() <-chan struct{}
	Err() error
}) {
	n.store = b
}

// Unmark has the data say nothing of its keys, as before there were marks.
func Unmark(t *testing.T, o Options) {
	t.Helper()
	n, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	_, head, err := lastSealed(t.Context(), n.broker)
	if err == nil {
		_, err = sealed{}.note(t.Context(), n.broker, head)
	}
	if err := errors.Join(err, n.Shutdown()); err != nil {
		t.Fatal(err)
	}
}
