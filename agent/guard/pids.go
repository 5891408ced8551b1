package guard

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// pids are the processes in a cgroup and below it. A cgroup that holds the guard
// or the host's first process is an error: it is no run's.
func (h *host) pids(dir string) (map[int]bool, error) {
	all := map[int]bool{}
	err := walk(dir, func(sub string) error {
		pids, err := readPids(sub)
		for _, pid := range pids {
			all[pid] = true
		}
		return err
	})
	if err == nil && (all[h.self] || all[1]) {
		err = fmt.Errorf("%w: %s holds the guard or the host's first process: it is no run's cgroup", ErrInvalid, dir)
	}
	return all, err
}

// walk calls do for a cgroup and all below it, the inner ones last. Cgroups that
// go away meanwhile are passed over.
func walk(dir string, do func(dir string) error) error {
	var errs []error
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			errs = append(errs, present(err))
			return nil
		case entry.IsDir():
			errs = append(errs, present(do(name)))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

func present(err error) error {
	if isGone(err) {
		return nil
	}
	return err
}

// readPids reads cgroup.procs. A pid of 0 is a process that this pid namespace
// doesn't see: it counts, though nothing can be done to it.
func readPids(dir string) ([]int, error) {
	file, err := os.Open(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, present(err)
	}
	defer file.Close()
	var pids []int
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		pid, err := strconv.Atoi(lines.Text())
		if err != nil || pid < 0 {
			return pids, fmt.Errorf("%s: %.20q is no pid", file.Name(), lines.Text())
		}
		pids = append(pids, pid)
	}
	// A threaded cgroup of version 2 says EOPNOTSUPP; the one above lists its
	// processes.
	if err := lines.Err(); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return pids, present(err)
	}
	return pids, nil
}

// process is held by a pidfd; where the kernel has none (before Linux 5.3) by its
// pid.
type process struct{ pid, fd int }

func openProcess(pid int) (held, error) {
	if pid <= 0 {
		return nil, fmt.Errorf("process %d isn't visible in the guard's pid namespace", pid)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ENOSYS):
		return &process{pid: pid, fd: -1}, nil
	case err != nil:
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	return &process{pid: pid, fd: fd}, nil
}

func (p *process) signal(sig unix.Signal) error {
	if p.fd < 0 {
		return unix.Kill(p.pid, sig)
	}
	return unix.PidfdSendSignal(p.fd, sig, nil, 0)
}

func (p *process) close() {
	if p.fd >= 0 {
		unix.Close(p.fd)
	}
}

// notice never follows a symbolic link to its file, nor waits for a pipe's
// reader: who is in the container may have put one there.
func (h *host) notice(path, text string) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644) // #nosec G302 -- users read it
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
