package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/network"
	"berth/runtime/volume"
)

const (
	// aloneNamespace keeps the counterpart's containers out of berthd's sight.
	aloneNamespace = "bench"
	// aloneState is a folder that runc makes for a namespace and never removes.
	aloneState = "/run/containerd/runc/" + aloneNamespace

	aloneVolume = "bench"
	alonePort   = 33333 // beyond the range of berthd's
)

// alone makes containers as a program does that uses containerd's client and
// nothing of berth, on the same containerd, from the same image, with the spec
// that berth's own container has: limits, devices, seccomp profile, init and
// logger. The container gets a network with a published port and a volume of its
// own, made by the packages that the agent uses, both at once as there. So what
// differs is the time that berth itself takes.
type alone struct {
	host        *host
	client      *containerd.Client
	helper      string
	snapshotter string
	spec        *specs.Spec
	networks    *network.Networks
	volumes     *volume.Volumes
	port        runtime.PublishedPort
}

func (h *host) openAlone(ctx context.Context) (a *alone, err error) {
	a = &alone{host: h, port: runtime.PublishedPort{HostIP: "127.0.0.1", HostPort: alonePort, Container: containerPort}}
	if a.helper, err = filepath.Abs("bin/berth-helper"); err != nil {
		return nil, err
	}
	dir := filepath.Join(h.dir, "alone")
	a.networks, err = network.New(network.Config{
		Dir: filepath.Join(dir, "network"), RunDir: filepath.Join(dir, "run"),
		Bridge: "berthbench1", Subnet: "10.212.1.0/24", Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	if a.volumes, err = volume.New(volume.Config{Dir: filepath.Join(dir, "volumes")}); err != nil {
		return nil, err
	}
	h.alone = a // to be cleared from here on
	if a.client, err = containerd.New(h.containerd, containerd.WithDefaultNamespace(aloneNamespace)); err != nil {
		return nil, err
	}
	asNamed := containerd.WithImageRefTranslator(func(name string) string { return name })
	if _, err := a.client.Import(ctx, bytes.NewReader(h.archive), asNamed); err != nil {
		return nil, fmt.Errorf("import the image: %w", err)
	}
	return a, nil
}

// clear takes away what was made besides containers, which are gone.
func (a *alone) clear(ctx context.Context) error {
	if a.client != nil {
		_ = a.client.Close()
	}
	return errors.Join(a.volumes.Unmount(ctx, aloneVolume), a.volumes.Close(), a.networks.Clear(ctx))
}

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

// ground is what a container is made on.
type ground struct {
	network runtime.Attachment
	volume  string
}

// start makes and starts a container, gives the time until its process began,
// and removes it. A bare one has an empty network namespace and no volume.
func (a *alone) start(ctx context.Context, id string, bare bool) (time.Duration, error) {
	log := filepath.Join(a.host.dir, id+".log")
	began := time.Now()
	var on ground
	if !bare {
		var err error
		if on, err = a.prepare(ctx, id); err != nil {
			return 0, err
		}
	}
	process, err := a.run(ctx, id, log, on)
	if err != nil || bare {
		return process.Sub(began), err
	}
	if err := a.networks.Detach(ctx, id); err != nil {
		return 0, err
	}
	return process.Sub(began), a.volumes.Unmount(ctx, aloneVolume)
}

func (a *alone) prepare(ctx context.Context, id string) (on ground, err error) {
	var both errgroup.Group
	both.Go(func() (err error) {
		on.volume, err = a.volumes.Mount(ctx, runtime.VolumeSpec{ID: aloneVolume, SizeMiB: volumeMiB})
		return err
	})
	both.Go(func() (err error) {
		on.network, err = a.networks.Attach(ctx, runtime.NetworkSpec{ID: id, Hostname: "box", Ports: []runtime.PublishedPort{a.port}})
		return err
	})
	return on, both.Wait()
}

// run gives when the container's process began, after it is gone again.
func (a *alone) run(ctx context.Context, id, log string, on ground) (process time.Time, err error) {
	image, err := a.client.GetImage(ctx, imageName)
	if err != nil {
		return process, err
	}
	container, err := a.client.NewContainer(ctx, id,
		containerd.WithImage(image),
		containerd.WithSnapshotter(a.snapshotter),
		containerd.WithNewSnapshot(id, image),
		containerd.WithRuntime("io.containerd.runc.v2", nil),
		containerd.WithNewSpec(oci.WithImageConfig(image), a.sameSpec(on)),
	)
	if err != nil {
		return process, err
	}
	task, err := container.NewTask(ctx, cio.BinaryIO(a.helper, map[string]string{"log": strconv.Itoa(16<<20) + ":" + log}))
	if err != nil {
		return process, err
	}
	ended, err := task.Wait(ctx)
	if err != nil {
		return process, err
	}
	if err := task.Start(ctx); err != nil {
		return process, err
	}
	if process, err = a.host.processBegan(ctx, log); err != nil {
		return process, err
	}
	if err := task.Kill(ctx, unix.SIGKILL); err != nil {
		return process, err
	}
	<-ended
	if _, err := task.Delete(ctx); err != nil {
		return process, err
	}
	return process, container.Delete(ctx, containerd.WithSnapshotCleanup)
}

// sameSpec leaves nothing different but the cgroup, the network and the volume.
func (a *alone) sameSpec(on ground) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, c *containers.Container, s *oci.Spec) error {
		linux := *a.spec.Linux
		linux.CgroupsPath = path.Join(cgroupParent, c.ID)
		linux.Namespaces = slices.Clone(linux.Namespaces)
		for i, namespace := range linux.Namespaces {
			if namespace.Type == specs.NetworkNamespace {
				linux.Namespaces[i].Path = on.network.NetNS
			}
		}
		*s = *a.spec
		s.Linux, s.Mounts = &linux, nil
		own := map[string]string{volumePath: on.volume, "/etc/resolv.conf": on.network.ResolvConf, "/etc/hosts": on.network.Hosts}
		for _, mount := range a.spec.Mounts {
			source, ours := own[mount.Destination]
			if ours {
				mount.Source = source
			}
			if mount.Source != "" { // there is nothing to mount in a bare one
				s.Mounts = append(s.Mounts, mount)
			}
		}
		return nil
	}
}
