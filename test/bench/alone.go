package main

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"strconv"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	// aloneNamespace keeps the counterpart's containers out of berthd's sight.
	aloneNamespace = "bench"
	// aloneState is a folder that runc makes for a namespace and never removes.
	aloneState = "/run/containerd/runc/" + aloneNamespace
)

// alone makes containers as a program does that uses containerd's client and
// nothing of berth, on the same containerd, from the same image, with the spec
// that berth's own container has: limits, devices, seccomp profile, init and
// logger.
type alone struct {
	host        *host
	client      *containerd.Client
	helper      string
	snapshotter string
	spec        *specs.Spec
}

func (h *host) openAlone(ctx context.Context) (*alone, error) {
	helper, err := filepath.Abs("bin/berth-helper")
	if err != nil {
		return nil, err
	}
	c, err := containerd.New(h.containerd, containerd.WithDefaultNamespace(aloneNamespace))
	if err != nil {
		return nil, err
	}
	a := &alone{host: h, client: c, helper: helper}
	asNamed := containerd.WithImageRefTranslator(func(name string) string { return name })
	if _, err := c.Import(ctx, bytes.NewReader(h.archive), asNamed); err != nil {
		a.close()
		return nil, fmt.Errorf("import the image: %w", err)
	}
	return a, nil
}

func (a *alone) close() { _ = a.client.Close() }

// copySpec takes the spec of a container of berth's.
func (a *alone) copySpec(ctx context.Context, run string) error {
	ctx = namespaces.WithNamespace(ctx, "berth")
	container, err := a.client.LoadContainer(ctx, run)
	if err != nil {
		return err
	}
	info, err := container.Info(ctx, containerd.WithoutRefreshedMetadata)
	if err != nil {
		return err
	}
	if a.spec, err = container.Spec(ctx); err != nil {
		return err
	}
	a.snapshotter = info.Snapshotter
	image, err := a.client.GetImage(namespaces.WithNamespace(ctx, aloneNamespace), imageName)
	if err != nil {
		return err
	}
	return image.Unpack(namespaces.WithNamespace(ctx, aloneNamespace), a.snapshotter)
}

// start makes and starts a container, gives the time until its process began,
// and removes it.
func (a *alone) start(ctx context.Context, id string) (time.Duration, error) {
	log := filepath.Join(a.host.dir, id+".log")
	began := time.Now()
	image, err := a.client.GetImage(ctx, imageName)
	if err != nil {
		return 0, err
	}
	container, err := a.client.NewContainer(ctx, id,
		containerd.WithImage(image),
		containerd.WithSnapshotter(a.snapshotter),
		containerd.WithNewSnapshot(id, image),
		containerd.WithRuntime("io.containerd.runc.v2", nil),
		containerd.WithNewSpec(oci.WithImageConfig(image), a.sameSpec),
	)
	if err != nil {
		return 0, err
	}
	task, err := container.NewTask(ctx, cio.BinaryIO(a.helper, map[string]string{"log": strconv.Itoa(16<<20) + ":" + log}))
	if err != nil {
		return 0, err
	}
	ended, err := task.Wait(ctx)
	if err != nil {
		return 0, err
	}
	if err := task.Start(ctx); err != nil {
		return 0, err
	}
	process, err := a.host.processBegan(ctx, log)
	if err != nil {
		return 0, err
	}
	if err := task.Kill(ctx, unix.SIGKILL); err != nil {
		return 0, err
	}
	<-ended
	if _, err := task.Delete(ctx); err != nil {
		return 0, err
	}
	return process.Sub(began), container.Delete(ctx, containerd.WithSnapshotCleanup)
}

// sameSpec leaves nothing different but the cgroup.
func (a *alone) sameSpec(_ context.Context, _ oci.Client, c *containers.Container, s *oci.Spec) error {
	linux := *a.spec.Linux
	linux.CgroupsPath = path.Join(cgroupParent, c.ID)
	*s = *a.spec
	s.Linux = &linux
	return nil
}
