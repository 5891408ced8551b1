// Package guard ends the processes of runs when their time is over, whatever
// else of berth is paused, dead or restarting. A guard is a tiny process of its
// own (`berth-helper guard`) that knows only cgroups and deadlines: SIGTERM to a
// container's first process at one moment, SIGKILL to its cgroups at the end. It
// keeps each deadline on disk before it acknowledges it, so that its own restart
// loses none.
//
// Server is the process's work, Client speaks to it, CgroupsOf and ProcessStart
// tell what a deadline is about. All moments are milliseconds on CLOCK_BOOTTIME,
// which goes on while the host sleeps and which nobody sets; a deadline of
// another boot means nothing.
package guard

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
)

// Errors of a Client, for errors.Is.
var (
	// ErrEarlier: Set would end the run before the end that the guard holds.
	ErrEarlier = errors.New("the guard holds a later end")
	// ErrOtherBoot: the deadline is on the clock of another boot.
	ErrOtherBoot = errors.New("the deadline is of another boot")
	// ErrEnded: the run's end has come, and a later one revives nothing.
	ErrEnded = errors.New("the run's end has come")
	// ErrInvalid: the deadline, or what was sent, breaks a rule.
	ErrInvalid = errors.New("invalid")
	// ErrUnavailable: nobody answers. Whether it was stored isn't known.
	ErrUnavailable = errors.New("the guard doesn't answer")
	// ErrBusy: a guard that holds deadlines isn't ended.
	ErrBusy = errors.New("the guard holds deadlines")
	// ErrTaken: another guard works on the directory.
	ErrTaken = errors.New("another guard has the directory")
)

// Deadline is when a run's processes end, on this boot's clock (CLOCK_BOOTTIME).
type Deadline struct {
	Run    string `json:"run"` // at most 128 of A-Z a-z 0-9 . _ -, and no dot first
	BootID string `json:"boot_id"`
	// Term is when Pid gets SIGTERM (0: it doesn't), Kill when all processes get
	// SIGKILL, in ms.
	Term int64 `json:"term_ms,omitempty"`
	Kill int64 `json:"kill_ms"`

	Pid     int    `json:"pid,omitempty"`     // the container's PID 1 as the host sees it
	Started uint64 `json:"started,omitempty"` // its start (field 22 of /proc/PID/stat), so that a pid used again is never signalled; 0: not checked

	// Cgroups are absolute directories, one for each hierarchy that holds the
	// run's processes, as CgroupsOf gives them.
	Cgroups []string `json:"cgroups"`

	// Notice is a file to write at Term, before the signal; empty: none. At most
	// 4 KiB of text.
	Notice     string `json:"notice,omitempty"`
	NoticeText string `json:"notice_text,omitempty"`
}

// Entry is a deadline with what became of it. Moments are ms on the boot clock,
// 0 where it hasn't happened.
type Entry struct {
	Deadline
	Termed  int64 `json:"termed_ms,omitempty"`  // SIGTERM was sent, or there was no process to send it to
	Killed  int64 `json:"killed_ms,omitempty"`  // the first SIGKILL
	Emptied int64 `json:"emptied_ms,omitempty"` // since when no process of it is left, after Killed
	// Error is what went wrong last and isn't over; empty: nothing.
	Error string `json:"error,omitempty"`
}

// Status is what a guard says of itself.
type Status struct {
	Pid     int    `json:"pid"`
	BootID  string `json:"boot_id"`
	Since   int64  `json:"since_ms"` // when it started, ms on the boot clock
	Entries int    `json:"entries"`
	Protection
	Damaged   int    `json:"damaged,omitempty"`    // stored deadlines that can't be read, kept aside in its directory
	LastError string `json:"last_error,omitempty"` // the newest, be it over or not
}

// Protection is what shields a guard's process from the host's troubles.
type Protection struct {
	Locked bool   `json:"locked"`           // its memory is never swapped out
	OOM    bool   `json:"oom"`              // the kernel never ends it for want of memory
	Cgroup string `json:"cgroup,omitempty"` // of its own; empty: it shares its starter's
	// Lacks says what could not be had, and why.
	Lacks []string `json:"lacks,omitempty"`
}

// Bounds of what a guard takes. They keep its locked memory small.
const (
	maxEntries = 1024
	maxRun     = 128
	maxCgroups = 32
	maxPath    = 4096 // PATH_MAX of the kernel
	maxNotice  = 4 << 10
	maxLine    = 64 << 10 // one request
)

var runName = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// check says which rule a deadline breaks, as ErrInvalid.
func (d *Deadline) check() error {
	switch {
	case len(d.Run) > maxRun || !runName.MatchString(d.Run):
		return fmt.Errorf("%w: run %.200q: want 1 to %d of A-Z a-z 0-9 . _ -, and no dot first", ErrInvalid, d.Run, maxRun)
	case d.BootID == "":
		return fmt.Errorf("%w: run %s: no boot id", ErrInvalid, d.Run)
	case d.Kill <= 0 || d.Term < 0 || d.Term > d.Kill:
		return fmt.Errorf("%w: run %s: term %d, kill %d: want 0 ≤ term ≤ kill and 0 < kill", ErrInvalid, d.Run, d.Term, d.Kill)
	case d.Pid < 0 || d.Pid == 1:
		return fmt.Errorf("%w: run %s: pid %d is no container's", ErrInvalid, d.Run, d.Pid)
	case len(d.Cgroups) == 0 || len(d.Cgroups) > maxCgroups:
		return fmt.Errorf("%w: run %s: %d cgroups: want 1 to %d", ErrInvalid, d.Run, len(d.Cgroups), maxCgroups)
	case d.Notice != "" && !cleanPath(d.Notice):
		return fmt.Errorf("%w: run %s: notice %.200q: want an absolute path", ErrInvalid, d.Run, d.Notice)
	case len(d.NoticeText) > maxNotice:
		return fmt.Errorf("%w: run %s: a notice of %d bytes: at most %d", ErrInvalid, d.Run, len(d.NoticeText), maxNotice)
	}
	for _, dir := range d.Cgroups {
		if !cleanPath(dir) {
			return fmt.Errorf("%w: run %s: cgroup %.200q: want an absolute directory", ErrInvalid, d.Run, dir)
		}
	}
	return nil
}

func cleanPath(path string) bool {
	return len(path) < maxPath && filepath.IsAbs(path) && filepath.Clean(path) == path && path != "/" && !strings.ContainsRune(path, 0)
}
