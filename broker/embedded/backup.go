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
	"strings"

	"github.com/cockroachdb/pebble/v2"
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
	dir, err := os.MkdirTemp(b.opt.Dir, copyPrefix)
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := b.disk.syncLogs(); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	copied := filepath.Join(dir, "data") // a checkpoint makes its folder itself
	if err := b.db.Checkpoint(copied, pebble.WithFlushedWAL()); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	if err := writeTar(ctx, w, copied); err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	return nil
}

// writeTar writes a folder's files, and restoredFile as the last, by which the
// reader knows that it has all. A log's length is taken once: it is a copy,
// nobody appends to it.
func writeTar(ctx context.Context, w io.Writer, dir string) error {
	t := tar.NewWriter(w)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		header := &tar.Header{Name: filepath.ToSlash(name), Size: info.Size(), Mode: 0o600, ModTime: info.ModTime()}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(t, f)
		return err
	})
	if err != nil {
		return err // without an end
	}
	return errors.Join(t.WriteHeader(&tar.Header{Name: restoredFile, Mode: 0o600}), t.Close())
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
			return syncDir(dir)
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

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// clearCopies removes what a process that was killed left of its backups.
func (b *Broker) clearCopies() {
	entries, err := os.ReadDir(b.opt.Dir)
	if err != nil {
		return // a store that isn't on the disk, or can't be listed: nothing to clear
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), copyPrefix) {
			_ = os.RemoveAll(filepath.Join(b.opt.Dir, e.Name()))
		}
	}
}
