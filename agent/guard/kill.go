package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// host ends processes of this host. A pid is signalled only while it is in one
// of the run's cgroups: it is held by a pidfd, then looked for in the cgroup, and
// then signalled, so that one that is used again by another process is not.
type host struct {
	self int // never killed; what holds it is no run's cgroup
	// belongs says why a directory that exists isn't a cgroup below the root of
	// its hierarchy.
	belongs func(dir string) error
	// hold opens a process for signals.
	hold func(pid int) (held, error)
}

// held is a process that a signal can't miss.
type held interface {
	signal(unix.Signal) error
	close()
}

func thisHost() *host {
	return &host{self: os.Getpid(), belongs: belongsToCgroups, hold: openProcess}
}

// belongsToCgroups asks the kernel. The parent of a cgroup that isn't the root is
// on the same file system.
func belongsToCgroups(dir string) error {
	var fsOfDir unix.Statfs_t
	var of, parent unix.Stat_t
	if err := errors.Join(unix.Statfs(dir, &fsOfDir), unix.Lstat(dir, &of), unix.Stat(filepath.Dir(dir), &parent)); err != nil {
		return err
	}
	switch {
	case fsOfDir.Type != unix.CGROUP2_SUPER_MAGIC && fsOfDir.Type != unix.CGROUP_SUPER_MAGIC, of.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%w: %s isn't a cgroup", ErrInvalid, dir)
	case of.Dev != parent.Dev:
		return fmt.Errorf("%w: %s is the root of its hierarchy", ErrInvalid, dir)
	}
	return nil
}

func (h *host) check(dir string) error {
	if err := h.belongs(dir); err != nil {
		return present(err)
	}
	_, err := h.pids(dir)
	return err
}

func isGone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

func (h *host) kill(dirs []string) (remains, error) {
	var errs []error
	var there []string
	empty := true
	for _, dir := range dirs {
		var pids map[int]bool
		err := h.belongs(dir)
		if err == nil {
			pids, err = h.pids(dir)
		}
		switch {
		case isGone(err):
			continue
		case err != nil: // whether it holds any isn't known
			errs = append(errs, err)
			empty = false
			continue
		}
		there = append(there, dir)
		empty = empty && len(pids) == 0
	}
	switch {
	case len(there) == 0 && empty:
		return remainsGone, nil
	case empty:
		return remainsNone, nil
	}
	errs = append(errs, h.killAll(there))
	return remainsSome, errors.Join(errs...)
}

// killAll sends the signals. cgroup.kill (Linux 5.14, version 2) takes all at
// once, forks in progress among them. Else processes that are frozen first can't
// fork between two signals; where there is no freezer the loop has to outrun
// them, in several attempts if need be.
func (h *host) killAll(dirs []string) error {
	var rest, freezers []string
	for _, dir := range dirs {
		if err := write(dir, "cgroup.kill", "1"); err == nil {
			continue
		}
		rest = append(rest, dir)
		if _, err := os.Lstat(filepath.Join(dir, freezerState)); err == nil {
			freezers = append(freezers, dir)
		}
	}
	var errs []error
	for _, dir := range freezers {
		errs = append(errs, freeze(dir))
	}
	done := map[int]bool{}
	for range sweeps {
		before := len(done)
		for _, dir := range rest {
			errs = append(errs, h.sweep(dir, done))
		}
		if len(done) == before {
			break
		}
	}
	for _, dir := range freezers {
		errs = append(errs, thaw(dir))
	}
	return errors.Join(errs...)
}

const (
	freezerState = "freezer.state" // of version 1
	// freezeWait is how long a freeze may take before the signals are sent all
	// the same: one process that is stuck in the kernel holds it up for ever.
	freezeWait = 20 * time.Millisecond
	// sweeps bounds one attempt against processes that go on forking.
	sweeps = 20
)

func freeze(dir string) error {
	if err := write(dir, freezerState, "FROZEN"); err != nil {
		return err
	}
	for began := time.Now(); time.Since(began) < freezeWait; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, freezerState))
		if err != nil && !isGone(err) {
			return err
		}
		if err != nil || string(text) == "FROZEN\n" {
			break
		}
	}
	return nil
}

// thaw lets the signals take effect, also in cgroups below that somebody else
// has frozen.
func thaw(dir string) error {
	return walk(dir, func(sub string) error { return write(sub, freezerState, "THAWED") })
}

// write to a file of a cgroup; one that is gone needs nothing any more, but a
// file that this kernel lacks is an error.
func write(dir, name, text string) error {
	file, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// sweep signals all in a cgroup and below it that aren't done yet.
func (h *host) sweep(dir string, done map[int]bool) error {
	return walk(dir, func(sub string) error {
		pids, err := readPids(sub)
		if err != nil {
			return err
		}
		for len(pids) > 0 {
			n := min(len(pids), batch)
			if err := h.killSome(sub, pids[:n], done); err != nil {
				return err
			}
			pids = pids[n:]
		}
		return nil
	})
}

// batch bounds the processes held at a time, and with them the open files.
const batch = 256

func (h *host) killSome(dir string, pids []int, done map[int]bool) error {
	var errs []error
	open := map[int]held{}
	for _, pid := range pids {
		if done[pid] {
			continue
		}
		p, err := h.hold(pid)
		if err == nil {
			open[pid] = p
			defer p.close()
		} else if !errors.Is(err, unix.ESRCH) {
			errs = append(errs, err)
		}
	}
	still, err := readPids(dir)
	errs = append(errs, err)
	for _, pid := range still {
		p := open[pid]
		if p == nil || pid == h.self || pid == 1 {
			continue
		}
		done[pid] = true
		if err := p.signal(unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("kill %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

func (h *host) term(d *Deadline) error {
	p, err := h.hold(d.Pid)
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return err
	}
	defer p.close()
	if d.Started != 0 {
		if started, err := ProcessStart(d.Pid); err != nil || started != d.Started {
			return nil // another process has its pid now
		}
	}
	for _, dir := range d.Cgroups {
		pids, err := h.pids(dir)
		if err != nil {
			return err
		}
		if pids[d.Pid] {
			if err := p.signal(unix.SIGTERM); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("term %d: %w", d.Pid, err)
			}
			return nil
		}
	}
	return nil
}
