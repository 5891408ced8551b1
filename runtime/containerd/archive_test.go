package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

// entries writes a tar of empty entries, but for those of a content.
func entries(t *testing.T, headers []tar.Header, content map[string]string) []byte {
	t.Helper()
	var buffer bytes.Buffer
	out := tar.NewWriter(&buffer)
	for _, header := range headers {
		header.Size = int64(len(content[header.Name]))
		if err := out.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(out, content[header.Name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// TestArchiveBounds: what has no place in a layout is refused before it is kept
// or decoded.
func TestArchiveBounds(t *testing.T) {
	const zeros = "blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000"
	files := func(names ...string) (headers []tar.Header) {
		for _, name := range append([]string{"oci-layout", "index.json"}, names...) {
			headers = append(headers, tar.Header{Name: name, Mode: 0o644})
		}
		return headers
	}
	many := make([]string, maxEntries)
	for i := range many {
		many[i] = zeros
	}
	version, index := `{"imageLayoutVersion":"1.0.0"}`, `{"manifests":[]}`
	for _, test := range []struct {
		name    string
		headers []tar.Header
		index   string
		other   string // content of the last file
		after   int    // bytes behind the end
		want    string // in the error; empty: none
		stored  int    // blobs
	}{
		{name: "good", headers: append(files(zeros), tar.Header{Typeflag: tar.TypeDir, Name: "./blobs/"}), index: index, stored: 1},
		{name: "padded", headers: files(zeros), index: index, after: 64 << 10, stored: 1},
		{name: "goes on", headers: files(zeros), index: index, after: 2 * mib, want: "after its end mark", stored: 1},
		{name: "many entries", headers: files(many...), index: index, want: "entries", stored: maxEntries - 2},
		{name: "link", headers: append(files(), tar.Header{Typeflag: tar.TypeLink, Name: zeros, Linkname: "x"}), index: index, want: "neither a file nor a directory"},
		{name: "other file", headers: files("blobs/sha256/0"), index: index, want: "in blobs/sha256 only"},
		{name: "long name", headers: files(strings.Repeat("n", 4000)), index: index, want: "in blobs/sha256 only"},
		{name: "large index", headers: files(), index: index + strings.Repeat(" ", maxDocument), want: "any image needs"},
		{name: "index of many elements", headers: files(), index: `{"manifests":[` + strings.Repeat("{},", maxElements+1) + `{}]}`, want: "elements"},
		{name: "large manifest.json", headers: files("manifest.json"), index: index, other: strings.Repeat(" ", maxDocument+1), want: "any image needs"},
		{name: "two indexes", headers: files("./index.json"), index: index, want: "twice"},
		{name: "more than may be", headers: files(zeros), index: index, other: strings.Repeat(" ", 4*mib), want: "one import may take"},
	} {
		t.Run(test.name, func(t *testing.T) {
			content := map[string]string{"oci-layout": version, "index.json": test.index}
			if last := test.headers[len(test.headers)-1].Name; test.other != "" {
				content[last] = test.other
			}
			archive := append(entries(t, test.headers, content), make([]byte, test.after)...)
			stored := 0
			l := layout{room: &room{max: 3 * mib, left: 3 * mib}, store: func(digest.Digest, int64, io.Reader) error {
				stored++
				return nil
			}}
			_, err := l.read(bytes.NewReader(archive))
			if test.want == "" && err != nil || test.want != "" && (!errors.Is(err, runtime.ErrInvalid) || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("read gives %v, want an error with %q", err, test.want)
			}
			if err != nil && len(err.Error()) > 400 {
				t.Errorf("the error has %d characters", len(err.Error()))
			}
			if stored != test.stored {
				t.Errorf("%d blobs were stored, want %d", stored, test.stored)
			}
		})
	}
}

// TestRoom: the last of a disk is never taken, a small disk's is a twentieth.
func TestRoom(t *testing.T) {
	available := uint64(100)
	m := &room{max: 60 * mib, left: 60 * mib, statfs: func(_ string, stat *unix.Statfs_t) error {
		*stat = unix.Statfs_t{Bsize: mib, Blocks: 200, Bavail: available}
		return nil
	}, disks: []disk{{path: "/d", atStart: 100 * mib, reserve: 10 * mib}}}
	for _, step := range []struct {
		free uint64
		take int64
		want error
	}{
		{100, 20 * mib, nil}, {80, 20 * mib, nil}, {80, 21 * mib, runtime.ErrInvalid},
		{29, 20 * mib, runtime.ErrNoSpace}, {41, 0, nil}, {39, 0, runtime.ErrInvalid}, {9, 0, runtime.ErrNoSpace},
	} {
		available = step.free
		if err := m.take(step.take); !errors.Is(err, step.want) {
			t.Errorf("with %d MiB free, %d bytes more: %v, want %v", step.free, step.take, err, step.want)
		}
	}
	available, m.taken = 39, func() int64 { return 60 * mib }
	if err := m.check(0); err != nil {
		t.Errorf("others have used the disk: %v", err)
	}
	m.taken = func() int64 { return 60*mib + 1 }
	if err := m.check(0); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("one byte more than may be: %v", err)
	}
	available = 9
	ctx, stop := m.watch(t.Context())
	defer stop()
	<-ctx.Done() // 9 MiB are free
	if err := context.Cause(ctx); !errors.Is(err, runtime.ErrNoSpace) {
		t.Errorf("the watch ended for %v", err)
	}
}
