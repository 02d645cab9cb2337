package embedded

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system that the store sees. It differs from the one below
// it in three things.
//
// The write-ahead log's Sync only says that the operating system has the
// bytes; the log is really synced by syncLogs, and when such a file is closed.
//
// A write that finds no room, or a file that finds no descriptor, waits until
// there is some, instead of leaving pebble with an error that it can't recover
// from. Meanwhile the broker is in trouble and answers so.
//
// Of other errors of the files by which it would know what there is (see vital)
// the broker learns, and answers nothing any more, but pebble does not: it makes
// of most of them a panic, of some with a mutex that it doesn't hold. From then on
// nothing is written to such files, and nothing is removed.
type disk struct {
	vfs.FS
	dir     string // of the data
	trouble *trouble
	aborted chan struct{} // closed: nobody waits for room
	opened  atomic.Bool   // the store is
	once    sync.Once

	mu   sync.Mutex
	logs map[*logFile]struct{} // open write-ahead logs
}

var (
	_ vfs.FS   = (*disk)(nil)
	_ vfs.File = (*file)(nil)
	_ vfs.File = (*vital)(nil)
	_ vfs.File = (*logFile)(nil)
)

func newDisk(fs vfs.FS, dir string, t *trouble) *disk {
	return &disk{FS: fs, dir: dir, trouble: t, aborted: make(chan struct{}), logs: map[*logFile]struct{}{}}
}

// makeDir makes a directory, and those above it, so that a lost machine has them.
// Those that are there already are synced as well: a process that made them may
// have been killed before it did. Where that isn't allowed it is let be.
func makeDir(fs vfs.FS, dir string) error {
	missing := []string{} // and the first that is there
	for at := dir; ; at = fs.PathDir(at) {
		missing = append(missing, at)
		if _, err := fs.Stat(at); err == nil || fs.PathDir(at) == at {
			break
		}
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i, at := 1, dir; fs.PathDir(at) != at; i++ {
		at = fs.PathDir(at)
		if err := syncDir(fs, at); err != nil && i < len(missing) {
			return err
		}
	}
	return nil
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (d *disk) Unwrap() vfs.FS { return d.FS }

func (d *disk) Create(name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	if err := d.trouble.fatal(); err != nil {
		if d.ours(name) && !d.vital(name) {
			// Pebble would try again at once, for ever.
			<-d.aborted
			<-time.After(roomInterval)
		}
		return d.wrap(name, nil, err)
	}
	// What a marker points to must not come after it; pebble syncs only once.
	if strings.HasPrefix(filepath.Base(name), "marker.") && d.vital(name) {
		_ = d.hush("sync the directory", syncDir(d.FS, d.dir))
	}
	err = d.whenRoom(func() error { f, err = d.FS.Create(name, category); return err })
	return d.wrap(name, f, err)
}

func (d *disk) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	if err := d.trouble.fatal(); err != nil {
		return d.wrap(name, nil, err)
	}
	err = d.whenRoom(func() error { f, err = d.FS.ReuseForWrite(old, name, category); return err })
	return d.wrap(name, f, err)
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil || filepath.Clean(name) != filepath.Clean(d.dir) {
		return f, err
	}
	return &vital{file{File: f, disk: d}}, nil
}

func (d *disk) Rename(old, name string) error {
	if d.trouble.fatal() != nil {
		return nil
	}
	return d.hush("rename a file", d.whenRoom(func() error { return d.FS.Rename(old, name) }))
}

func (d *disk) Remove(name string) error {
	if err := d.trouble.fatal(); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

// wrap makes of what opening a file gave what pebble gets.
func (d *disk) wrap(name string, f vfs.File, err error) (vfs.File, error) {
	if !d.vital(name) {
		if err != nil {
			return nil, err
		}
		return &file{File: f, disk: d}, nil
	}
	if err != nil {
		_ = d.hush("make a file", err)
		f = vfs.NewMemFile(nil) // nothing is written to it
	}
	v := vital{file{File: f, disk: d}}
	if filepath.Ext(name) != ".log" {
		return &v, nil
	}
	l := &logFile{vital: v}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs[l] = struct{}{}
	return l, nil
}

// vital tells whether a file is one without which nobody would know what there is,
// or whose error has pebble give up opening, and tidy up under its own goroutines.
// It takes an error of the tables that it makes later.
func (d *disk) vital(name string) bool {
	return d.ours(name) && (filepath.Ext(name) != ".sst" || !d.opened.Load())
}

// ours tells whether a file is one of the data, not of a copy.
func (d *disk) ours(name string) bool {
	return filepath.Clean(filepath.Dir(name)) == filepath.Clean(d.dir)
}

// hush has the broker fail of an error, and keeps it from pebble.
func (d *disk) hush(what string, err error) error {
	if err != nil {
		d.trouble.fail(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// syncLogs returns once all that was written to write-ahead logs before the
// call is on the disk.
func (d *disk) syncLogs() error {
	d.mu.Lock()
	open := make([]*logFile, 0, 2)
	for l := range d.logs {
		open = append(open, l)
	}
	d.mu.Unlock()
	for _, l := range open {
		l.sync()
	}
	return d.trouble.fatal() // of a log that was closed meanwhile, too
}

// abort ends the waiting for room: those writes fail.
func (d *disk) abort() { d.once.Do(func() { close(d.aborted) }) }

// noRoom tells whether an error passes once somebody makes room: on the disk,
// or among the process's or the machine's open files.
func noRoom(err error) bool {
	for _, passes := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, passes) {
			return true
		}
	}
	return false
}

const roomInterval = 200 * time.Millisecond

// whenRoom calls try until it returns anything but a lack of room.
func (d *disk) whenRoom(try func() error) error {
	err := try()
	if err == nil || !noRoom(err) {
		return err
	}
	d.trouble.full(err)
	defer d.trouble.room()
	tick := time.NewTicker(roomInterval)
	defer tick.Stop()
	for {
		select {
		case <-d.aborted:
			return err
		case <-tick.C:
		}
		if err = try(); err == nil || !noRoom(err) {
			return err
		}
	}
}

type file struct {
	vfs.File
	disk *disk
}

func (f *file) Write(p []byte) (written int, err error) {
	err = f.disk.whenRoom(func() error {
		n, err := f.File.Write(p[written:])
		written += n
		return err
	})
	return written, err
}

// vital is such a file, or the directory.
type vital struct{ file }

func (v *vital) Write(p []byte) (int, error) {
	if v.disk.trouble.fatal() == nil {
		_, err := v.file.Write(p)
		_ = v.disk.hush("write", err) // before pebble goes on, so that nobody is answered
	}
	return len(p), nil
}

func (v *vital) Sync() error     { return v.disk.hush("sync", v.File.Sync()) }
func (v *vital) SyncData() error { return v.disk.hush("sync", v.File.SyncData()) }
func (v *vital) Close() error    { return v.disk.hush("close", v.File.Close()) }

// logFile is a write-ahead log.
type logFile struct {
	vital
	dirty atomic.Bool // written to since the last sync began

	mu     sync.Mutex // held while syncing
	closed bool
}

func (l *logFile) Write(p []byte) (int, error) {
	n, err := l.vital.Write(p)
	l.dirty.Store(true)
	return n, err
}

func (l *logFile) Sync() error     { return nil }
func (l *logFile) SyncData() error { return nil }

// SyncTo starts writing back without waiting, as below.
func (l *logFile) SyncTo(length int64) (bool, error) {
	_, err := l.File.SyncTo(length)
	return false, err
}

// sync fails for good, and for everybody: an operating system forgets what it
// couldn't write, and says so once.
func (l *logFile) sync() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed && l.dirty.Swap(false) {
		_ = l.vital.SyncData()
	}
}

func (l *logFile) Close() error {
	l.sync()
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.disk.mu.Lock()
	delete(l.disk.logs, l)
	l.disk.mu.Unlock()
	return l.vital.Close()
}
