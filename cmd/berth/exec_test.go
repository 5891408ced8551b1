package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/test/onenode"
	"berth/workspace"
)

// typist is a person at a terminal.
type typist struct {
	t      *testing.T
	master *os.File
	screen chan string
	seen   string
}

// sits gives a terminal of 80 columns and who sits at it.
func sits(t *testing.T) (*os.File, *typist) {
	t.Helper()
	master, terminal := pseudoTerminal(t, 24, 80)
	p := &typist{t: t, master: master, screen: make(chan string, 1000)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for buf := make([]byte, 4096); ; {
			n, err := p.master.Read(buf)
			if err != nil {
				return // EIO once the other side is closed
			}
			p.screen <- string(buf[:n])
		}
	}()
	t.Cleanup(func() {
		_, _ = io.WriteString(master, "\n") // a read that is still under way would keep it open
		terminal.Close()
		<-read
		p.master.Close()
	})
	return terminal, p
}

func (p *typist) resize(rows, columns uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *typist) types(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.master, text); err != nil {
		p.t.Fatal(err)
	}
}

// sees waits until a text has come since the last.
func (p *typist) sees(text string) {
	p.t.Helper()
	deadline := time.After(scriptTime)
	for !strings.Contains(p.seen, text) {
		select {
		case more := <-p.screen:
			p.seen += more
		case <-deadline:
			p.t.Fatalf("no %q on the screen: %q", text, p.seen)
		}
	}
	_, p.seen, _ = strings.Cut(p.seen, text)
}

// A shell in an instance, as one has it at a terminal: its size, a change of
// that, ^C for the process and not for berth, and the terminal as it was.
func TestShell(t *testing.T) {
	dir := t.TempDir()
	server, err := onenode.Start(filepath.Join(dir, "s"), filepath.Join(dir, "r"), onenode.Config{Templates: templates()})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	t.Setenv("BERTH_SOCKET", filepath.Join(dir, "s"))
	t.Setenv("TERM", "xterm")
	onTerminal(t, "instance", "create", "nb", "-t", "demo")
	if err := server.Run(context.Background(), "nb", workspace.PhaseRunning, "running", ""); err != nil {
		t.Fatal(err)
	}
	terminal, typist := sits(t)
	before, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	code := make(chan int, 1)
	go func() { code <- run([]string{"exec", "nb"}, terminal, terminal, terminal) }()
	typist.types("PS1=; stty size; echo $TERM\n")
	typist.sees("24 80\r\nxterm\r\n")
	typist.resize(50, 132)
	if err := syscall.Kill(os.Getpid(), syscall.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	// The size arrives when it does: ask until it has.
	typist.types("while [ \"$(stty size)\" != '50 132' ]; do sleep 0.01; done; echo re''sized\n")
	typist.sees("resized\r\n")
	// It speaks once it has the terminal: an earlier ^C would be the shell's. What
	// is typed before the shell is back from that may be dropped.
	typist.types("PS1='at the ''prompt'\nsh -c 'echo sl\"\"eeps; exec sleep 1000'\n")
	typist.sees("sleeps\r\n")
	typist.types("\x03")
	typist.sees("at the prompt")
	typist.types("echo go''es on; exit 6\n")
	typist.sees("goes on\r\n")
	if got := <-code; got != 6 {
		t.Errorf("exit code %d", got)
	}
	after, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil || *after != *before {
		t.Errorf("the terminal was %+v and is %+v, %v", before, after, err)
	}
	typist.types("\n") // for the read of input that was under way
}
