package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// How a log is followed.
const (
	logEvery   = 100 * time.Millisecond // between looks at the file
	logLinger  = 300 * time.Millisecond // the last lines may come after the process's end
	logChunk   = 32 << 10
	olderLog   = ".1" // added to a log's name: the one before it
	tailWindow = 64 << 10
)

// Logs writes a run's output to w: what is kept of it, or the last spec.Tail
// lines, and with Follow what comes until the run's container has ended.
func (a *Agent) Logs(ctx context.Context, run string, spec workspace.LogSpec, w io.Writer) error {
	if a.unknownRun(run) {
		return workspace.Errorf(workspace.CodeNotFound,
			"node %s has no output of run %s: it has never run there, or its output was removed some days after its end", a.cfg.Facts.Name, run)
	}
	l := &logReader{path: a.LogPath(run), w: w}
	defer l.close()
	if err := l.kept(spec.Tail); err != nil {
		return a.logError(ctx, run, err)
	}
	if !spec.Follow {
		return nil
	}
	for quiet := time.Duration(0); ; {
		ended := a.hasEnded(run) // before the read: what was written until then is read
		n, err := l.more()
		if err != nil || ctx.Err() != nil {
			return a.logError(ctx, run, errors.Join(err, ctx.Err()))
		}
		if quiet += logEvery; n > 0 || !ended {
			quiet = 0
		}
		if quiet > logLinger {
			return nil
		}
		sleep(ctx, logEvery, nil)
	}
}

func (a *Agent) logError(ctx context.Context, run string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return workspace.Errorf(workspace.CodeInternal, "the output of run %s can't be passed on from node %s: %v", run, a.cfg.Facts.Name, err)
}

// unknownRun: neither run nor output is here.
func (a *Agent) unknownRun(run string) bool {
	if a.looksAfter(run) {
		return false
	}
	for _, name := range []string{a.LogPath(run), a.LogPath(run) + olderLog} {
		if _, err := os.Stat(name); err == nil {
			return false
		}
	}
	return true
}

// hasEnded: the run's container will write nothing more.
func (a *Agent) hasEnded(run string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	assignment, w, known := a.assignments[run], a.workers[run], a.containers[run]
	if w != nil {
		known = w.known
	}
	if known == "" || known == runtime.StateExited {
		return assignment == nil || assignment.Phase.Terminal() || w == nil || w.ranOnce
	}
	return false
}

// logReader reads a log that another process writes, and now and then moves
// aside to begin a new one.
type logReader struct {
	path string
	w    io.Writer
	file *os.File // nil: there is none yet
}

func (l *logReader) close() {
	if l.file != nil {
		l.file.Close()
	}
}

// kept writes the older log and the present one, or their last lines: a negative
// number is all.
func (l *logReader) kept(lines int) error {
	if err := l.open(); err != nil {
		return err
	}
	older, err := os.Open(l.path + olderLog)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if older != nil {
		defer older.Close()
	}
	fromNew, missing, err := tailStart(l.file, lines)
	if err != nil {
		return err
	}
	if older != nil && missing != 0 {
		fromOld, _, err := tailStart(older, missing)
		if err != nil {
			return err
		}
		if _, err := older.Seek(fromOld, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.Copy(l.w, older); err != nil {
			return err
		}
	}
	if l.file == nil {
		return nil
	}
	if _, err := l.file.Seek(fromNew, io.SeekStart); err != nil {
		return err
	}
	_, err = io.Copy(l.w, l.file)
	return err
}

// more writes what came since, from as many files as there are by now.
func (l *logReader) more() (written int64, err error) {
	for {
		if l.file == nil {
			if err := l.open(); err != nil || l.file == nil {
				return written, err
			}
		}
		moved, err := l.moved() // before the read: nothing is written to it afterwards
		if err != nil {
			return written, err
		}
		n, err := io.Copy(l.w, l.file)
		written += n
		if err != nil || !moved {
			return written, err
		}
		l.file.Close()
		l.file = nil
	}
}

// moved: the open file isn't the one of that name any more. One that was cut off
// is read from its beginning.
func (l *logReader) moved() (bool, error) {
	ours, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	at, err := l.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return false, err
	}
	if ours.Size() < at {
		if _, err := l.file.Seek(0, io.SeekStart); err != nil {
			return false, err
		}
	}
	named, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // the new one isn't there yet, or the log was removed
	}
	return err == nil && !os.SameFile(ours, named), err
}

func (l *logReader) open() error {
	file, err := os.Open(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	l.file = file
	return nil
}

// tailStart is where the last lines of a file begin, and how many lines it has
// too few; a negative number asks for all of any file.
func tailStart(file *os.File, lines int) (start int64, missing int, err error) {
	if file == nil || lines < 0 {
		return 0, lines, nil
	}
	info, err := file.Stat()
	if err != nil {
		return 0, 0, err
	}
	end := info.Size()
	if lines == 0 {
		return end, 0, nil
	}
	buffer := make([]byte, tailWindow)
	last := true // the line end at the very end begins no line
	for at := end; at > 0; {
		size := min(at, tailWindow)
		at -= size
		part := buffer[:size]
		if _, err := file.ReadAt(part, at); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		for i := len(part); i > 0; {
			i = bytes.LastIndexByte(part[:i], '\n')
			if i < 0 {
				break
			}
			if last && at+int64(i) == end-1 {
				last = false
				continue
			}
			if lines--; lines == 0 {
				return at + int64(i) + 1, 0, nil
			}
		}
	}
	if end > 0 {
		lines--
	}
	return 0, lines, nil
}
