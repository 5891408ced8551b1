package runtimetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"strings"
	"testing"
)

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

// linked is a tar that has a link besides.
func linked(t *testing.T, archive []byte) []byte {
	t.Helper()
	var changed bytes.Buffer
	out := tar.NewWriter(&changed)
	if err := out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "blobs/link", Linkname: "sha256"}); err != nil {
		t.Fatal(err)
	}
	return append(changed.Bytes(), archive...)
}

// replaced is a tar with another content of the files whose names begin so.
func replaced(t *testing.T, archive []byte, prefix string, change func([]byte) []byte) []byte {
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
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(header.Name, prefix) {
			content = change(content)
			header.Size = int64(len(content))
		}
		if err := out.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return changed.Bytes()
}

// withoutUniqueNames is an index that has each of its images twice.
func withoutUniqueNames(t *testing.T, index []byte) []byte {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal(index, &fields); err != nil {
		t.Fatal(err)
	}
	manifests := fields["manifests"].([]any)
	fields["manifests"] = append(manifests, manifests...)
	content, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return content
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
