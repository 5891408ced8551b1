package containerd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

// killTimeout is how long a killed process may take to be gone.
const killTimeout = 10 * time.Second

// Exec implements runtime.Executor. A process that ends while one that it
// started keeps its output open is done once nothing more comes; the writes of
// the other fail a while later.
func (r *Runtime) Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.ExecStreams) (int, error) {
	if err := validateExec(spec); err != nil {
		return 0, err
	}
	record, err := r.running(ctx, id)
	if err != nil {
		return 0, err
	}
	process, err := execProcess(record.Spec.GetValue(), spec)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	if spec.Terminal && streams.Stdin == nil {
		streams.Stdin = strings.NewReader("")
	}
	dir, err := makeExecDir(r.cfg.ExecDir, id)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	e := &execution{r: r, dir: dir, cgroup: r.recordedCgroup(record)}
	if e.pipes, err = newPipes(dir.path, spec.Terminal, streams.Stdin != nil); err != nil {
		return 0, errors.Join(fmt.Errorf("exec in container %s: make its pipes: %w", id, err), dir.remove())
	}
	if err := e.start(ctx, process); err != nil {
		e.settle(ctx)
		return 0, err
	}
	code, err := e.run(ctx, streams)
	if e.pipes.held.Load() {
		// The shim waits a while for the end of output that something else holds
		// open. It needs a reader until then.
		r.background.Go(func() { e.settle(r.closing) })
	} else {
		e.settle(ctx)
	}
	return code, err
}

// running gives the record of a container whose process lives.
func (r *Runtime) running(ctx context.Context, id string) (containers.Container, error) {
	record, err := r.client.ContainerService().Get(ctx, id)
	if err != nil {
		return record, r.failed(err, "exec in container %s", id)
	}
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil && !errdefs.IsNotFound(native(err)) {
		return record, r.failed(err, "exec in container %s", id)
	}
	if response.GetProcess().GetStatus() != tasktypes.Status_RUNNING {
		return record, fmt.Errorf("exec in container %s: %w", id, runtime.ErrNotRunning)
	}
	return record, nil
}

// execution is one process in a container, besides its PID 1.
type execution struct {
	r      *Runtime
	dir    *execDir
	cgroup string
	pid    int // on the host; 0: not started
	pipes  *pipes
}

// start makes and starts the process. That goes on when the caller gives up: its
// outcome must be known.
func (e *execution) start(ctx context.Context, process *specs.Process) error {
	encoded, err := typeurl.MarshalAnyToProto(process)
	if err != nil {
		return fmt.Errorf("encode the process: %w", err)
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), taskTimeout)
	defer cancel()
	service := e.r.client.TaskService()
	if _, err := service.Exec(bounded, &tasks.ExecProcessRequest{
		ContainerID: e.dir.container, ExecID: e.dir.exec, Terminal: process.Terminal, Spec: encoded,
		Stdin: e.pipes.stdinPath, Stdout: e.pipes.stdoutPath, Stderr: e.pipes.stderrPath,
	}); err != nil {
		return e.failed(ctx, err)
	}
	response, err := service.Start(bounded, &tasks.StartRequest{ContainerID: e.dir.container, ExecID: e.dir.exec})
	if err != nil {
		return e.failed(ctx, err)
	}
	e.pid = int(response.Pid)
	e.pipes.opened()
	return nil
}

// failed tells a container that has ended and a command that can't be run from
// what is wrong with the host.
func (e *execution) failed(ctx context.Context, err error) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	if _, gone := e.r.running(bounded, e.dir.container); errors.Is(gone, runtime.ErrNotFound) || errors.Is(gone, runtime.ErrNotRunning) {
		return gone
	}
	if reason, ok := badCommand(err); ok {
		return fmt.Errorf("%w: cannot run the command: %s", runtime.ErrInvalid, reason)
	}
	return e.r.failed(err, "exec in container %s", e.dir.container)
}

// badCommand finds in runc's words that the command or its directory is at fault,
// and how.
func badCommand(err error) (reason string, ok bool) {
	text := err.Error()
	if !strings.Contains(text, "exec failed: ") {
		return "", false
	}
	for _, begin := range []string{"exec: ", "exec /", "exec ", "chdir to cwd "} {
		if _, rest, found := strings.Cut(text, "container process: "+begin); found {
			return begin + strings.TrimSuffix(rest, ": unknown"), true
		}
	}
	return "", false
}

// run serves the process until it has ended and its output is written.
func (e *execution) run(ctx context.Context, streams runtime.ExecStreams) (int, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil) // ends what serves the process
	drained := e.pipes.copyOutput(streams, fail)
	if streams.Stdin != nil {
		go e.feed(ctx, streams.Stdin, fail)
	}
	if streams.Resize != nil {
		go e.resize(ctx, streams.Resize)
	}
	code, err := e.wait(ctx)
	if err == nil {
		e.pipes.ended()
		select {
		case <-drained:
			// A writer that failed at the very end counts as well.
			if context.Cause(ctx) == nil {
				return code, nil
			}
		case <-ctx.Done():
		}
		err = fmt.Errorf("exec in container %s: %w", e.dir.container, context.Cause(ctx))
	}
	e.pipes.unwanted.Store(true)
	e.pipes.ended()
	<-drained
	return 0, err
}

// wait waits for the end of the process, which it brings about when ctx ends, or
// when containerd can't tell any more.
func (e *execution) wait(ctx context.Context) (int, error) {
	detached, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		response, err := e.r.client.TaskService().Wait(detached, &tasks.WaitRequest{ContainerID: e.dir.container, ExecID: e.dir.exec})
		ended <- end{int(response.GetExitStatus()), err}
	}()
	select {
	case end := <-ended:
		if end.err != nil {
			e.kill(detached)
			return 0, e.failed(ctx, end.err)
		}
		return end.code, nil
	case <-ctx.Done():
		e.kill(detached)
		select {
		case <-ended:
		case <-time.After(killTimeout):
		}
		return 0, fmt.Errorf("exec in container %s: %w", e.dir.container, context.Cause(ctx))
	}
}

// kill ends the process and all that is still in its session: runc makes it the
// leader of one. It needs no containerd.
func (e *execution) kill(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, killTimeout)
	defer cancel()
	for pause := time.Millisecond; ctx.Err() == nil; pause = min(2*pause, 50*time.Millisecond) {
		alive := false
		for _, pid := range e.r.cgroups.processes(e.cgroup) {
			if session, err := unix.Getsid(pid); err == nil && session == e.pid {
				alive = true
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		}
		if !alive {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// settle takes the ended process from containerd's books and removes what this
// host has of it. What can't be settled now is left to the next daemon, or is
// gone with the container.
func (e *execution) settle(ctx context.Context) {
	defer e.pipes.close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	defer context.AfterFunc(e.r.closing, cancel)()
	err := e.forget(ctx)
	if err == nil {
		if err = e.dir.remove(); err == nil {
			return
		}
	} else {
		e.dir.leave()
	}
	e.r.cfg.Log.Warn("what an exec has used stays until the next start", "container", e.dir.container, "error", err)
}

// forget waits until containerd has seen the end of the process and drops it
// from its books. No process is no error.
func (e *execution) forget(ctx context.Context) error {
	service := e.r.client.TaskService()
	for {
		_, err := service.DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: e.dir.container, ExecID: e.dir.exec})
		if err = native(err); err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if unreachable(err) || ctx.Err() != nil {
			return e.r.failed(err, "forget a process of container %s", e.dir.container)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (e *execution) resize(ctx context.Context, sizes <-chan runtime.TerminalSize) {
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-sizes:
			if !ok {
				return
			}
			// The process may have just ended.
			_, _ = e.r.client.TaskService().ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: e.dir.container, ExecID: e.dir.exec, Width: uint32(size.Columns), Height: uint32(size.Rows),
			})
		}
	}
}
