// Package ociarchive builds the small image that berth's demo and tests run: a
// static busybox, its usual names, and a program of many behaviours
// (workload.sh). The archive is the same, byte for byte, each time it is built
// from the same busybox.
package ociarchive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

//go:embed workload.sh
var workload []byte

// Busybox is where a static busybox is: where BERTH_BUSYBOX says, else where
// Debian's busybox-static puts it.
func Busybox() string {
	if path := os.Getenv("BERTH_BUSYBOX"); path != "" {
		return path
	}
	return "/bin/busybox"
}

// Options say what the image is. The zero value is the demo's image.
type Options struct {
	Name    string            // reference in the archive; empty: "demo:latest"
	Busybox string            // path of a static busybox on this host; empty: Busybox()
	User    string            // user the image asks for; "berth" (1000) exists in it; empty: root
	Env     []string          // KEY=value, besides PATH
	Files   map[string][]byte // path without leading slash → content, mode 0755
}

// Write builds the image and writes it to w as a tar of an OCI image layout.
func Write(w io.Writer, o Options) error {
	if o.Name == "" {
		o.Name = "demo:latest"
	}
	if o.Busybox == "" {
		o.Busybox = Busybox()
	}
	image, err := build(o)
	if err != nil {
		return err
	}
	return writeImage(w, o.Name, image)
}

// writeImage writes one image under a name.
func writeImage(w io.Writer, name string, image v1.Image) error {
	dir, err := os.MkdirTemp("", "ociarchive")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	named := layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": name})
	if err := path.AppendImage(image, named); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	return pack(w, os.DirFS(dir))
}

func build(o Options) (v1.Image, error) {
	content, err := rootfs(o)
	if err != nil {
		return nil, err
	}
	return assemble(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, v1.Config{
		Entrypoint: []string{"/bin/workload"},
		Cmd:        []string{"count"},
		Env:        append([]string{"PATH=/bin"}, o.Env...),
		User:       o.User,
		WorkingDir: "/tmp",
	})
}

// assemble makes an image of one layer.
func assemble(rootfs tarball.Opener, c v1.Config) (v1.Image, error) {
	layer, err := tarball.LayerFromOpener(rootfs, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(gzip.BestSpeed))
	if err != nil {
		return nil, err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if image, err = mutate.AppendLayers(image, layer); err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config = c
	return mutate.ConfigFile(image, config)
}

// WriteRootFS writes an image whose only layer is a tar of a root directory.
func WriteRootFS(w io.Writer, name, rootfs string, c v1.Config) error {
	image, err := assemble(func() (io.ReadCloser, error) { return os.Open(rootfs) }, c)
	if err != nil {
		return fmt.Errorf("read %s: %w", rootfs, err)
	}
	return writeImage(w, name, image)
}

// rootfs is the image's only layer, as a tar.
func rootfs(o Options) ([]byte, error) {
	busybox, err := os.ReadFile(o.Busybox)
	if err != nil {
		return nil, fmt.Errorf("a static busybox is needed for the image (Debian's package busybox-static): %w", err)
	}
	applets, err := exec.Command(o.Busybox, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("%s --list: %w", o.Busybox, err)
	}
	var buffer bytes.Buffer
	t := layerWriter{tar: tar.NewWriter(&buffer)}
	for _, dir := range []string{"bin", "etc", "proc", "sys", "dev", "root"} {
		t.add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	t.add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	t.file("bin/busybox", busybox)
	t.file("bin/workload", workload)
	t.file("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nberth:x:1000:1000:berth:/tmp:/bin/sh\n"))
	t.file("etc/group", []byte("root:x:0:\nberth:x:1000:\nvideo:x:44:berth\n"))
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			t.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}, nil)
		}
	}
	for name, content := range o.Files {
		t.file(name, content)
	}
	if t.err == nil {
		t.err = t.tar.Close()
	}
	return buffer.Bytes(), t.err
}

// layerWriter keeps the first error, so that a layer reads as a list.
type layerWriter struct {
	tar *tar.Writer
	err error
}

func (l *layerWriter) file(name string, content []byte) {
	l.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}, content)
}

func (l *layerWriter) add(header tar.Header, content []byte) {
	if l.err != nil {
		return
	}
	if l.err = l.tar.WriteHeader(&header); l.err == nil {
		_, l.err = l.tar.Write(content)
	}
}

// pack writes the files of a tree as a tar without times or owners.
func pack(w io.Writer, tree fs.FS) error {
	t := layerWriter{tar: tar.NewWriter(w)}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(tree, name)
		t.file(name, content)
		return err
	})
	if err == nil {
		err = t.err
	}
	if err == nil {
		err = t.tar.Close()
	}
	return err
}
