package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// packed is what "tar-out" writes.
func packed(t *testing.T, path string) (archive []byte, stderr string, code int) {
	t.Helper()
	cmd := helper(t, "tar-out", path)
	var out, diagnostics bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	_ = cmd.Run()
	return out.Bytes(), diagnostics.String(), cmd.ProcessState.ExitCode()
}

// unpacked runs "tar-in".
func unpacked(t *testing.T, dir string, archive []byte) (stderr string, code int) {
	t.Helper()
	cmd := helper(t, "tar-in", dir)
	var diagnostics bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(archive), &diagnostics
	_ = cmd.Run()
	return diagnostics.String(), cmd.ProcessState.ExitCode()
}

// listing says what is below a directory: name, mode, and content or target.
func listing(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		text := info.Mode().String()
		switch info.Mode().Type() {
		case 0:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += " " + string(content)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text += " " + target
		}
		name, _ := filepath.Rel(dir, path)
		found[name] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestTarThereAndBack(t *testing.T) {
	from := filepath.Join(t.TempDir(), "work")
	name := func(elements ...string) string { return filepath.Join(append([]string{from}, elements...)...) }
	long := strings.Repeat("long", 40)
	must(t,
		os.MkdirAll(name("sub", long), 0o755),
		os.WriteFile(name("file"), []byte("content"), 0o640),
		os.WriteFile(name("sub", long, "ümlaut"), []byte("deep"), 0o600),
		os.WriteFile(name("program"), []byte("#!"), 0o755),
		os.Chmod(name("program"), 0o755|fs.ModeSetuid),
		os.Symlink("/etc/passwd", name("outside")),
		os.Symlink("nothing", name("sub", "dangling")),
		os.Chmod(name("sub"), 0o555),
		unix.Mkfifo(name("fifo"), 0o600),
	)
	archive, stderr, code := packed(t, from+"/")
	if code != 0 || stderr != "" {
		t.Fatalf("tar-out: code %d, %q", code, stderr)
	}
	to := t.TempDir()
	for range 2 { // the second replaces
		if stderr, code := unpacked(t, to, archive); code != 0 || stderr != "" {
			t.Fatalf("tar-in: code %d, %q", code, stderr)
		}
	}
	want := listing(t, from)
	delete(want, "fifo")
	want["program"] = "-rwxr-xr-x #!" // no set-uid bit
	if diff := cmp.Diff(want, listing(t, filepath.Join(to, "work"))); diff != "" {
		t.Errorf("unpacked (-want +got):\n%s", diff)
	}
	before, _ := os.Stat(name("file"))
	after, err := os.Stat(filepath.Join(to, "work/file"))
	if err != nil || after.ModTime().Sub(before.ModTime()).Abs() > time.Second { // a tar's unit
		t.Errorf("the time is %v, %v; want %v", after.ModTime(), err, before.ModTime())
	}
	must(t, os.Chmod(name("sub"), 0o755), os.Chmod(filepath.Join(to, "work/sub"), 0o755))
}

func TestTarOutOfFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "one")
	must(t, os.WriteFile(file, []byte("x"), 0o644))
	archive, _, code := packed(t, file)
	header, err := tar.NewReader(bytes.NewReader(archive)).Next()
	if code != 0 || err != nil || header.Name != "one" {
		t.Errorf("code %d, %v, entry %+v", code, err, header)
	}
	for _, missing := range []string{file + "/x", "/no/such/file"} {
		if _, stderr, code := packed(t, missing); code != 1 || !strings.Contains(stderr, missing) {
			t.Errorf("of %s: code %d, %q", missing, code, stderr)
		}
	}
}

// TestTarOutUnreadable: the rest is still copied.
func TestTarOutUnreadable(t *testing.T) {
	need(t, os.Geteuid() == 0, "root")
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755),
		os.WriteFile(filepath.Join(dir, "secret"), nil, 0o000), os.WriteFile(filepath.Join(dir, "zebra"), nil, 0o644))
	binary := filepath.Join(t.TempDir(), "helper")
	content, err := os.ReadFile(os.Args[0])
	must(t, err, os.WriteFile(binary, content, 0o755))
	cmd := exec.Command(binary, "tar-out", dir)
	cmd.Env = append(os.Environ(), asHelper+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.SysProcAttr = &unix.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(stderr.String(), "secret is left out: ") {
		t.Errorf("%v, %q", err, stderr.String())
	}
	if !bytes.Contains(out.Bytes(), []byte("zebra")) || bytes.Contains(out.Bytes(), []byte("secret")) {
		t.Error("want the readable file in the archive, and nothing of the other")
	}
}

func archiveOf(t *testing.T, entries ...tar.Header) []byte {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	for _, entry := range entries {
		content := []byte("evil")
		if entry.Typeflag != tar.TypeReg {
			content = nil
		}
		entry.Size, entry.Mode = int64(len(content)), 0o644
		must(t, w.WriteHeader(&entry))
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	must(t, w.Close())
	return buffer.Bytes()
}

// TestTarInStaysInside: no name and no link leads out of the directory.
func TestTarInStaysInside(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name} }
	link := func(name, target string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
	}
	for name, test := range map[string]struct {
		entries []tar.Header
		code    int
	}{
		"absolute":              {[]tar.Header{file("/outside/victim")}, 1},
		"parent":                {[]tar.Header{file("../outside/victim")}, 1},
		"parent inside":         {[]tar.Header{file("a/../b")}, 1},
		"parent in a hard link": {[]tar.Header{{Typeflag: tar.TypeLink, Name: "x", Linkname: "../outside/victim"}}, 1},
		"through a link":        {[]tar.Header{link("way", "../outside"), file("way/victim")}, 1},
		"through an absolute":   {[]tar.Header{link("way", "OUTSIDE"), file("way/victim")}, 1},
		"directory in a link":   {[]tar.Header{link("way", "../outside"), {Typeflag: tar.TypeDir, Name: "way/new"}}, 1},
		"hard link of a link":   {[]tar.Header{link("way", "../outside/victim"), {Typeflag: tar.TypeLink, Name: "x", Linkname: "way"}, file("x")}, 0},
		"over a link":           {[]tar.Header{link("way", "../outside/victim"), file("way")}, 0},
		"over a pipe":           {[]tar.Header{file("pipe")}, 0},
		"over a directory":      {[]tar.Header{file("directory")}, 1},
		"device":                {[]tar.Header{{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, file("good")}, 0},
		"empty":                 {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			inside, outside := filepath.Join(top, "inside"), filepath.Join(top, "outside")
			must(t, os.MkdirAll(filepath.Join(inside, "directory"), 0o755), os.Mkdir(outside, 0o755),
				os.WriteFile(filepath.Join(outside, "victim"), []byte("good"), 0o644),
				unix.Mkfifo(filepath.Join(inside, "pipe"), 0o644))
			for i := range test.entries {
				test.entries[i].Linkname = strings.Replace(test.entries[i].Linkname, "OUTSIDE", outside, 1)
			}
			before := listing(t, outside)
			if stderr, code := unpacked(t, inside, archiveOf(t, test.entries...)); code != test.code || (code == 0) != (stderr == "") {
				t.Errorf("code %d, %q; want %d", code, stderr, test.code)
			}
			if diff := cmp.Diff(before, listing(t, outside)); diff != "" {
				t.Errorf("outside:\n%s", diff)
			}
			if names := glob(t, filepath.Join(top, "*")); len(names) != 2 {
				t.Errorf("beside it: %v", names)
			}
		})
	}
}

func TestTarInBroken(t *testing.T) {
	good := archiveOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "file"})
	for name, archive := range map[string][]byte{"cut": good[:514], "nonsense": bytes.Repeat([]byte("x"), 1024)} {
		if stderr, code := unpacked(t, t.TempDir(), archive); code != 1 || stderr == "" {
			t.Errorf("%s: code %d, %q", name, code, stderr)
		}
	}
	if stderr, code := unpacked(t, "/no/such/directory", good); code != 1 || !strings.Contains(stderr, "/no/such/directory") {
		t.Errorf("no directory: code %d, %q", code, stderr)
	}
	if stderr, code := unpacked(t, t.TempDir(), append(good, make([]byte, 1<<20)...)); code != 0 {
		t.Errorf("padding: code %d, %q", code, stderr)
	}
}

// TestPause: it ends at once, also as PID 1.
func TestPause(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT} {
		cmd := helper(t, "pause")
		asPid1(t, cmd)
		wait := startReady(t, cmd)
		must(t, cmd.Process.Signal(signal))
		wait()
		if code := cmd.ProcessState.ExitCode(); code != 0 {
			t.Errorf("%s: code %d", signal, code)
		}
	}
}
