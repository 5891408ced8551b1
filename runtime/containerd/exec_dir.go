package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// execDir is the directory of the pipes of one process, there for as long as
// that is in containerd's books. Its name says which process it is, and its lock,
// which a death undoes, whether somebody still serves it.
type execDir struct {
	path            string
	container, exec string
	lock            *os.File
}

// sweepPause is between two attempts to end what an earlier daemon left.
const sweepPause = time.Second

func makeExecDir(parent, container string) (*execDir, error) {
	unlock, err := lockParent(parent)
	if err != nil {
		return nil, err
	}
	defer unlock()
	d := &execDir{container: container, exec: uuid.NewString()}
	d.path = filepath.Join(parent, container+"-"+d.exec)
	if err := os.Mkdir(d.path, 0o700); err != nil {
		return nil, err
	}
	if err := d.take(); err != nil {
		return nil, errors.Join(err, os.Remove(d.path))
	}
	return d, nil
}

// lockParent keeps directories that were made and aren't locked yet from being
// taken for abandoned ones.
func lockParent(parent string) (unlock func(), err error) {
	file, err := os.Open(parent)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, &os.PathError{Op: "lock", Path: parent, Err: err}
	}
	return func() { file.Close() }, nil
}

// take locks the directory; unix.EWOULDBLOCK when somebody serves it.
func (d *execDir) take() error {
	file, err := os.Open(d.path)
	if err != nil {
		return err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return &os.PathError{Op: "lock", Path: d.path, Err: err}
	}
	d.lock = file
	return nil
}

// leave gives the directory to the next daemon.
func (d *execDir) leave() { d.lock.Close() }

func (d *execDir) remove() error {
	defer d.lock.Close()
	return os.RemoveAll(d.path)
}

// abandonedExecs makes the private directory, and gives those that nobody serves
// any more, locked.
func abandonedExecs(parent string) ([]*execDir, error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	unlock, err := lockParent(parent)
	if err != nil {
		return nil, err
	}
	defer unlock()
	entries, err := os.ReadDir(parent)
	if err != nil {
		return nil, err
	}
	var left []*execDir
	for _, entry := range entries {
		d, ok := parseExecDir(parent, entry.Name())
		if !ok {
			continue
		}
		switch err := d.take(); {
		case err == nil:
			left = append(left, d)
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, os.ErrNotExist):
			return nil, err
		}
	}
	return left, nil
}

func parseExecDir(parent, name string) (d *execDir, ok bool) {
	at := len(name) - len(uuid.Nil.String())
	if at < 2 || name[at-1] != '-' || !validID.MatchString(name[:at-1]) || uuid.Validate(name[at:]) != nil {
		return nil, false
	}
	return &execDir{path: filepath.Join(parent, name), container: name[:at-1], exec: name[at:]}, true
}

// sweep ends the processes that a daemon started and, being killed, has left:
// nobody reads their output. It goes on until containerd has answered, or Close.
func (r *Runtime) sweep(ctx context.Context, left []*execDir) {
	for _, d := range left {
		for {
			err := r.endAbandoned(ctx, d)
			if err == nil {
				err = d.remove()
			}
			if err == nil {
				break
			}
			r.cfg.Log.Debug("a process of an earlier daemon is still there", "container", d.container, "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(sweepPause):
				continue
			}
			d.leave()
			break
		}
	}
}

func (r *Runtime) endAbandoned(ctx context.Context, d *execDir) error {
	path, err := r.cgroup(ctx, d.container)
	if err != nil {
		return err
	}
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: d.container, ExecID: d.exec})
	if errdefs.IsNotFound(native(err)) {
		return nil
	}
	if err != nil {
		return r.failed(err, "exec in container %s", d.container)
	}
	// The shim may hang in a full pipe; then it waits for a reader.
	for _, name := range []string{stdoutName, stderrName} {
		if output, err := os.OpenFile(filepath.Join(d.path, name), os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
			defer output.Close()
			go discard(output)
		}
	}
	e := &execution{r: r, dir: d, cgroup: path, pid: int(response.GetProcess().GetPid())}
	e.kill(ctx)
	if err := e.forget(ctx); err != nil {
		return fmt.Errorf("container %s: %w", d.container, err)
	}
	return nil
}
