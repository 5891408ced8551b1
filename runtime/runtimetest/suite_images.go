package runtimetest

import (
	"archive/tar"
	"bytes"
	"slices"
	"strings"
	"testing"

	"berth/runtime"
)

// images runs the tests of images, which start and end with none.
func (s *suite) images(t *testing.T) {
	t.Run("import", func(t *testing.T) {
		image := s.mustImport(t, "good:1")
		if !strings.HasPrefix(image.Digest, "sha256:") || image.Size <= 0 || image.Reference != "good:1" {
			t.Errorf("imported %+v", image)
		}
		if again := s.mustImport(t, "good:1"); again != image {
			t.Errorf("imported again: %+v, was %+v", again, image)
		}
		s.wantImages(t, image)
		named, err := s.Runtime.Import(t.Context(), bytes.NewReader(zipped(t, s.Archive(t, "good:1"))), "another:2")
		if err != nil || len(named) != 1 || named[0].Reference != "another:2" || named[0].Digest != image.Digest {
			t.Fatalf("a compressed archive under another name: %+v, %v", named, err)
		}
		s.wantImages(t, named[0], image)
		for _, reference := range []string{"good:1", "another:2"} {
			if err := s.Runtime.RemoveImage(t.Context(), reference); err != nil {
				t.Errorf("RemoveImage: %v", err)
			}
		}
		wantError(t, "second RemoveImage", s.Runtime.RemoveImage(t.Context(), "good:1"), runtime.ErrNotFound)
		s.wantImages(t)
	})
	good := s.Archive(t, "good:1")
	t.Run("import of what docker save writes", func(t *testing.T) {
		saved := extended(t, extended(t, good, "manifest.json", []byte("[]")), "repositories", []byte("{}"))
		if _, err := s.Runtime.Import(t.Context(), bytes.NewReader(saved), ""); err != nil {
			t.Fatalf("Import: %v", err)
		}
		if err := s.Runtime.RemoveImage(t.Context(), "good:1"); err != nil {
			t.Errorf("RemoveImage: %v", err)
		}
	})
	for name, archive := range map[string][]byte{
		"not a tar":       []byte("this is no archive"),
		"empty":           {},
		"not OCI":         rewrite(t, good, func(h *tar.Header) bool { return h.Name != "oci-layout" }),
		"without index":   rewrite(t, good, func(h *tar.Header) bool { return h.Name != "index.json" }),
		"without blobs":   rewrite(t, good, func(h *tar.Header) bool { return !strings.HasPrefix(h.Name, "blobs/") }),
		"without a layer": rewrite(t, good, func(h *tar.Header) bool { return h.Size < 4096 }),
		"truncated":       good[:len(good)/2],
		"leads out":       extended(t, good, "../evil", []byte("x")),
		"another file":    extended(t, good, "etc/passwd", []byte("x")),
		"a link":          linked(t, good),
		"a name twice":    replaced(t, good, "index.json", func(index []byte) []byte { return withoutUniqueNames(t, index) }),
		"a large index":   replaced(t, good, "index.json", func(index []byte) []byte { return append(index, bytes.Repeat([]byte(" "), 2<<20)...) }),
		"damaged blobs":   replaced(t, good, "blobs/", func(blob []byte) []byte { return append([]byte("?"), blob[1:]...) }),
		"Docker's kind":   dockerArchive(t, good),
		"damaged gzip":    zipped(t, good)[:len(good)/3],
	} {
		t.Run("import of an archive: "+name, func(t *testing.T) {
			_, err := s.Runtime.Import(t.Context(), bytes.NewReader(archive), "")
			wantError(t, "Import", err, runtime.ErrInvalid)
			s.wantImages(t)
		})
	}
}

func (s *suite) wantImages(t *testing.T, want ...runtime.Image) {
	t.Helper()
	got, err := s.Runtime.Images(t.Context())
	if err != nil {
		t.Fatalf("Images: %v", err)
	}
	slices.SortFunc(got, func(a, b runtime.Image) int { return strings.Compare(a.Reference, b.Reference) })
	if !slices.Equal(got, want) {
		t.Errorf("Images gives %+v, want %+v", got, want)
	}
}

func (s *suite) removeInUse(t *testing.T) {
	spec := s.spec(t, "count")
	s.mustCreate(t, spec)
	wantError(t, "RemoveImage", s.Runtime.RemoveImage(t.Context(), suiteImage), runtime.ErrInUse)
}
