package main

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// pack writes a file or a directory of this machine as a tar archive in which
// it has a name. What is neither file, directory nor link is left out.
func pack(w io.Writer, source, name string, done *copied) error {
	archive := tar.NewWriter(w)
	source, err := filepath.EvalSymlinks(source) // what is named is meant, not a link to it
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	err = filepath.WalkDir(source, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		below, err := filepath.Rel(source, file)
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		return packOne(archive, file, path.Join(name, filepath.ToSlash(below)), entry, done)
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

func packOne(archive *tar.Writer, file, name string, entry fs.DirEntry, done *copied) error {
	info, err := entry.Info()
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	link := ""
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		if link, err = os.Readlink(file); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
	case !info.IsDir() && !info.Mode().IsRegular():
		return nil
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return fmt.Errorf("copy %s: %w", file, err)
	}
	header.Name, header.Uid, header.Gid, header.Uname, header.Gname = name, 0, 0, "", ""
	if info.IsDir() {
		header.Name += "/"
	}
	if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("copy: %w", err)
	}
	defer f.Close()
	n, err := io.CopyN(archive, f, info.Size())
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("copy %s: it became shorter meanwhile", file)
	}
	done.files++
	done.bytes += n
	return err
}

// unpacked is what unpack has done.
type unpacked struct {
	copied
	skipped []string // devices and the like
}

// unpack writes an archive's entries below a directory of this machine, the
// first element of their names replaced by name. Nothing in the archive leads
// out of the directory, whatever its names and links say; modes lose what gives
// rights beyond reading, writing and executing.
func unpack(r io.Reader, dir, name string) (*unpacked, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("copy: %w", err)
	}
	defer func() { _ = root.Close() }() // nothing was written through it
	done := &unpacked{}
	modes := map[string]fs.FileMode{} // of directories, once all is in them
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return done, setModes(root, modes)
		}
		if err != nil {
			return done, fmt.Errorf("read the archive: %w", err)
		}
		to, err := renamed(header.Name, name)
		if err != nil {
			return done, err
		}
		if header.Typeflag == tar.TypeDir && to != "." {
			modes[to] = header.FileInfo().Mode().Perm()
		}
		if err := unpackOne(root, header, to, name, archive, done); err != nil {
			return done, fmt.Errorf("copy %s: %w", header.Name, err)
		}
	}
}

// renamed is an entry's path below the destination.
func renamed(entry, name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(entry, "./"))
	if !filepath.IsLocal(clean) {
		return "", fmt.Errorf("the archive has an entry %q, which leads out of the directory: nothing more was copied", entry)
	}
	_, below, _ := strings.Cut(clean, "/")
	if name == "." { // all of a container's files
		below = clean
	}
	return path.Join(name, below), nil
}

func unpackOne(root *os.Root, header *tar.Header, to, name string, content io.Reader, done *unpacked) error {
	if err := root.MkdirAll(path.Dir(to), 0o777); err != nil {
		return err
	}
	switch header.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(to, 0o700)
	case tar.TypeReg:
		return unpackFile(root, header, to, content, done)
	case tar.TypeSymlink:
		_ = root.Remove(to) // it may be there from before; Symlink says if it stays
		return root.Symlink(header.Linkname, to)
	case tar.TypeLink:
		from, err := renamed(header.Linkname, name)
		if err != nil {
			return err
		}
		_ = root.Remove(to) // as above
		return root.Link(from, to)
	}
	done.skipped = append(done.skipped, header.Name)
	return nil
}

func unpackFile(root *os.Root, header *tar.Header, to string, content io.Reader, done *unpacked) error {
	mode := header.FileInfo().Mode().Perm()
	if info, err := root.Lstat(to); err == nil && !info.IsDir() && !info.Mode().IsRegular() {
		_ = root.Remove(to) // a link is replaced, not followed
	}
	f, err := root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode|0o200)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, content)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = root.Chmod(to, mode)
	}
	if err == nil {
		err = root.Chtimes(to, header.ModTime, header.ModTime)
	}
	done.files++
	done.bytes += n
	return err
}

func setModes(root *os.Root, modes map[string]fs.FileMode) error {
	for dir, mode := range modes {
		if err := root.Chmod(dir, mode|0o700); err != nil {
			return fmt.Errorf("copy: %w", err)
		}
	}
	return nil
}
