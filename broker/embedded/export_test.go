package embedded

import "github.com/cockroachdb/pebble/v2/vfs"

// WithFS makes the broker use fs instead of the operating system's.
func WithFS(o Options, fs vfs.FS) Options {
	o.fs = fs
	return o
}
