package doctor

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What berth's own tests rely on is there wherever they run, as root.
func TestThisHost(t *testing.T) {
	checks := byName(t, Check(t.Context(), ThisHost(), Options{DataDir: t.TempDir()}))
	for _, name := range []string{
		"root", "kernel", "kernel-features", "loop-devices", "cgroups", "containerd", "containerd-version",
		"containerd-holes", "runc", "runc-holes", "e2fsprogs", "firewall", "disk-data-type", "fsync", "memory", "clock", "open-files",
	} {
		c, ok := checks[name]
		if !ok || c.Status == workspace.CheckFail {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if c := checks["root"]; c.Status != workspace.CheckOK {
		t.Errorf("these tests need root: %+v", c)
	}
}

func TestSyncTimesLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	took, err := syncTimes(dir)
	if err != nil || len(took) != syncs {
		t.Errorf("%v, %v", took, err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := syncTimes(filepath.Join(dir, "absent")); err == nil {
		t.Error("a directory that isn't there was measured")
	}
}

func TestStatfs(t *testing.T) {
	fs, err := statfs("/proc")
	if err != nil || fs.Type != "type 0x9fa0" {
		t.Errorf("/proc: %+v, %v", fs, err)
	}
	if fs, err = statfs(t.TempDir()); err != nil || fs.Size == 0 || fs.Free > fs.Size {
		t.Errorf("%+v, %v", fs, err)
	}
	if _, err := statfs("/absent"); err == nil {
		t.Error("a path that isn't there has a file system")
	}
}

func TestRunProgram(t *testing.T) {
	if said, err := runProgram(t.Context(), "/bin/sh", "-c", "echo said; echo not >&2"); err != nil || said != "said" {
		t.Errorf("%q, %v", said, err)
	}
	if _, err := runProgram(t.Context(), "/bin/sh", "-c", "echo its words >&2; exit 1"); err == nil || !strings.Contains(err.Error(), "/bin/sh: its words") {
		t.Errorf("%v", err)
	}
	if _, err := runProgram(t.Context(), ""); err == nil {
		t.Error("no program was run")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := runProgram(ctx, "/bin/sleep", "60"); err == nil || !strings.Contains(err.Error(), "doesn't end") {
		t.Errorf("%v", err)
	}
}

// A process that takes connections is told from one that serves.
func TestHello(t *testing.T) {
	cases := map[string]struct {
		answer func(net.Conn)
		want   string
	}{
		"serves": {func(c net.Conn) {
			_, _ = c.Write([]byte("\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00"))
		}, ""},
		"another kind": {func(c net.Conn) { _, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }, "doesn't speak gRPC"},
		"hangs up":     {func(net.Conn) {}, "doesn't answer"},
		"hangs":        {func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }, "doesn't answer"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "hello")
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(dir) })
			socket := filepath.Join(dir, "s")
			l, err := net.Listen("unix", socket)
			must(t, err)
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = io.ReadFull(conn, make([]byte, 33)) // the client's preface and settings
				c.answer(conn)
			}()
			wait := patience
			if name == "hangs" {
				wait = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			err = hello(ctx, socket)
			l.Close()
			<-done
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	if err := hello(t.Context(), "/absent/socket"); err == nil {
		t.Error("nothing answered")
	}
}
