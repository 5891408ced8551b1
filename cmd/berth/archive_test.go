package main

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var when = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// entry of an archive.
type entry struct {
	name, content string
	kind          byte
	link          string
	mode          int64
}

func tarOf(t *testing.T, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.mode == 0 {
			e.mode = 0o644
		}
		err := w.WriteHeader(&tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Size: int64(len(e.content)), ModTime: when})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	done, err := unpack(tarOf(t,
		entry{name: "results/", kind: tar.TypeDir, mode: 0o750},
		entry{name: "results/run", kind: tar.TypeReg, content: "#!", mode: 0o4755}, // setuid
		entry{name: "results/deep/er/b", kind: tar.TypeReg, content: "b", mode: 0o400},
		entry{name: "results/link", kind: tar.TypeSymlink, link: "run"},
		entry{name: "results/hard", kind: tar.TypeLink, link: "results/run"},
		entry{name: "results/pipe", kind: tar.TypeFifo},
		entry{name: "results/disk", kind: tar.TypeBlock},
	), dir, "today")
	if err != nil {
		t.Fatal(err)
	}
	if done.files != 2 || done.bytes != 3 || !slices.Equal(done.skipped, []string{"results/pipe", "results/disk"}) {
		t.Errorf("done %+v", done)
	}
	for name, mode := range map[string]os.FileMode{"today": 0o750, "today/run": 0o755, "today/deep/er/b": 0o400} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode()&(os.ModePerm|os.ModeSetuid) != mode || !info.IsDir() && !info.ModTime().Equal(when) {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if link, err := os.Readlink(filepath.Join(dir, "today/link")); link != "run" || err != nil {
		t.Errorf("link %q, %v", link, err)
	}
	run, _ := os.Stat(filepath.Join(dir, "today/run"))
	hard, err := os.Stat(filepath.Join(dir, "today/hard"))
	if err != nil || !os.SameFile(run, hard) {
		t.Errorf("hard link: %v", err)
	}
	// Again, over what is there.
	if _, err := unpack(tarOf(t, entry{name: "results/link", kind: tar.TypeReg, content: "now a file"}), dir, "today"); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "today/run")); string(text) != "#!" {
		t.Errorf("a link was followed: %q", text)
	}
}

// Nothing of an archive gets out of the directory.
func TestUnpackStaysInside(t *testing.T) {
	for name, entries := range map[string][]entry{
		"a parent":               {{name: "x/../../evil", kind: tar.TypeReg, content: "evil"}},
		"an absolute path":       {{name: "/evil", kind: tar.TypeReg, content: "evil"}},
		"a link, then a file":    {{name: "x", kind: tar.TypeSymlink, link: ".."}, {name: "x/evil", kind: tar.TypeReg, content: "evil"}},
		"an absolute link":       {{name: "x", kind: tar.TypeDir}, {name: "x/out", kind: tar.TypeSymlink, link: "OUTSIDE"}, {name: "x/out/evil", kind: tar.TypeReg, content: "evil"}},
		"a link in a link":       {{name: "x/a", kind: tar.TypeSymlink, link: "../.."}, {name: "x/b", kind: tar.TypeSymlink, link: "a"}, {name: "x/b/evil", kind: tar.TypeReg, content: "evil"}},
		"a hard link":            {{name: "x/h", kind: tar.TypeLink, link: "../outside/secret"}},
		"a hard link to a link":  {{name: "x/a", kind: tar.TypeSymlink, link: "../outside"}, {name: "x/h", kind: tar.TypeLink, link: "x/a/secret"}},
		"a directory over there": {{name: "x", kind: tar.TypeSymlink, link: "../outside"}, {name: "x/evil", kind: tar.TypeDir}},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			inside, outside := filepath.Join(top, "inside"), filepath.Join(top, "outside")
			for _, dir := range []string{inside, outside} {
				if err := os.Mkdir(dir, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600); err != nil {
				t.Fatal(err)
			}
			for i := range entries {
				entries[i].link = strings.ReplaceAll(entries[i].link, "OUTSIDE", outside)
			}
			if _, err := unpack(tarOf(t, entries...), inside, "x"); err == nil {
				t.Error("it was taken")
			}
			for _, evil := range []string{filepath.Join(top, "evil"), filepath.Join(outside, "evil"), "/evil"} {
				if _, err := os.Lstat(evil); err == nil {
					t.Errorf("%s was written", evil)
				}
			}
			if info, err := os.Stat(filepath.Join(outside, "secret")); err != nil || info.Sys().(*syscall.Stat_t).Nlink != 1 {
				t.Errorf("the file outside: %v, %v", info, err)
			}
		})
	}
}

func TestBrokenArchive(t *testing.T) {
	whole := tarOf(t, entry{name: "x", kind: tar.TypeReg, content: strings.Repeat("x", 2000)})
	if _, err := unpack(bytes.NewReader(whole.Bytes()[:1000]), t.TempDir(), "x"); err == nil {
		t.Error("half an archive was taken")
	}
	if _, err := unpack(strings.NewReader(strings.Repeat("no archive ", 100)), t.TempDir(), "x"); err == nil {
		t.Error("what is no archive was taken")
	}
}

// What is packed comes back, under the name that was asked for.
func TestPack(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(from, "a/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "a/b/c"), []byte("c"), 0o741); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b/c", filepath.Join(from, "a/link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(from, "a/pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a", filepath.Join(from, "named")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var done copied
	if err := pack(&b, filepath.Join(from, "named"), "new", &done); err != nil {
		t.Fatal(err)
	}
	if done != (copied{files: 1, bytes: 1}) {
		t.Errorf("done %+v", done)
	}
	var names []string
	for r := tar.NewReader(bytes.NewReader(b.Bytes())); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names = append(names, h.Name)
		if h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s belongs to %d %q", h.Name, h.Uid, h.Uname)
		}
	}
	if !slices.Equal(names, []string{"new/", "new/b/", "new/b/c", "new/link"}) {
		t.Errorf("names %v", names)
	}
	if _, err := unpack(&b, to, "back"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(to, "back/link")); err != nil || string(text) != "c" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(to, "back/b/c")); err != nil || info.Mode().Perm() != 0o741 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string]place{
		"nb:/a": {"nb", "/a"}, "nb:": {"nb", ""}, "nb:a:b": {"nb", "a:b"},
		"./nb:/a": {path: "./nb:/a"}, "/x:/a": {path: "/x:/a"}, "a": {path: "a"}, "-": {path: "-"}, ":/a": {path: ":/a"}, "C:/a": {"C", "/a"},
	} {
		if got := parsePlace(text); got != want {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
}
