package containerd

import (
	"context"
	"fmt"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"

	"berth/runtime"
)

// startedLabel is put on a container when it is started. It tells a container
// whose task is gone, because it ended while containerd was down or the host was
// switched off, from one that never ran.
const startedLabel = "berth.dev/started"

// Start implements runtime.Runtime.
func (r *Runtime) Start(ctx context.Context, id string) (runtime.Process, error) {
	response, err := r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id})
	if err != nil {
		return runtime.Process{}, r.failed(err, "start container %s", id)
	}
	process := runtime.Process{Pid: int(response.Pid), StartedAt: time.Now().UTC()}
	marked := containers.Container{ID: id, Labels: map[string]string{startedLabel: process.StartedAt.Format(time.RFC3339Nano)}}
	if _, err := r.client.ContainerService().Update(ctx, marked, "labels."+startedLabel); err != nil {
		r.cfg.Log.Warn("container started, but not marked so", "container", id, "error", err)
	}
	return process, nil
}

// Signal implements runtime.Runtime.
func (r *Runtime) Signal(ctx context.Context, id string, signal int) error {
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: uint32(signal)})
	if err == nil {
		return nil
	}
	if errdefs.IsNotFound(native(err)) { // no container, no task, or an ended process
		if _, err := r.client.ContainerService().Get(ctx, id); err != nil {
			return r.failed(err, "signal container %s", id)
		}
		return fmt.Errorf("signal container %s: %w", id, runtime.ErrNotRunning)
	}
	return r.failed(err, "signal container %s", id)
}

// Kill implements runtime.Runtime. It needs no containerd for a container that
// this Runtime has made or seen.
func (r *Runtime) Kill(ctx context.Context, id string) error {
	if !validID.MatchString(id) {
		return fmt.Errorf("%w: container id %q", runtime.ErrInvalid, id)
	}
	path, err := r.cgroup(ctx, id)
	if err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	return r.cgroups.kill(ctx, path)
}

// Wait implements runtime.Runtime. It gives runtime.ErrUnavailable when
// containerd goes away meanwhile; the container may go on.
func (r *Runtime) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	response, err := r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err == nil {
		path, lost := r.cgroup(ctx, id)
		return runtime.Exit{
			Known: true,
			Code:  int(response.ExitStatus),
			OOM:   lost == nil && r.cgroups.oomKills(path) > 0,
			At:    response.ExitedAt.AsTime(),
		}, nil
	}
	if unreachable(native(err)) || ctx.Err() != nil {
		return runtime.Exit{}, r.failed(err, "wait for container %s", id)
	}
	// Nothing to wait for: its task, or the shim that knew its end, is gone.
	c, gone := r.Inspect(ctx, id)
	if gone != nil {
		return runtime.Exit{}, gone
	}
	if c.State == runtime.StateRunning {
		return runtime.Exit{}, r.failed(err, "wait for container %s", id)
	}
	return c.Exit, nil
}

// OOMs is how many processes of the container the kernel has killed so far for
// want of memory, also while its PID 1 goes on. It reads one file. ErrNotFound
// when there is no such container.
func (r *Runtime) OOMs(ctx context.Context, id string) (uint64, error) {
	path, err := r.cgroup(ctx, id)
	if err != nil {
		return 0, fmt.Errorf("out-of-memory kills of container %s: %w", id, err)
	}
	if len(r.cgroups.dirs(path)) == 0 {
		return 0, fmt.Errorf("out-of-memory kills of container %s: it has no cgroup: %w", id, runtime.ErrNotFound)
	}
	return r.cgroups.oomKills(path), nil
}

// Delete implements runtime.Runtime.
func (r *Runtime) Delete(ctx context.Context, id string) error {
	record, err := r.client.ContainerService().Get(ctx, id)
	if err != nil {
		if errdefs.IsNotFound(native(err)) {
			return nil
		}
		return r.failed(err, "delete container %s", id)
	}
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil && !errdefs.IsNotFound(native(err)) {
		return r.failed(err, "delete container %s", id)
	}
	// containerd may not have seen yet that the last process is dead.
	c := r.state(record, response.GetProcess())
	if c.State == runtime.StateRunning && len(r.cgroups.processes(c.CgroupPath)) > 0 {
		return fmt.Errorf("delete container %s: it runs; stop it first: %w", id, runtime.ErrInUse)
	}
	return r.purge(ctx, record)
}

// Inspect implements runtime.Runtime.
func (r *Runtime) Inspect(ctx context.Context, id string) (runtime.Container, error) {
	record, err := r.client.ContainerService().Get(ctx, id)
	if err != nil {
		return runtime.Container{}, r.failed(err, "container %s", id)
	}
	response, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if err != nil && !errdefs.IsNotFound(native(err)) {
		return runtime.Container{}, r.failed(err, "container %s", id)
	}
	return r.state(record, response.GetProcess()), nil
}

// List implements runtime.Runtime.
func (r *Runtime) List(ctx context.Context) ([]runtime.Container, error) {
	// Tasks second: a container without a task is then one whose task has gone,
	// not one that was just made.
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return nil, r.failed(err, "list containers")
	}
	response, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, r.failed(err, "list tasks")
	}
	processes := make(map[string]*tasktypes.Process, len(response.Tasks))
	for _, process := range response.Tasks {
		processes[process.ID] = process
	}
	list := make([]runtime.Container, len(records))
	for i, record := range records {
		list[i] = r.state(record, processes[record.ID])
	}
	return list, nil
}

// state joins what containerd has recorded with what its task says, nil when
// there is none. Where containerd doesn't know, the cgroup decides: a container
// with live processes is never called ended.
func (r *Runtime) state(record containers.Container, process *tasktypes.Process) runtime.Container {
	path := r.recordedCgroup(record)
	c := runtime.Container{
		ID:         record.ID,
		Image:      record.Image,
		Labels:     map[string]string{},
		CgroupPath: path,
		CreatedAt:  record.CreatedAt,
		StartedAt:  startedAt(record.Labels[startedLabel]),
	}
	for key, value := range record.Labels {
		if key != startedLabel {
			c.Labels[key] = value
		}
	}
	switch process.GetStatus() {
	case tasktypes.Status_CREATED:
		c.State, c.Pid = runtime.StateCreated, int(process.Pid)
	case tasktypes.Status_RUNNING, tasktypes.Status_PAUSED, tasktypes.Status_PAUSING:
		c.State, c.Pid = runtime.StateRunning, int(process.Pid)
	case tasktypes.Status_STOPPED:
		c.State = runtime.StateExited
		c.Exit = runtime.Exit{
			Known: true, Code: int(process.ExitStatus), At: process.ExitedAt.AsTime(), OOM: r.cgroups.oomKills(path) > 0,
		}
	default:
		switch _, started := record.Labels[startedLabel]; {
		case started && len(r.cgroups.processes(path)) > 0:
			c.State = runtime.StateRunning
		case started:
			c.State = runtime.StateExited
		default:
			c.State = runtime.StateCreated
		}
	}
	return c
}

// startedAt reads a startedLabel, zero when there is none. One of whole seconds
// was cut by an earlier version: the process started no later than the next.
func startedAt(label string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, label)
	switch {
	case err != nil:
		return time.Time{}
	case at.Nanosecond() == 0:
		return at.Add(time.Second)
	}
	return at
}
