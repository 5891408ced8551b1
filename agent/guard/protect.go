package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// oomExempt is the oom_score_adj of what the kernel never ends for want of
// memory (proc(5)).
const oomExempt = "-1000"

// heapPercent: the garbage is small, and the memory is locked.
const heapPercent = 20

// Protect shields this process as far as the host permits, and says what it
// couldn't have. It is for a process that is a guard and nothing else.
func Protect() Protection {
	goruntime.GOMAXPROCS(1)
	debug.SetGCPercent(heapPercent)
	p := Protection{}
	// With MCL_ONFAULT only pages in use are locked, not the address space that
	// Go's runtime has reserved.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		p.lack("its memory can be swapped out: mlockall: %v", err)
	} else {
		p.Locked = true
	}
	const file = "/proc/self/oom_score_adj"
	err := os.WriteFile(file, []byte(oomExempt), 0)
	text, readErr := os.ReadFile(file)
	if p.OOM = strings.TrimSpace(string(text)) == oomExempt; !p.OOM {
		p.lack("the kernel may end it for want of memory: oom_score_adj: %w", errors.Join(err, readErr))
	}
	return p
}

func (p *Protection) lack(format string, args ...any) {
	p.Lacks = append(p.Lacks, fmt.Errorf(format, args...).Error())
}

// ownName is the cgroup of guards that no service manager has put in one. Those
// of several data directories share it.
const ownName = "berth-guard"

// Leave moves this process out of its starter's cgroups into one of its own in
// each hierarchy, so that what happens to its starter's doesn't happen to it.
// Where it can't have one it goes to the root of the hierarchy. Settle reads the
// outcome; Return undoes it.
func Leave() error { return eachHierarchy(func(m *cgroupMount) error { return m.enter(ownName) }) }

// Return goes to the roots of the hierarchies and removes the cgroup that Leave
// made, unless another guard is in it.
func Return() error {
	return eachHierarchy(func(m *cgroupMount) error {
		if err := m.join("."); err != nil {
			return err
		}
		if err := unix.Rmdir(filepath.Join(m.point, ownName)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.EBUSY) {
			return err
		}
		return nil
	})
}

// Settle notes which cgroup the process is in: by its own name, or by the unit
// that the service manager has put it in.
func (p *Protection) Settle(err error) {
	text, readErr := os.ReadFile("/proc/self/cgroup")
	if err = errors.Join(err, readErr); err != nil {
		p.lack("it isn't in a cgroup of its own everywhere: %w", err)
		return
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && strings.Contains(filepath.Base(parts[2]), ownName) {
			p.Cgroup = parts[2]
			return
		}
	}
	p.lack("it shares its starter's cgroup")
}

func eachHierarchy(do func(*cgroupMount) error) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range cgroupMounts(string(mounts)) {
		errs = append(errs, do(&m))
	}
	return errors.Join(errs...)
}

func (m *cgroupMount) enter(name string) error {
	err := os.Mkdir(filepath.Join(m.point, name), 0o755) // #nosec G301 -- as all cgroups
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = m.join(name)
	}
	if err == nil {
		return nil
	}
	// A cpuset of version 1, for one, takes nobody before its CPUs are chosen.
	if m.join(".") == nil {
		_ = unix.Rmdir(filepath.Join(m.point, name))
		return nil
	}
	return err
}

// join moves this process, 0 in the kernel's words.
func (m *cgroupMount) join(name string) error {
	return write(filepath.Join(m.point, name), "cgroup.procs", "0")
}
