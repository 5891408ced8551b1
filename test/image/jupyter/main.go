// Command jupyter writes an image with Jupyter, made of Debian's packages, as an
// OCI archive. What is made once is kept for the next time.
package main

import (
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"berth/test/image/ociarchive"
)

var debootstrap = []string{
	"mmdebstrap", "--quiet", "--variant=minbase", "--mode=root",
	"--include=jupyter-notebook,python3-ipykernel",
	"--aptopt=Acquire::Languages \"none\"",
	"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
	"--customize-hook=chroot \"$1\" useradd --create-home --uid 1000 --shell /bin/bash jovyan",
	"--customize-hook=rm -rf \"$1\"/var/cache/apt \"$1\"/var/lib/apt/lists",
	"bookworm",
}

var config = v1.Config{
	Cmd:        []string{"jupyter", "notebook"},
	Env:        []string{"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"},
	User:       "jovyan",
	WorkingDir: "/home/jovyan",
}

func main() {
	output := flag.String("o", "build/jupyter.tar", "file to write")
	name := flag.String("name", "jupyter:latest", "reference of the image")
	flag.Parse()
	if err := write(*output, *name); err != nil {
		fmt.Fprintln(os.Stderr, "jupyter:", err)
		os.Exit(1)
	}
}

func write(output, name string) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(fmt.Append(nil, strings.Join(debootstrap, "\n"), config, name))
	kept := filepath.Join(cache, "berth", fmt.Sprintf("jupyter-%x.tar", sum[:6]))
	if _, err := os.Stat(kept); err != nil {
		if err := build(kept, name); err != nil {
			return err
		}
	}
	return place(kept, output)
}

// build makes the archive from nothing.
func build(archive, name string) error {
	if err := os.MkdirAll(filepath.Dir(archive), 0o755); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "jupyter")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	rootfs := filepath.Join(dir, "rootfs.tar")
	if out, err := exec.Command(debootstrap[0], append(debootstrap[1:], rootfs)...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", debootstrap[0], err, out)
	}
	file, err := os.Create(archive + ".new")
	if err != nil {
		return err
	}
	err = ociarchive.WriteRootFS(file, name, rootfs, config)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(archive+".new", archive)
}

// place links the archive, or copies it to another file system.
func place(archive, output string) error {
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	if err := os.Remove(output); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if os.Link(archive, output) == nil {
		return nil
	}
	from, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(output)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	return errors.Join(err, to.Close())
}
