package runtimetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
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
	for name, archive := range map[string][]byte{
		"not a tar":       []byte("this is no archive"),
		"empty":           {},
		"not OCI":         rewrite(t, good, func(h *tar.Header) bool { return h.Name != "oci-layout" }),
		"without index":   rewrite(t, good, func(h *tar.Header) bool { return h.Name != "index.json" }),
		"without blobs":   rewrite(t, good, func(h *tar.Header) bool { return !strings.HasPrefix(h.Name, "blobs/") }),
		"without a layer": rewrite(t, good, func(h *tar.Header) bool { return h.Size < 4096 }),
		"truncated":       good[:len(good)/2],
		"leads out":       extended(t, good, "../evil", []byte("x")),
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

// rewrite copies a tar without the entries that keep refuses; keep may change
// the others.
func rewrite(t *testing.T, archive []byte, keep func(*tar.Header) bool) []byte {
	t.Helper()
	var changed bytes.Buffer
	out := tar.NewWriter(&changed)
	for in := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !keep(header) {
			continue
		}
		if err := out.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(out, in); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return changed.Bytes()
}

// extended is a tar with one more file.
func extended(t *testing.T, archive []byte, name string, content []byte) []byte {
	t.Helper()
	var changed bytes.Buffer
	out := tar.NewWriter(&changed)
	if err := out.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := out.Flush(); err != nil { // no end mark: the rest follows
		t.Fatal(err)
	}
	return append(changed.Bytes(), archive...)
}

// dockerArchive is the same image as "docker save" of old writes it.
func dockerArchive(t *testing.T, archive []byte) []byte {
	t.Helper()
	files, err := readArchive(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	file := func(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(files[file(index.Manifests[0])], &manifest); err != nil {
		t.Fatal(err)
	}
	content, err := json.Marshal([]map[string]any{{
		"Config": file(manifest.Config), "Layers": []string{file(manifest.Layers[0])}, "RepoTags": []string{"good:1"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	plain := rewrite(t, archive, func(h *tar.Header) bool { return h.Name != "oci-layout" && h.Name != "index.json" })
	return extended(t, plain, "manifest.json", content)
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := gzip.NewWriter(&buffer)
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}
