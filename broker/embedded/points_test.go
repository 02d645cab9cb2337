package embedded_test

import (
	"os"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// points is a file system in memory that asks at each of its points whether it
// may go on: before it makes, renames, links, removes or syncs something, before
// a write and in the middle of it. What wasn't synced, names too, a crash may
// take.
type points struct {
	vfs.FS
	mem *vfs.MemFS

	mu sync.Mutex
	n  int // points so far
	// at is asked with the number of a point, from 1, and what is being done. An
	// error is what comes of it instead. Called by one goroutine at a time.
	at func(n int, op, file string) error
}

func newPoints(mem *vfs.MemFS, at func(n int, op, file string) error) *points {
	return &points{FS: mem, mem: mem, at: at}
}

func (p *points) ask(op, file string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	return p.at(p.n, op, file)
}

func (p *points) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

func (p *points) file(op, name string, open func() (vfs.File, error)) (vfs.File, error) {
	if op != "" {
		if err := p.ask(op, name); err != nil {
			return nil, &os.PathError{Op: op, Path: name, Err: err}
		}
	}
	f, err := open()
	if err != nil {
		return nil, err
	}
	return &pointedFile{f, name, p}, nil
}

func (p *points) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.file("create", name, func() (vfs.File, error) { return p.FS.Create(name, c) })
}

func (p *points) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.file("reuse", name, func() (vfs.File, error) { return p.FS.ReuseForWrite(old, name, c) })
}

func (p *points) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return p.file("open", name, func() (vfs.File, error) { return p.FS.OpenReadWrite(name, c, o...) })
}

func (p *points) OpenDir(name string) (vfs.File, error) {
	return p.file("", name, func() (vfs.File, error) { return p.FS.OpenDir(name) })
}

func (p *points) Link(old, name string) error {
	return p.change("link", name, func() error { return p.FS.Link(old, name) })
}

func (p *points) change(op, name string, do func() error) error {
	if err := p.ask(op, name); err != nil {
		return &os.PathError{Op: op, Path: name, Err: err}
	}
	return do()
}

func (p *points) Remove(name string) error {
	return p.change("remove", name, func() error { return p.FS.Remove(name) })
}

func (p *points) RemoveAll(name string) error {
	return p.change("remove all", name, func() error { return p.FS.RemoveAll(name) })
}

func (p *points) Rename(old, name string) error {
	return p.change("rename", name, func() error { return p.FS.Rename(old, name) })
}

func (p *points) MkdirAll(name string, mode os.FileMode) error {
	return p.change("mkdir", name, func() error { return p.FS.MkdirAll(name, mode) })
}

func (p *points) Unwrap() vfs.FS { return p.FS }

type pointedFile struct {
	vfs.File
	name string
	p    *points
}

func (f *pointedFile) Write(b []byte) (int, error) {
	if err := f.p.ask("write", f.name); err != nil {
		return 0, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	n, err := f.File.Write(b[:len(b)/2])
	if err != nil {
		return n, err
	}
	if err := f.p.ask("go on writing", f.name); err != nil {
		return n, &os.PathError{Op: "write", Path: f.name, Err: err}
	}
	more, err := f.File.Write(b[n:])
	return n + more, err
}

func (f *pointedFile) Sync() error {
	return f.p.change("sync", f.name, f.File.Sync)
}

func (f *pointedFile) SyncData() error {
	return f.p.change("sync", f.name, f.File.SyncData)
}

// faulty returns what fails at the n-th point: once, or with all that follow it
// for a while.
func faulty(first, many int, err syscall.Errno) func(int, string, string) error {
	return func(n int, _, _ string) error {
		if n >= first && n-first < many {
			return err
		}
		return nil
	}
}
