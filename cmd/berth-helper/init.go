package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of a shell for a command that can't be run.
const (
	exitCannotRun = 126
	exitNotFound  = 127
)

// runInit runs args as the only direct child, reaps whatever is orphaned to
// PID 1, and returns the child's exit code, or 128 + the signal that killed it.
// Every signal it can catch is passed on: a PID 1 without a handler never sees
// SIGTERM at all.
func runInit(args []string) int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)

	child, code := spawn(args)
	if code != 0 {
		return code
	}
	for s := range signals {
		switch s {
		case unix.SIGCHLD:
			if code, ended := reap(child); ended {
				return code
			}
		case unix.SIGURG, unix.SIGPIPE:
			// The Go runtime sends itself SIGURG; SIGPIPE is about our own output.
		default:
			if number, ok := s.(unix.Signal); ok {
				// ESRCH: it has just ended, and its SIGCHLD is on the way.
				_ = unix.Kill(child, number)
			}
		}
	}
	return exitCannotRun
}

func spawn(args []string) (pid, code int) {
	setHome()
	path, err := exec.LookPath(args[0])
	if err == nil {
		pid, err = syscall.ForkExec(path, args, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	}
	if err == nil {
		return pid, 0
	}
	fmt.Fprintf(os.Stderr, "berth: cannot run %q: %v. Check the command of the template and that it is in the image.\n", args[0], err)
	if errors.Is(err, exec.ErrNotFound) || (path == "" && errors.Is(err, fs.ErrNotExist)) {
		return 0, exitNotFound
	}
	return 0, exitCannotRun
}

// setHome gives the command the home directory that the image's passwd names for
// its user, as images expect.
func setHome() {
	if os.Getenv("HOME") != "" {
		return
	}
	home := "/"
	if account, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil && account.HomeDir != "" {
		home = account.HomeDir
	}
	_ = os.Setenv("HOME", home)
}

// reap collects every child that has ended. One SIGCHLD can stand for many.
func reap(child int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil || pid == 0:
			return code, ended
		case pid != child:
			continue
		case status.Exited():
			code, ended = status.ExitStatus(), true
		case status.Signaled():
			code, ended = 128+int(status.Signal()), true
		}
	}
}
