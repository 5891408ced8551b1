package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// runTarIn unpacks a tar below an existing directory as the current user. No
// entry leaves the directory, through its name or through a link: os.Root sees
// to that. It ends at the first entry that can't be unpacked.
func runTarIn(dir string, r io.Reader) int {
	root, err := os.OpenRoot(dir)
	if err != nil {
		complain(err)
		return 1
	}
	defer func() { _ = root.Close() }()
	u := unpacker{root: root}
	if err := u.unpack(tar.NewReader(r)); err != nil {
		complain(fmt.Errorf("unpack in %s: %w", dir, err))
		return 1
	}
	// The sender may have padding left that it wants to get rid of.
	_, _ = io.Copy(io.Discard, r)
	return 0
}

type unpacker struct {
	root *os.Root
	// dirs are those made here. Their modes and times come last: a directory may
	// be one that its owner can't write to.
	dirs []*tar.Header
}

func (u *unpacker) unpack(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return u.finishDirs()
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if err := u.entry(header, archive); err != nil {
			return fmt.Errorf("entry %q: %w", header.Name, err)
		}
	}
}

var errLeaves = errors.New("its name leads out of the directory")

func (u *unpacker) entry(header *tar.Header, content io.Reader) error {
	switch header.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default: // devices and pipes aren't ours to make
		return nil
	}
	if !local(header.Name) {
		return errLeaves
	}
	header.Name = path.Clean(header.Name)
	if header.Typeflag == tar.TypeDir {
		return u.dir(header)
	}
	if err := u.root.MkdirAll(path.Dir(header.Name), 0o755); err != nil {
		return err
	}
	// What is there is replaced, not written through: it may be a link, or have
	// other names.
	if err := u.clear(header.Name); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeSymlink:
		return u.root.Symlink(header.Linkname, header.Name)
	case tar.TypeLink:
		if !local(header.Linkname) {
			return errLeaves
		}
		return u.root.Link(path.Clean(header.Linkname), header.Name)
	default:
		return u.file(header, content)
	}
}

// local says whether a name can only mean something below. A ".." that others
// make up for may still lead out, through a link.
func local(name string) bool {
	return name != "" && !path.IsAbs(name) && !slices.Contains(strings.Split(name, "/"), "..")
}

func (u *unpacker) clear(name string) error {
	info, err := u.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("a directory is in its place")
	}
	return u.root.Remove(name)
}

func (u *unpacker) dir(header *tar.Header) error {
	if info, err := u.root.Stat(header.Name); err == nil && info.IsDir() {
		return nil // its mode is its owner's business
	}
	if err := u.root.MkdirAll(header.Name, 0o755); err != nil {
		return err
	}
	u.dirs = append(u.dirs, header)
	return nil
}

// permissions never make a program run as another user.
func permissions(header *tar.Header) fs.FileMode { return fs.FileMode(header.Mode) & fs.ModePerm }

func (u *unpacker) file(header *tar.Header, content io.Reader) error {
	file, err := u.root.OpenFile(header.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	if err == nil {
		err = file.Chmod(permissions(header)) // whatever the umask is
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return u.root.Chtimes(header.Name, time.Time{}, header.ModTime)
}

func (u *unpacker) finishDirs() error {
	var failures []error
	for _, header := range slices.Backward(u.dirs) {
		failures = append(failures, u.root.Chmod(header.Name, permissions(header)),
			u.root.Chtimes(header.Name, time.Time{}, header.ModTime))
	}
	return errors.Join(failures...)
}
