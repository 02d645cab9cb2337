package node

// Break is for tests: from now on the node's store is b.
func (n *Node) Break(b interface {
	Broken() <-chan struct{}
	Err() error
}) {
	n.store = b
}
