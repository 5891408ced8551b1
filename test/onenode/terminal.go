package onenode

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"

	"golang.org/x/sys/unix"

	"berth/workspace"
)

// runOnTerminal gives a process a terminal of its own.
func runOnTerminal(p *exec.Cmd, spec workspace.ExecSpec, streams workspace.ExecStreams) error {
	master, terminal, err := openTerminal()
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	var sizes sync.WaitGroup
	defer func() {
		close(ended)
		sizes.Wait()
		master.Close()
	}()
	resize(master, spec.Size)
	p.Stdin, p.Stdout, p.Stderr = terminal, terminal, terminal
	err = p.Start()
	terminal.Close()
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(master, streams.Stdin) }() // ends with the terminal or the client
	sizes.Go(func() {
		for {
			select {
			case size := <-streams.Resize:
				resize(master, size)
			case <-ended:
				return
			}
		}
	})
	_, _ = io.Copy(streams.Stdout, master) // ends with EIO once nobody has the terminal
	return p.Wait()
}

func resize(master *os.File, size workspace.TerminalSize) {
	_ = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Columns})
}

func openTerminal() (master, terminal *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		unix.Close(fd)
		return nil, nil, err
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		master.Close()
	}
	return master, terminal, err
}
