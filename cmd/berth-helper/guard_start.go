package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/agent/guard"
)

const (
	// guardStart is how long a guard may take until it answers.
	guardStart = 10 * time.Second
	// guardOther is how long one may take that has kept ours from starting.
	guardOther = 3 * time.Second
	guardPoll  = 10 * time.Millisecond
)

// startGuard sees to it that a guard works on the directory. The one it starts
// has a session, a cgroup and a log of its own, and init for its parent as soon
// as this process has ended.
func startGuard(a guardArgs) error {
	client := guard.NewClient(a.socket)
	if s, err := client.Status(context.Background()); err == nil {
		fmt.Printf("a guard works on %s already: pid %d\n", a.dir, s.Pid)
		return nil
	}
	child, log, err := detach(a)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	deadline := time.Now().Add(guardStart)
	var exit error
	for {
		s, err := client.Status(context.Background())
		if err == nil {
			fmt.Printf("a guard works on %s: pid %d\n", a.dir, s.Pid)
			return nil
		}
		select {
		case exit = <-ended: // another was faster, or has the directory and hangs
			ended = nil
			deadline = time.Now().Add(guardOther)
		case <-time.After(guardPoll):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no guard answers: %w; the last words of the one that was started: %s", errors.Join(err, exit), guardWords(log))
		}
	}
}

// detach starts the guard itself, with nothing of this process's but its path.
func detach(a guardArgs) (child *exec.Cmd, log string, err error) {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return nil, "", err
	}
	log = guardLog(a.dir)
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, "", err
	}
	defer out.Close()
	// What this process was given open is not for the guard. Kernels before 5.11
	// can't do that at once; berthd has nothing open for its children anyway.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return nil, "", fmt.Errorf("close what was inherited: %w", err)
	}
	child = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{os.Args[0], "guard", "--detached", "--dir", a.dir, "--socket", a.socket},
		Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: out, Stderr: out,
		SysProcAttr: &unix.SysProcAttr{Setsid: true},
	}
	return child, log, child.Start()
}

func guardWords(file string) string {
	const enough = 1000
	text, err := os.ReadFile(file) // #nosec G304 -- our own log
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-enough):]))
}
