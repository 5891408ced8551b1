package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/test/onenode"
	"berth/workspace"
)

// pseudoTerminal gives both sides of one.
func pseudoTerminal(t *testing.T, rows, columns uint16) (master, terminal *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	}
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "/dev/ptmx"), terminal
}

// openTerminal gives a pseudo-terminal of 40 columns, and a function that ends
// it and tells what was written.
func openTerminal(t *testing.T) (*os.File, func() string) {
	t.Helper()
	master, terminal := pseudoTerminal(t, 24, 40)
	var written bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&written, master) // ends with EIO once the other side is closed
	}()
	return terminal, func() string {
		terminal.Close()
		<-read
		master.Close()
		return strings.ReplaceAll(written.String(), "\r\n", "\n")
	}
}

// onTerminal runs a command line with its output on a terminal.
func onTerminal(t *testing.T, args ...string) string {
	t.Helper()
	t.Setenv("TERM", "xterm")
	terminal, end := openTerminal(t)
	code := run(args, os.Stdin, terminal, terminal)
	text := end()
	if code != exitOK {
		t.Fatalf("berth %v ended with %d:\n%s", args, code, text)
	}
	return text
}

func TestOnATerminal(t *testing.T) {
	dir := t.TempDir()
	server, err := onenode.Start(filepath.Join(dir, "s"), filepath.Join(dir, "r"), onenode.Config{Templates: templates()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	t.Setenv("BERTH_SOCKET", filepath.Join(dir, "s"))
	archive := filepath.Join(dir, "archive.tar")
	if err := os.WriteFile(archive, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}

	if got := onTerminal(t, "image", "import", archive); !strings.Contains(got, "\r\x1b[Ksent 3MiB of 3MiB (100 %)\r\x1b[Kimage ") {
		t.Errorf("an import shows\n%q", got)
	}
	onTerminal(t, "instance", "create", "demo", "-t", "demo")
	if err := server.Run(context.Background(), "demo", workspace.PhaseRunning, "ready", strings.Repeat("it is ready ", 9)); err != nil {
		t.Fatal(err)
	}
	if got := onTerminal(t, "instance", "wait", "demo"); !strings.HasPrefix(got, "demo: RUNNING (ready): it is ready it") || strings.Count(got, "RUNNING") != 1 {
		t.Errorf("a wait shows\n%q", got)
	}
	if got := onTerminal(t, "instance", "ls"); !strings.Contains(got, "demo  \x1b[32mRUNNING\x1b[0m  ") {
		t.Errorf("a list shows\n%q", got)
	}
	t.Setenv("NO_COLOR", "1")
	if got := onTerminal(t, "instance", "ls"); strings.Contains(got, "\x1b") {
		t.Errorf("with NO_COLOR a list shows\n%q", got)
	}
}

func TestPullsOnATerminal(t *testing.T) {
	dir := t.TempDir()
	server, err := onenode.Start(filepath.Join(dir, "s"), filepath.Join(dir, "r"), onenode.Config{Templates: templates()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	t.Setenv("BERTH_SOCKET", filepath.Join(dir, "s"))
	if got := onTerminal(t, "image", "pull", "registry.test/a"); !strings.Contains(got, "\r\x1b[K[##########----------] 50 % registry.t…\r\x1b[Kimage registry.test/a pulled") {
		t.Errorf("a pull shows\n%q", got)
	}
	onTerminal(t, "instance", "create", "nb", "-t", "demo")
	if err := server.Run(context.Background(), "nb", workspace.PhasePulling, "pulling_image", ""); err != nil {
		t.Fatal(err)
	}
	if err := server.Pull(context.Background(), "nb", workspace.PullProgress{Reference: "demo", DoneBytes: 43, TotalBytes: 100, Layers: 1}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TERM", "xterm")
	terminal, end := openTerminal(t)
	code := make(chan int, 1)
	go func() { code <- run([]string{"instance", "wait", "nb"}, os.Stdin, terminal, terminal) }()
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	if err := server.Waited(ctx, "nb"); err != nil {
		t.Fatal(err)
	}
	if err := server.Run(ctx, "nb", workspace.PhaseRunning, "ready", "it is ready"); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != exitOK {
		t.Errorf("exit code %d", got)
	}
	if got := end(); !strings.HasPrefix(got, "\r\x1b[Knb: [########------------] 43 % of dem…\r\x1b[Knb: RUNNING") {
		t.Errorf("a wait shows\n%q", got)
	}
}
