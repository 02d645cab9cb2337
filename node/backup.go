package node

import (
	"context"
	"io"

	"github.com/longline-push/longline/broker/embedded"
)

// Unpack makes a data directory of a backup that a gateway answered with. dir
// must not exist yet.
func Unpack(r io.Reader, dir string) error { return embedded.Unpack(r, dir) }

// Report is what a data directory holds.
type Report = embedded.Report

// CheckData reads all of a data directory that no gateway uses.
func CheckData(ctx context.Context, dir string) (Report, error) { return embedded.Check(ctx, dir) }

// backup returns how the node's data is copied; nil if it isn't here.
func (n *Node) backup() func(context.Context, io.Writer) error {
	if b, ok := n.store.(interface {
		Backup(context.Context, io.Writer) error
	}); ok {
		return b.Backup
	}
	return nil
}
