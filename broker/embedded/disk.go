package embedded

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system that the store sees. It differs from the one below
// it in two things.
//
// The write-ahead log's Sync only says that the operating system has the
// bytes; the log is really synced by syncLogs, and when such a file is closed.
//
// A write that finds no room, or a file that finds no descriptor, waits until
// there is some, instead of leaving pebble with an error that it can't recover
// from. Meanwhile the broker is in trouble and answers so.
type disk struct {
	vfs.FS
	trouble *trouble
	aborted chan struct{} // closed: nobody waits for room
	once    sync.Once

	mu   sync.Mutex
	logs map[*logFile]struct{} // open write-ahead logs
}

var (
	_ vfs.FS   = (*disk)(nil)
	_ vfs.File = (*file)(nil)
	_ vfs.File = (*logFile)(nil)
)

func newDisk(fs vfs.FS, t *trouble) *disk {
	return &disk{FS: fs, trouble: t, aborted: make(chan struct{}), logs: map[*logFile]struct{}{}}
}

func (d *disk) Unwrap() vfs.FS { return d.FS }

func (d *disk) Create(name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	if err := d.trouble.fatal(); err != nil {
		<-d.aborted // pebble would try again at once, for ever
		return nil, err
	}
	err = d.whenRoom(func() error { f, err = d.FS.Create(name, category); return err })
	return d.wrap(name, f), err
}

func (d *disk) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (f vfs.File, err error) {
	err = d.whenRoom(func() error { f, err = d.FS.ReuseForWrite(old, name, category); return err })
	return d.wrap(name, f), err
}

func (d *disk) wrap(name string, f vfs.File) vfs.File {
	if f == nil {
		return nil
	}
	if filepath.Ext(name) != ".log" {
		return &file{File: f, disk: d}
	}
	l := &logFile{file: file{File: f, disk: d}}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.logs[l] = struct{}{}
	return l
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
		if err := l.sync(); err != nil {
			return err
		}
	}
	return nil
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

// logFile is a write-ahead log.
type logFile struct {
	file
	dirty  atomic.Bool // written to since the last sync began
	mu     sync.Mutex  // held while syncing
	closed bool        // guarded by mu
}

func (l *logFile) Write(p []byte) (int, error) {
	n, err := l.file.Write(p)
	l.dirty.Store(true)
	if err != nil {
		// Said before pebble knows, so that nobody commits after it does.
		l.disk.trouble.fail(fmt.Errorf("write to the log: %w", err))
	}
	return n, err
}

func (l *logFile) Sync() error     { return nil }
func (l *logFile) SyncData() error { return nil }

// SyncTo starts writing back without waiting, as below.
func (l *logFile) SyncTo(length int64) (bool, error) {
	_, err := l.File.SyncTo(length)
	return false, err
}

func (l *logFile) sync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || !l.dirty.Swap(false) {
		return nil
	}
	return l.File.SyncData()
}

func (l *logFile) Close() error {
	err := l.sync()
	if err != nil {
		err = fmt.Errorf("sync the log: %w", err)
		l.disk.trouble.fail(err)
	}
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.disk.mu.Lock()
	delete(l.disk.logs, l)
	l.disk.mu.Unlock()
	if e := l.File.Close(); err == nil {
		err = e
	}
	return err
}
