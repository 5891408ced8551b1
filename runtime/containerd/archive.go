package containerd

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/runtime"
)

// Bounds on an archive, far above what images have. Documents are its index,
// manifests and configurations. Their elements are bounded as well as their
// bytes, because "{}," takes a hundred times as much once it is decoded.
const (
	maxEntries  = 10_000
	maxDocument = 1 * mib
	maxElements = 16_384
	maxPadding  = 1 * mib // after the end mark
)

// blobName: other digests than sha256 aren't in use.
var blobName = regexp.MustCompile(`^blobs/sha256/([0-9a-f]{64})$`)

// layout reads an OCI image layout. It keeps nothing but the index.
type layout struct {
	room  *room
	store func(digest.Digest, int64, io.Reader) error // keeps a blob
	files *tar.Reader
	seen  map[string][]byte // "oci-layout" and "index.json"
}

// read goes through the archive to its end, and gives its index.
func (l *layout) read(stream io.Reader) (*ocispec.Index, error) {
	plain, err := decompress(stream)
	if err != nil {
		return nil, err
	}
	l.files, l.seen = tar.NewReader(plain), map[string][]byte{}
	for entries := 0; ; entries++ {
		header, err := l.files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: the archive isn't a whole tar file: %w", runtime.ErrInvalid, err)
		}
		if entries == maxEntries {
			return nil, fmt.Errorf("%w: the archive has more than %d entries", runtime.ErrInvalid, maxEntries)
		}
		if err := l.room.take(header.Size); err != nil {
			return nil, err
		}
		if err := l.entry(header); err != nil {
			return nil, err
		}
	}
	// A compressed stream has its checksum behind the padding.
	padding, err := io.CopyN(io.Discard, plain, maxPadding)
	if err == nil {
		return nil, fmt.Errorf("%w: the archive goes on for more than %d bytes after its end mark", runtime.ErrInvalid, padding)
	}
	if err != io.EOF {
		return nil, fmt.Errorf("%w: the archive isn't whole: %w", runtime.ErrInvalid, err)
	}
	return l.index()
}

// decompress takes gzip or nothing.
func decompress(stream io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(stream)
	if magic, _ := buffered.Peek(2); string(magic) != "\x1f\x8b" {
		return buffered, nil
	}
	plain, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("%w: the archive looks compressed, but: %w", runtime.ErrInvalid, err)
	}
	return plain, nil
}

// entry takes one entry, and refuses what an image layout never has.
func (l *layout) entry(header *tar.Header) error {
	name := path.Clean(header.Name)
	switch {
	case !filepath.IsLocal(header.Name):
		return fmt.Errorf("%w: the archive holds the name %.100q, which leads out of it", runtime.ErrInvalid, header.Name)
	case header.Typeflag == tar.TypeDir:
		return nil
	case header.Typeflag != tar.TypeReg:
		return fmt.Errorf("%w: %.100q in the archive is neither a file nor a directory; an OCI image layout has no links or devices",
			runtime.ErrInvalid, header.Name)
	}
	if blob := blobName.FindStringSubmatch(name); blob != nil {
		return l.store(digest.NewDigestFromEncoded(digest.SHA256, blob[1]), header.Size, l.files)
	}
	switch name {
	case ocispec.ImageLayoutFile, ocispec.ImageIndexFile:
		return l.document(name, header.Size)
	case "manifest.json", "repositories": // of "docker save", for docker itself
		if header.Size <= maxDocument {
			return nil
		}
		return tooLarge(name, header.Size)
	}
	return fmt.Errorf("%w: the archive holds %.100q; an OCI image layout has %s, %s and files in blobs/sha256 only",
		runtime.ErrInvalid, header.Name, ocispec.ImageLayoutFile, ocispec.ImageIndexFile)
}

func (l *layout) document(name string, size int64) error {
	if l.seen[name] != nil {
		return fmt.Errorf("%w: the archive holds %s twice", runtime.ErrInvalid, name)
	}
	if size > maxDocument {
		return tooLarge(name, size)
	}
	content, err := io.ReadAll(l.files)
	if err != nil {
		return fmt.Errorf("%w: the archive isn't a whole tar file: %w", runtime.ErrInvalid, err)
	}
	l.seen[name] = content
	return checkElements(name, content)
}

func (l *layout) index() (*ocispec.Index, error) {
	var version ocispec.ImageLayout
	if l.seen[ocispec.ImageLayoutFile] == nil {
		return nil, fmt.Errorf("%w: the archive has no file %q, so it isn't an OCI image layout; make one with \"skopeo copy … oci-archive:FILE:NAME\" or \"docker buildx build -o type=oci\"",
			runtime.ErrInvalid, ocispec.ImageLayoutFile)
	}
	if err := json.Unmarshal(l.seen[ocispec.ImageLayoutFile], &version); err != nil {
		return nil, fmt.Errorf("%w: the archive's %s: %w", runtime.ErrInvalid, ocispec.ImageLayoutFile, err)
	}
	if version.Version != ocispec.ImageLayoutVersion {
		return nil, fmt.Errorf("%w: the archive is an OCI image layout of version %.100q, not %s",
			runtime.ErrInvalid, version.Version, ocispec.ImageLayoutVersion)
	}
	var index ocispec.Index
	if err := json.Unmarshal(l.seen[ocispec.ImageIndexFile], &index); err != nil {
		return nil, fmt.Errorf("%w: the archive's %s: %w", runtime.ErrInvalid, ocispec.ImageIndexFile, err)
	}
	return &index, nil
}

func tooLarge(name string, size int64) error {
	return fmt.Errorf("%w: %s has %d bytes, more than the %d that any image needs", runtime.ErrInvalid, name, size, maxDocument)
}

// checkElements comes before a document is decoded. Each element beside another
// costs a comma.
func checkElements(name string, document []byte) error {
	if elements := bytes.Count(document, []byte(",")); elements > maxElements {
		return fmt.Errorf("%w: %s has %d elements, more than the %d that any image needs", runtime.ErrInvalid, name, elements, maxElements)
	}
	return nil
}
