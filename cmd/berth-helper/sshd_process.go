package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// lastWords is how long a terminal is read after its process has ended, when
// others still have it.
const lastWords = 200 * time.Millisecond

// sessionProcess is a shell or command, which leads a session of the kernel's.
type sessionProcess struct {
	cmd            *exec.Cmd
	master         *os.File // nil: no terminal
	stdin          io.WriteCloser
	stdout, stderr io.Reader // nil with a terminal
	ended          chan struct{}
}

// startProcess runs the account's shell, or has it run a command. The shell isn't
// told that it is a login's: the profile of a distribution would put its own PATH
// in place of the image's.
func (x *session) startProcess(command string) (*sessionProcess, error) {
	shell := x.server.account.shell
	cmd := exec.Command(shell)
	cmd.Args[0] = path.Base(shell)
	if command != "" {
		cmd.Args = append(cmd.Args, "-c", command)
	}
	cmd.Env, cmd.Dir = x.environment(), x.server.account.directory()
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	p := &sessionProcess{cmd: cmd, ended: make(chan struct{})}
	start := p.startPiped
	if x.terminal != "" {
		start = func() error { return p.startInTerminal(x.size) }
	}
	if err := start(); err != nil {
		return nil, fmt.Errorf("run %s: %w", shell, err)
	}
	return p, nil
}

func (p *sessionProcess) startInTerminal(size windowSize) error {
	master, terminal, err := openPTY()
	if err != nil {
		return err
	}
	defer terminal.Close()
	_ = size.apply(master)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = terminal, terminal, terminal
	p.cmd.Env = append(p.cmd.Env, "SSH_TTY="+terminal.Name())
	p.cmd.SysProcAttr.Setctty = true
	if err := p.cmd.Start(); err != nil {
		master.Close()
		return err
	}
	p.master = master
	return nil
}

func (p *sessionProcess) startPiped() (err error) {
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
		return err
	}
	if p.stderr, err = p.cmd.StderrPipe(); err != nil {
		return err
	}
	return p.cmd.Start()
}

// serve passes data both ways until the process has ended and its output is
// written, tells how, and closes the channel.
func (p *sessionProcess) serve(channel ssh.Channel) {
	defer func() { _ = channel.Close() }()
	if p.master != nil {
		p.serveTerminal(channel)
	} else {
		p.servePipes(channel)
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() {
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status.ExitStatus())}))
		return
	}
	for name, number := range signals {
		if number == status.Signal() {
			_, _ = channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
				Name          string
				Core          bool
				Message, Lang string
			}{name, status.CoreDump(), "", ""}))
			return
		}
	}
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(128 + status.Signal())}))
}

func (p *sessionProcess) serveTerminal(channel ssh.Channel) {
	go func() { _, _ = io.Copy(p.master, channel) }()
	written := make(chan struct{})
	go func() {
		_, _ = io.Copy(channel, p.master)
		close(written)
	}()
	_ = p.cmd.Wait()
	close(p.ended)
	_ = p.master.SetReadDeadline(time.Now().Add(lastWords))
	<-written
	p.master.Close()
}

func (p *sessionProcess) servePipes(channel ssh.Channel) {
	go func() {
		_, _ = io.Copy(p.stdin, channel)
		p.stdin.Close()
	}()
	var copying sync.WaitGroup
	copying.Go(func() { _, _ = io.Copy(channel, p.stdout) })
	copying.Go(func() { _, _ = io.Copy(channel.Stderr(), p.stderr) })
	copying.Wait() // as Wait closes what isn't read yet
	_ = p.cmd.Wait()
	close(p.ended)
}

// hangUp sends HUP to all processes of the session, and closes its terminal.
func (p *sessionProcess) hangUp() {
	select {
	case <-p.ended:
	default:
		told := map[int]bool{}
		for anew := true; anew; { // one may just have started another
			anew = false
			for _, pid := range sessionMembers(p.cmd.Process.Pid) {
				if !told[pid] {
					told[pid], anew = true, true
					_ = unix.Kill(pid, unix.SIGHUP)
					_ = unix.Kill(pid, unix.SIGCONT) // a stopped one couldn't heed it
				}
			}
		}
	}
	if p.master != nil {
		p.master.Close()
	}
}

// sessionMembers are the processes whose session has that leader.
func sessionMembers(leader int) []int {
	var members []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, stat := range stats {
		pid, err := strconv.Atoi(path.Base(path.Dir(stat)))
		if err != nil {
			continue
		}
		if session, err := unix.Getsid(pid); err == nil && session == leader {
			members = append(members, pid)
		}
	}
	return members
}

func splitAddr(address net.Addr) (host, port string) {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String(), "0"
	}
	return host, port
}
