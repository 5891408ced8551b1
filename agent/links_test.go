package agent

import (
	"context"
	"net"

	"berth/gpu"
	"berth/runtime"
)

// hostVolumes is a daemon's way to the host's volumes. It notes what must never
// be done.
type hostVolumes struct {
	runtime.Volumes
	host   *host
	daemon *daemon
}

func (v *hostVolumes) alive() error {
	if v.daemon.dead.Load() {
		return errDead
	}
	return nil
}

func (v *hostVolumes) Mount(ctx context.Context, spec runtime.VolumeSpec) (string, error) {
	if err := v.alive(); err != nil {
		return "", err
	}
	return v.Volumes.Mount(ctx, spec)
}

func (v *hostVolumes) Unmount(ctx context.Context, id string) error {
	if err := v.alive(); err != nil {
		return err
	}
	v.mustBeFree("unmounted", id)
	return v.Volumes.Unmount(ctx, id)
}

func (v *hostVolumes) Remove(ctx context.Context, id string) error {
	if err := v.alive(); err != nil {
		return err
	}
	v.mustBeFree("removed", id)
	if !v.host.cluster.ordered(id) {
		v.host.cluster.violate("volume %s was removed without an order", id)
	}
	return v.Volumes.Remove(ctx, id)
}

// mustBeFree: no container has the volume.
func (v *hostVolumes) mustBeFree(done, id string) {
	list, err := v.host.List(context.Background())
	if err != nil {
		v.host.cluster.violate("list: %v", err)
	}
	for _, c := range list {
		if c.Labels[labelVolume] == id {
			v.host.cluster.violate("volume %s was %s under container %s", id, done, c.ID)
		}
	}
}

// hostNetworks is a daemon's way to the host's networks.
type hostNetworks struct {
	runtime.Networks
	host   *host
	daemon *daemon
}

func (n *hostNetworks) alive() error {
	if n.daemon.dead.Load() {
		return errDead
	}
	return nil
}

func (n *hostNetworks) Attach(ctx context.Context, spec runtime.NetworkSpec) (runtime.Attachment, error) {
	if err := n.alive(); err != nil {
		return runtime.Attachment{}, err
	}
	return n.Networks.Attach(ctx, spec)
}

func (n *hostNetworks) Detach(ctx context.Context, id string) error {
	if err := n.alive(); err != nil {
		return err
	}
	if n.host.cluster.container(id) {
		n.host.cluster.violate("network %s was detached from a container", id)
	}
	return n.Networks.Detach(ctx, id)
}

func (n *hostNetworks) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	if err := n.alive(); err != nil {
		return nil, err
	}
	return n.Networks.Dial(ctx, id, port)
}

// left lists attachments and mounted volumes.
func (h *host) left() []string {
	var list []string
	attached, err := h.networks.List(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, id := range attached {
		list = append(list, "network "+id)
	}
	volumes, err := h.volumes.List(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, v := range volumes {
		if v.Mounted {
			list = append(list, "volume "+v.ID)
		}
	}
	return list
}

func processOn(device string, pid int) gpu.Process { return gpu.Process{UUID: device, PID: pid} }

// cgroups says where a process of the host is; one with no cgroup is gone.
func (h *host) cgroups(pid int, cgroup string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.processes == nil {
		h.processes = map[int]Process{}
	}
	h.processes[pid] = Process{Command: "python", Cgroup: "1:name=systemd:" + cgroup}
	if cgroup == "" {
		delete(h.processes, pid)
	}
}

func (h *host) processOf(pid int) (Process, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p, ok := h.processes[pid]
	return p, ok
}
