package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/agent/guard"
)

// guardBed starts guards as berthd does. They outlive their starters, so they are
// the real program, not this test's binary.
type guardBed struct {
	*guard.Client
	t                   *testing.T
	dir, socket, binary string
}

func newGuardBed(t *testing.T) *guardBed {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
	b := &guardBed{t: t, dir: filepath.Join(t.TempDir(), "guard"), binary: filepath.Join(t.TempDir(), "berth-helper")}
	b.socket = filepath.Join(b.dir, "s")
	b.Client = guard.NewClient(b.socket)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", b.binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		pid := guard.HolderOf(b.dir)
		if pid == 0 {
			return
		}
		_ = unix.Kill(pid, unix.SIGCONT)
		_ = unix.Kill(pid, unix.SIGTERM)
		b.eventually("the guard has ended", func() bool { return guard.HolderOf(b.dir) == 0 })
	})
	return b
}

func (b *guardBed) eventually(what string, is func() bool) {
	b.t.Helper()
	for began := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			b.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func (b *guardBed) command() *exec.Cmd {
	return exec.Command(b.binary, "guard", "--dir", b.dir, "--socket", b.socket, "--daemon")
}

func (b *guardBed) start() {
	b.t.Helper()
	if out, err := b.command().CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

func (b *guardBed) status() guard.Status {
	b.t.Helper()
	s, err := b.Status(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// TestGuardIsOnItsOwn: nothing ties it to who started it, and there is one.
func TestGuardIsOnItsOwn(t *testing.T) {
	b := newGuardBed(t)
	inherited, err := os.CreateTemp(t.TempDir(), "inherited")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 { // at once
		all.Go(func() {
			cmd := b.command()
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &out, &out, []*os.File{inherited}
			if err := cmd.Run(); err != nil { // which also waits for whoever has its output
				t.Errorf("%v: %s", err, out.String())
			}
		})
	}
	all.Wait()
	s := b.status()
	stat := strings.Fields(readText(t, fmt.Sprintf("/proc/%d/stat", s.Pid)))
	if session, err := strconv.Atoi(stat[5]); err != nil || session != s.Pid {
		t.Errorf("its session is %s, its pid %d", stat[5], s.Pid)
	}
	if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", s.Pid)); err != nil || dir != "/" {
		t.Errorf("it is in %s, %v", dir, err)
	}
	open, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if name, _ := os.Readlink(fd); name == inherited.Name() {
			t.Error("it has what its starter had open")
		}
	}
	if s.Cgroup != "/berth-guard" || !strings.Contains(readText(t, fmt.Sprintf("/proc/%d/cgroup", s.Pid)), ":/berth-guard\n") || !s.Locked {
		t.Errorf("%+v", s)
	}
	if guard.HolderOf(b.dir) != s.Pid {
		t.Errorf("the lock is held by %d, not %d", guard.HolderOf(b.dir), s.Pid)
	}
	b.start()
	if again := b.status(); again.Pid != s.Pid {
		t.Errorf("another start: %d after %d", again.Pid, s.Pid)
	}
	memory := readText(t, fmt.Sprintf("/proc/%d/status", s.Pid))
	for line := range strings.Lines(memory) {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "RssAnon") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// TestGuardThatHangs is replaced: the next one reads what it held.
func TestGuardThatHangs(t *testing.T) {
	b := newGuardBed(t)
	b.start()
	s := b.status()
	d := guard.Deadline{Run: "r", BootID: s.BootID, Kill: 1 << 60, Cgroups: []string{"/sys/fs/cgroup/gone/by/now"}}
	if err := b.Set(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(s.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.start()
	if next := b.status(); next.Pid == s.Pid || next.Entries != 1 {
		t.Errorf("after pid %d: %+v", s.Pid, next)
	}
}

func TestGuardArguments(t *testing.T) {
	for _, args := range [][]string{
		{"guard", "--dir", "relative", "--socket", "/s"}, {"guard", "--dir", "/d"}, {"guard", "--fly"}, {"guard", "--dir", "/d", "--socket", "/s", "more"},
	} {
		out, err := helper(t, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "berth-helper guard:") {
			t.Errorf("%v: %v, %s", args, err, out)
		}
	}
}

func readText(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
