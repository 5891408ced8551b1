package containerd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"

	"berth/runtime"
)

const (
	runcRuntime = "io.containerd.runc.v2"

	// Bounds on what goes on after the caller has given up: making a task, whose
	// outcome must be known, and taking back what a failed Create made.
	taskTimeout    = time.Minute
	cleanupTimeout = 30 * time.Second

	// How long containerd may take to clean up after a dead shim.
	shimCleanupTimeout = 10 * time.Second
)

// Create implements runtime.Runtime. The container's record comes first: it
// claims the id, keeps the snapshot from containerd's garbage collector, and
// makes whatever a crash leaves visible to List and Delete. So no lease is
// needed, and a Create is four calls.
func (r *Runtime) Create(ctx context.Context, spec runtime.Spec) (runtime.Created, error) {
	if err := validate(spec); err != nil {
		return runtime.Created{}, err
	}
	r.images.RLock()
	defer r.images.RUnlock()
	image, details, err := r.image(ctx, spec.Image, spec.Digest)
	if err != nil {
		return runtime.Created{}, err
	}
	record, err := r.record(ctx, spec, details)
	if err != nil {
		return runtime.Created{}, err
	}
	if _, err := r.client.ContainerService().Create(ctx, record); err != nil {
		return runtime.Created{}, r.failed(err, "create container %s", spec.ID)
	}
	pid, err := r.createTask(ctx, spec, record, image, details)
	if err != nil {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		return runtime.Created{}, errors.Join(r.failed(err, "create container %s", spec.ID), r.purge(cleanup, record))
	}
	return runtime.Created{CgroupPath: r.recordedCgroup(record), Pid: int(pid)}, nil
}

func (r *Runtime) record(ctx context.Context, spec runtime.Spec, details *imageDetails) (containers.Container, error) {
	snapshotter, err := r.snapshotterName(ctx)
	if err != nil {
		return containers.Container{}, err
	}
	oci, err := r.ociSpec(ctx, spec, details)
	if err != nil {
		return containers.Container{}, err
	}
	encoded, err := typeurl.MarshalAny(oci)
	if err != nil {
		return containers.Container{}, fmt.Errorf("encode the spec of container %s: %w", spec.ID, err)
	}
	return containers.Container{
		ID:          spec.ID,
		Labels:      spec.Labels,
		Image:       spec.Image,
		Runtime:     containers.RuntimeInfo{Name: runcRuntime},
		Spec:        encoded,
		Snapshotter: snapshotter,
		SnapshotKey: spec.ID,
	}, nil
}

func (r *Runtime) createTask(ctx context.Context, spec runtime.Spec, record containers.Container, image images.Image, details *imageDetails) (uint32, error) {
	output, err := r.output(spec)
	if err != nil {
		return 0, err
	}
	snapshotter := r.client.SnapshotService(record.Snapshotter)
	mounts, err := r.onUnpacked(ctx, image, func() ([]mount.Mount, error) {
		return snapshotter.Prepare(ctx, record.SnapshotKey, details.parent)
	})
	if err != nil {
		return 0, err
	}
	request := &tasks.CreateTaskRequest{ContainerID: spec.ID, Stdout: output, Stderr: output}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), taskTimeout)
	defer cancel()
	response, err := r.client.TaskService().Create(bounded, request)
	if err != nil {
		return 0, err
	}
	// The caller may have gone meanwhile; then it must find nothing.
	return response.Pid, ctx.Err()
}

// output is the logger's address for the shim. The shim turns the query of the
// address into arguments, in any order, so there is one pair.
func (r *Runtime) output(spec runtime.Spec) (string, error) {
	if spec.LogPath == "" {
		return "", nil
	}
	if err := os.MkdirAll(filepath.Dir(spec.LogPath), 0o750); err != nil {
		return "", fmt.Errorf("make the directory of the log: %w", err)
	}
	limit := spec.Limits.LogBytes
	if limit <= 0 {
		limit = defaultLogBytes
	}
	target := strconv.FormatInt(limit, 10) + ":" + spec.LogPath
	logger := url.URL{Scheme: "binary", Path: r.cfg.Helper, RawQuery: url.Values{"log": {target}}.Encode()}
	return logger.String(), nil
}

// purge takes away all of a container, its record last, so that what can't be
// taken away stays visible. It kills what still runs.
func (r *Runtime) purge(ctx context.Context, record containers.Container) error {
	path := r.recordedCgroup(record)
	if err := r.cgroups.kill(ctx, path); err != nil {
		return err
	}
	if err := r.deleteTask(ctx, record.ID); err != nil {
		return r.failed(err, "delete the task of container %s", record.ID)
	}
	if record.SnapshotKey != "" {
		err := r.client.SnapshotService(record.Snapshotter).Remove(ctx, record.SnapshotKey)
		if err != nil && !errdefs.IsNotFound(native(err)) {
			return r.failed(err, "remove the snapshot of container %s", record.ID)
		}
	}
	if err := r.cgroups.remove(path); err != nil {
		return err
	}
	err := r.client.ContainerService().Delete(ctx, record.ID)
	if err != nil && !errdefs.IsNotFound(native(err)) {
		return r.failed(err, "delete container %s", record.ID)
	}
	r.forgetCgroup(record.ID)
	return nil
}

// deleteTask waits for containerd to see the end of a process that is already
// dead, then drops its task. No task is no error. While containerd is busy
// cleaning up after a shim that died it answers with all sorts of errors, so only
// one that lasts counts.
func (r *Runtime) deleteTask(ctx context.Context, id string) error {
	service := r.client.TaskService()
	for deadline := time.Now().Add(shimCleanupTimeout); ; {
		// An error of Wait says that there is no end to wait for.
		_, _ = service.Wait(ctx, &tasks.WaitRequest{ContainerID: id})
		_, err := service.Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
		if err = native(err); err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if unreachable(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
