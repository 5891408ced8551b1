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
	guardStart = 5 * time.Second
	guardPoll  = 10 * time.Millisecond
)

// startGuard sees to it that a guard works on the directory. The one it starts
// has a session, a cgroup and a log of its own, and init for its parent as soon
// as this process has ended. One that has the directory and doesn't answer for
// long is killed: it keeps no end, and the next one reads all that it held.
func startGuard(a guardArgs) error {
	client := guard.NewClient(a.socket)
	s, err := client.Status(context.Background())
	for attempt := 0; err != nil && attempt < 2; attempt++ {
		if pid := guard.HolderOf(a.dir); pid > 1 && attempt > 0 {
			fmt.Printf("the guard of %s, pid %d, doesn't answer: it is killed\n", a.dir, pid)
			_ = unix.Kill(pid, unix.SIGKILL)
			await(guardStart, func() bool { return guard.HolderOf(a.dir) == 0 })
		}
		if err = detach(a); err != nil {
			return err
		}
		await(guardStart, func() bool {
			s, err = client.Status(context.Background())
			return err == nil
		})
	}
	if err != nil {
		return fmt.Errorf("no guard answers: %w; its last words: %s", err, guardWords(guardLog(a.dir)))
	}
	fmt.Printf("a guard works on %s: pid %d\n", a.dir, s.Pid)
	return nil
}

// await waits until something is so, or the time is over.
func await(patience time.Duration, is func() bool) {
	for end := time.Now().Add(patience); !is() && time.Now().Before(end); {
		time.Sleep(guardPoll)
	}
}

// detach starts the guard itself, with nothing of this process's but its path.
// One that finds the directory taken ends at once, and nobody needs to know.
func detach(a guardArgs) error {
	if err := os.MkdirAll(a.dir, 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(guardLog(a.dir), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	// What this process was given open is not for the guard. Kernels before 5.11
	// can't do that at once; berthd has nothing open for its children anyway.
	if err := unix.CloseRange(3, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("close what was inherited: %w", err)
	}
	child := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{os.Args[0], "guard", "--detached", "--dir", a.dir, "--socket", a.socket},
		Dir: "/", Env: []string{"PATH=" + os.Getenv("PATH")}, Stdout: out, Stderr: out,
		SysProcAttr: &unix.SysProcAttr{Setsid: true},
	}
	if err := child.Start(); err != nil {
		return err
	}
	go func() { _ = child.Wait() }() // no zombie while this process lives
	return nil
}

func guardWords(file string) string {
	const enough = 1000
	text, err := os.ReadFile(file) // #nosec G304 -- our own log
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-enough):]))
}
