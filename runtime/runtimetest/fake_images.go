package runtimetest

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"berth/runtime"
)

func digestOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Import implements runtime.Runtime, for archives of single-platform images.
func (f *Fake) Import(ctx context.Context, archive io.Reader, name string) ([]runtime.Image, error) {
	if err := f.enter(ctx, "Import"); err != nil {
		return nil, err
	}
	files, err := readArchive(archive)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrInvalid, err)
	}
	images, err := files.images(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", runtime.ErrInvalid, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, image := range images {
		f.images[image.Reference] = image
	}
	return images, nil
}

// Images implements runtime.Runtime.
func (f *Fake) Images(ctx context.Context) ([]runtime.Image, error) {
	if err := f.enter(ctx, "Images"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]runtime.Image, 0, len(f.images))
	for _, reference := range slices.Sorted(maps.Keys(f.images)) {
		list = append(list, f.images[reference])
	}
	return list, nil
}

// RemoveImage implements runtime.Runtime.
func (f *Fake) RemoveImage(ctx context.Context, reference string) error {
	if err := f.enter(ctx, "RemoveImage"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.images[reference]; !ok {
		return fmt.Errorf("image %s: %w", reference, runtime.ErrNotFound)
	}
	for id, c := range f.containers {
		if c.Image == reference {
			return fmt.Errorf("image %s: container %s: %w", reference, id, runtime.ErrInUse)
		}
	}
	delete(f.images, reference)
	return nil
}

// archiveFiles are an archive's files by name.
type archiveFiles map[string][]byte

func readArchive(archive io.Reader) (archiveFiles, error) {
	buffered := bufio.NewReader(archive)
	var plain io.Reader = buffered
	if magic, _ := buffered.Peek(2); string(magic) == "\x1f\x8b" {
		unzipped, err := gzip.NewReader(buffered)
		if err != nil {
			return nil, err
		}
		plain = unzipped
	}
	files := archiveFiles{}
	for reader := tar.NewReader(plain); ; {
		header, err := reader.Next()
		if err == io.EOF {
			return files, nil
		}
		if err != nil {
			return nil, err
		}
		if !filepath.IsLocal(header.Name) {
			return nil, fmt.Errorf("name %q leads out of the archive", header.Name)
		}
		name := path.Clean(header.Name)
		switch {
		case header.Typeflag == tar.TypeDir:
			continue
		case header.Typeflag != tar.TypeReg, !slices.Contains(layoutFiles, name) && path.Dir(name) != "blobs/sha256":
			return nil, fmt.Errorf("%q isn't a file of an image layout", name)
		case path.Dir(name) == "." && header.Size > maxDocument:
			return nil, fmt.Errorf("%s has %d bytes, more than any image needs", name, header.Size)
		}
		if files[name], err = io.ReadAll(reader); err != nil {
			return nil, err
		}
	}
}

// layoutFiles are in the top directory of a layout, the last two by docker save.
var layoutFiles = []string{"oci-layout", "index.json", "manifest.json", "repositories"}

// maxDocument is in bytes.
const maxDocument = 1 << 20

type descriptor struct {
	Digest      string            `json:"digest"`
	Annotations map[string]string `json:"annotations"`
}

func (files archiveFiles) images(name string) ([]runtime.Image, error) {
	if files["oci-layout"] == nil {
		return nil, errors.New("not an OCI image layout: no file oci-layout")
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	if len(index.Manifests) == 0 || (name != "" && len(index.Manifests) > 1) {
		return nil, fmt.Errorf("%d images in the archive", len(index.Manifests))
	}
	var images []runtime.Image
	for _, manifest := range index.Manifests {
		reference := name
		if reference == "" {
			reference = manifest.Annotations["org.opencontainers.image.ref.name"]
		}
		if reference == "" {
			return nil, errors.New("an image of the archive has no name")
		}
		if slices.ContainsFunc(images, func(i runtime.Image) bool { return i.Reference == reference }) {
			return nil, fmt.Errorf("two images of the archive have the name %s", reference)
		}
		size, err := files.size(manifest.Digest)
		if err != nil {
			return nil, err
		}
		images = append(images, runtime.Image{Reference: reference, Digest: manifest.Digest, Size: size})
	}
	return images, nil
}

// size is that of a manifest and all it names.
func (files archiveFiles) size(digest string) (int64, error) {
	blob, err := files.blob(digest)
	if err != nil {
		return 0, err
	}
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(blob, &manifest); err != nil {
		return 0, fmt.Errorf("manifest %s: %w", digest, err)
	}
	size := int64(len(blob))
	for _, part := range append(manifest.Layers, manifest.Config) {
		blob, err := files.blob(part.Digest)
		if err != nil {
			return 0, err
		}
		size += int64(len(blob))
	}
	return size, nil
}

func (files archiveFiles) blob(digest string) ([]byte, error) {
	algorithm, hash, _ := strings.Cut(digest, ":")
	blob := files[path.Join("blobs", algorithm, hash)]
	if blob == nil || digestOf(blob) != digest {
		return nil, fmt.Errorf("blob %s is absent or damaged", digest)
	}
	return blob, nil
}
