package embedded

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// copyPrefix begins the name of the folder, beside the data, in which a backup
// is put together: a file system links there what doesn't change any more.
const copyPrefix = "backup-"

// Backup writes a consistent copy of the data to w, as a tar of files, while
// appends go on. It holds all that was answered when it was called. A gateway
// that is started on the unpacked files goes on from there, in a new term.
// The keys that a gateway keeps beside its data are not in it.
func (b *Broker) Backup(ctx context.Context, w io.Writer) error {
	if err := b.enter(ctx); err != nil {
		return err
	}
	defer b.calls.leave()
	dir := b.opt.fs.PathJoin(b.opt.Dir, copyPrefix+newEpoch())
	defer b.opt.fs.RemoveAll(dir)
	if err := b.disk.syncLogs(); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	// Of a directory that can't be synced, a copy that nobody keeps, pebble makes a
	// panic.
	_, err := recovered(func() error { return b.db.Checkpoint(dir, pebble.WithFlushedWAL()) })
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if err := writeTar(ctx, w, b.opt.fs, dir); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	return nil
}

// writeTar writes a folder's files, and restoredFile as the last, by which the
// reader knows that it has all.
func writeTar(ctx context.Context, w io.Writer, disk vfs.FS, dir string) error {
	names, err := disk.List(dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	t := tar.NewWriter(w)
	for _, name := range names {
		if err := errors.Join(ctx.Err(), addFile(t, disk, name, disk.PathJoin(dir, name))); err != nil {
			return err // without an end
		}
	}
	return errors.Join(t.WriteHeader(&tar.Header{Name: restoredFile, Mode: 0o600}), t.Close())
}

// addFile adds a file. Its length is taken once: it is a copy, nobody appends
// to it.
func addFile(t *tar.Writer, disk vfs.FS, name, path string) error {
	f, err := disk.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: name, Size: info.Size(), Mode: 0o600, ModTime: info.ModTime()}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// Unpack makes a data directory of what Backup wrote. dir must not exist. It is
// removed again if the backup isn't whole.
func Unpack(r io.Reader, dir string) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("unpack a backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("unpack a backup: %w", err), os.RemoveAll(dir))
		}
	}()
	for t, last := tar.NewReader(r), ""; ; {
		h, err := t.Next()
		switch {
		case err == io.EOF && last == restoredFile:
			return errors.Join(syncDir(vfs.Default, dir), syncDir(vfs.Default, filepath.Dir(dir)))
		case err == io.EOF:
			return errors.New("it was cut short; the gateway's log says why")
		case err != nil:
			return err
		case h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || strings.Contains(h.Name, "/"):
			return fmt.Errorf("it holds %q; want plain files", h.Name)
		}
		if last = h.Name; last == "" {
			return errors.New("it holds a file without a name")
		}
		if err := unpackFile(t, filepath.Join(dir, h.Name)); err != nil {
			return err
		}
	}
}

func unpackFile(r io.Reader, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Sync(), f.Close())
}

// clearCopies removes what a process that was killed left of its backups.
func (b *Broker) clearCopies() {
	names, err := b.opt.fs.List(b.opt.Dir)
	if err != nil {
		return // a store that can't be listed: nothing to clear
	}
	for _, name := range names {
		if strings.HasPrefix(name, copyPrefix) {
			_ = b.opt.fs.RemoveAll(b.opt.fs.PathJoin(b.opt.Dir, name))
		}
	}
}
