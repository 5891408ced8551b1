package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"berth/workspace"
)

// Where a container reads what is about to end it.
const (
	noticeDir  = "/run/berth"
	noticeName = "notice.json"
	// noticeMost bounds what the guard is given, in bytes (package guard).
	noticeMost = 4 << 10
)

// notice is the file that tells a container what ends soon, and why it ends.
type notice struct {
	Warnings []workspace.Warning `json:"warnings"`
	Stopping *stopping           `json:"stopping,omitempty"`
}

// stopping says that the container was asked to end (TERM).
type stopping struct {
	Reason  string    `json:"reason"`
	Message string    `json:"message"`
	KillAt  time.Time `json:"kill_at"` // to the second, of the wall clock
}

func (n notice) text() string {
	if n.Warnings == nil {
		n.Warnings = []workspace.Warning{}
	}
	text, err := json.Marshal(n)
	if err != nil {
		panic(fmt.Sprintf("agent: a notice can't be encoded: %v", err)) // a time out of all calendars
	}
	return string(text) + "\n"
}

// noticeOf is what the run's container can read while it isn't to stop.
func noticeOf(a *workspace.Assignment) string { return notice{Warnings: a.Warnings}.text() }

// noticeAtEnd is what the guard writes when it asks the container to end.
func (w *worker) noticeAtEnd(in *input, end bound) string {
	e := in.expiry()
	n := notice{Warnings: in.assignment.Warnings, Stopping: &stopping{Reason: e.Reason, Message: e.Message, KillAt: w.wallClock(ms(end.Kill))}}
	if text := n.text(); len(text) <= noticeMost {
		return text
	}
	n.Warnings = nil
	return n.text()
}

// wallClock is when the boot clock shows at.
func (w *worker) wallClock(at time.Duration) time.Time {
	return time.Now().Add(at - w.agent.cfg.Boottime()).UTC().Truncate(time.Second)
}

func (a *Agent) noticesDir() string { return filepath.Join(a.cfg.Dir, "notices") }

func (a *Agent) noticePath(run string) string {
	return filepath.Join(a.noticesDir(), filepath.Base(run), noticeName)
}

// putNotice writes the run's notice. A failure isn't worth more than a line in
// the log: the run goes on, or ends, without.
func (w *worker) putNotice(text string) {
	w.progress.noticed = text
	if err := replaceNotice(w.agent.noticePath(w.run), text); err != nil {
		w.agent.warn("a run's notice can't be written", err, "run", w.run)
	}
}

// replaceNotice writes a file, whole or not at all, that every user of a
// container may read: whoever mounted its directory sees the new one.
func replaceNotice(path, text string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- its parent is closed to all but root
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil { // #nosec G302 -- whatever the umask
		return err
	}
	file, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	err = errors.Join(err, file.Chmod(0o644), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
	return err
}

// dropNotice takes the run's notice away with its container.
func (a *Agent) dropNotice(run string) {
	if err := os.RemoveAll(filepath.Dir(a.noticePath(run))); err != nil {
		a.warn("a run's notice can't be removed; it will be tried again", err, "run", run)
	}
}

// sweepNotices removes those that a crash has left.
func (a *Agent) sweepNotices() {
	entries, err := os.ReadDir(a.noticesDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		a.warn("the notices of runs can't be listed", err)
	}
	for _, entry := range entries {
		if !a.looksAfter(entry.Name()) {
			a.dropNotice(entry.Name())
		}
	}
}
