package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// descriptor is a stream that the kernel knows.
type descriptor interface{ Fd() uintptr }

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(descriptor)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// terminalWidth in characters; 80 when the terminal doesn't say.
func terminalWidth(stream any) int {
	if f, ok := stream.(descriptor); ok {
		if size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			return int(size.Col)
		}
	}
	return 80
}

// painter colours the states that people look for; nil where colour isn't
// wanted (https://no-color.org) or can't be shown.
func painter(stream io.Writer) func(string) string {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" || !isTerminal(stream) {
		return nil
	}
	return func(cell string) string {
		switch cell {
		case "RUNNING", "running", "ready", "free", "healthy":
			return "\x1b[32m" + cell + "\x1b[0m"
		case "PENDING", "pending", "assigned", "pulling", "starting", "stopping", "releasing":
			return "\x1b[33m" + cell + "\x1b[0m"
		case "FAILED", "failed", "lost", "stuck", "unhealthy", "not ready", "unreachable":
			return "\x1b[31m" + cell + "\x1b[0m"
		}
		return cell
	}
}

// progress tells how something goes on: one line that is rewritten on a
// terminal, elsewhere a line for each change.
type progress struct {
	w    io.Writer
	live bool
	last string
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, live: isTerminal(w) && os.Getenv("TERM") != "dumb"}
}

// show writes a line unless it says what the last one said.
func (p *progress) show(line string) {
	line = printable(line)
	if line == p.last {
		return
	}
	p.last = line
	if !p.live {
		fmt.Fprintln(p.w, line)
		return
	}
	if width := terminalWidth(p.w); utf8.RuneCountInString(line) >= width {
		line = string([]rune(line)[:width-2]) + "…"
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
}

// bar draws a part of a hundred.
func bar(percent int) string {
	const width = 20
	full := min(max(percent, 0), 100) * width / 100
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", width-full) + "]"
}

// done takes the live line away: the end is told after it.
func (p *progress) done() {
	if p.live && p.last != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
