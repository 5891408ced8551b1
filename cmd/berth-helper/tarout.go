package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// runTarOut writes a file or directory as a tar. What can't be read is left out
// and told, and the exit code says so; what can't be written ends it.
func runTarOut(path string, w io.Writer) int {
	path = filepath.Clean(path)
	packer := &packer{tar: tar.NewWriter(w), top: path, base: filepath.Base(path)}
	if packer.base == string(filepath.Separator) {
		packer.base = "."
	}
	err := filepath.WalkDir(path, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return packer.missed(name, err)
		}
		return packer.add(name)
	})
	if err == nil {
		err = packer.tar.Close()
	}
	if err != nil {
		complain(fmt.Errorf("write the archive of %s: %w", path, err))
		return 1
	}
	if packer.incomplete {
		return 1
	}
	return 0
}

func complain(err error) { fmt.Fprintln(os.Stderr, "berth-helper:", err) }

type packer struct {
	tar        *tar.Writer
	top, base  string
	incomplete bool
}

// missed tells that something isn't in the archive, which goes on.
func (p *packer) missed(name string, err error) error {
	complain(fmt.Errorf("%s is left out: %w", name, err))
	p.incomplete = true
	return nil
}

// add writes one entry. Only a broken archive is an error.
func (p *packer) add(name string) error {
	info, err := os.Lstat(name)
	if err != nil {
		return p.missed(name, err)
	}
	switch info.Mode().Type() {
	case 0:
		return p.addFile(name)
	case fs.ModeDir:
		return p.header(name, info, "")
	case fs.ModeSymlink:
		target, err := os.Readlink(name)
		if err != nil {
			return p.missed(name, err)
		}
		return p.header(name, info, target)
	default: // devices, sockets and pipes can't be content of a copy
		return nil
	}
}

// addFile opens before it looks: the name may have become something else.
func (p *packer) addFile(name string) error {
	file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return p.missed(name, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return p.missed(name, fmt.Errorf("it isn't a file any more (%w)", err))
	}
	if err := p.header(name, info, ""); err != nil {
		return err
	}
	// A file that grows meanwhile is cut; one that shrinks can't be mended.
	if _, err := io.CopyN(p.tar, file, info.Size()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func (p *packer) header(name string, info fs.FileInfo, target string) error {
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	below, err := filepath.Rel(p.top, name)
	if err != nil {
		return err
	}
	header.Name = filepath.Join(p.base, below)
	if info.IsDir() {
		header.Name += "/"
	}
	return p.tar.WriteHeader(header)
}
