package containerd

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/test/image/ociarchive"
)

// imageArchive is a layout with one image, of a configuration, a manifest with
// more text in it, and one layer.
func imageArchive(t *testing.T, config, more string, layer []byte, diffID digest.Digest) io.Reader {
	t.Helper()
	if config == "" {
		config = fmt.Sprintf(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[%q]}}`, diffID)
	}
	describe := func(kind string, blob []byte) string {
		return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, kind, digest.FromBytes(blob), len(blob))
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]%s}`, ocispec.MediaTypeImageManifest,
		describe(ocispec.MediaTypeImageConfig, []byte(config)), describe(ocispec.MediaTypeImageLayerGzip, layer), more)
	content := map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, describe(ocispec.MediaTypeImageManifest, []byte(manifest))),
	}
	for _, blob := range []string{config, manifest, string(layer)} {
		content["blobs/sha256/"+digest.FromString(blob).Encoded()] = blob
	}
	var headers []tar.Header
	for name := range content {
		headers = append(headers, tar.Header{Name: name, Mode: 0o644})
	}
	return bytes.NewReader(entries(t, headers, content))
}

// zeros is a compressed layer that unpacks to a file of so many bytes. It is made
// of parts, which are compressed once.
func zeros(t *testing.T, size int64) (layer []byte, diffID digest.Digest) {
	t.Helper()
	var begin bytes.Buffer
	if err := tar.NewWriter(&begin).WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	part := make([]byte, mib)
	zippedPart := zipped(t, part)
	sum := digest.SHA256.Digester()
	sum.Hash().Write(begin.Bytes())
	layer = zipped(t, begin.Bytes())
	for range size/mib + 1 { // the last is the end mark
		sum.Hash().Write(part)
		layer = append(layer, zippedPart...)
	}
	return layer, sum.Digest()
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	zip := gzip.NewWriter(&buffer)
	if _, err := zip.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := zip.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// refused wants an import to fail for a reason, and to leave nothing.
func refused(t *testing.T, r *Runtime, archive io.Reader, class error, words string) {
	t.Helper()
	_, err := r.Import(t.Context(), archive, demo)
	if !errors.Is(err, class) || !strings.Contains(err.Error(), words) {
		t.Errorf("Import: %v, want %q and %q", err, class, words)
	}
	if left := shared.settled(t, r); len(left) > 0 {
		t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
	}
	if list, err := r.Images(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("images are %v, %v; want none", list, err)
	}
	ingests, err := r.client.ContentStore().ListStatuses(t.Context())
	if err != nil || len(ingests) > 0 {
		t.Errorf("half-written blobs: %v, %v", ingests, err)
	}
}

// TestImportBoundsDocuments: manifests and configurations are blobs among others,
// so they are looked at before they are decoded.
func TestImportBoundsDocuments(t *testing.T) {
	r := shared.open(t)
	layer, diffID := zeros(t, mib)
	long := strings.Repeat(" ", maxDocument)
	elements := strings.Repeat("{},", maxElements+1) + "{}"
	for name, archive := range map[string]io.Reader{
		"large manifest":                 imageArchive(t, "", long, layer, diffID),
		"manifest of many elements":      imageArchive(t, "", `,"more":[`+elements+`]`, layer, diffID),
		"large configuration":            imageArchive(t, `{"os":"linux"}`+long, "", layer, diffID),
		"configuration of many elements": imageArchive(t, `{"history":[`+elements+`]}`, "", layer, diffID),
	} {
		t.Run(name, func(t *testing.T) { refused(t, r, archive, runtime.ErrInvalid, "any image needs") })
	}
}

// TestImportBoundsDisk: a small archive whose layer unpacks to a lot.
func TestImportBoundsDisk(t *testing.T) {
	r := shared.open(t)
	layer, diffID := zeros(t, 512*mib)
	t.Run("more than one may take", func(t *testing.T) {
		r.cfg.MaxImport = 64 * mib
		refused(t, r, imageArchive(t, "", "", layer, diffID), runtime.ErrInvalid, "its layers take more than")
		r.cfg.MaxImport = defaultMaxImport
	})
	t.Run("more than there is", func(t *testing.T) {
		var calls atomic.Int32
		r.statfs = func(path string, stat *unix.Statfs_t) error {
			err := unix.Statfs(path, stat)
			if calls.Add(1) > 20 { // well after the blobs, of which there are three
				stat.Bavail = 1
			}
			return err
		}
		refused(t, r, imageArchive(t, "", "", layer, diffID), runtime.ErrNoSpace, "remove images")
	})
}

func TestImportOneAtATime(t *testing.T) {
	r := shared.open(t)
	slow, feed := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := r.Import(context.Background(), slow, demo)
		first <- err
	}()
	archive := demoArchive(t, ociarchive.Options{})
	if _, err := feed.Write(archive[:512]); err != nil { // it is being read
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Import(cancelled, bytes.NewReader(archive), "second:1"); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "another import") {
		t.Errorf("a second import: %v, want it to wait until its caller gave up", err)
	}
	if _, err := feed.Write(archive[512:]); err != nil {
		t.Error(err)
	}
	feed.Close()
	if err := <-first; err != nil {
		t.Errorf("the first import: %v", err)
	}
	if err := r.RemoveImage(t.Context(), demo); err != nil {
		t.Error(err)
	}
}
