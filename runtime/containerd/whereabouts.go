package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"

	"berth/runtime"
)

// answerTimeout is how long containerd is waited for where there is a way without
// it.
const answerTimeout = 2 * time.Second

// newCgroup is where a container that is made now gets its cgroup. One that
// exists may have been made under another parent: see recordedCgroup.
func (r *Runtime) newCgroup(id string) string { return path.Join(r.cfg.CgroupParent, id) }

// specCgroup is the cgroup that an OCI spec names. Empty when it names none, or
// one that isn't the container's alone: processes are killed by this path.
func specCgroup(spec []byte, id string) string {
	var s struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if json.Unmarshal(spec, &s) != nil {
		return ""
	}
	name := s.Linux.CgroupsPath
	if !path.IsAbs(name) || path.Clean(name) != name || path.Base(name) != id {
		return ""
	}
	return name
}

// recordedCgroup is the cgroup of a container that exists, and remembers it.
func (r *Runtime) recordedCgroup(record containers.Container) string {
	name := specCgroup(record.Spec.GetValue(), record.ID)
	if name == "" { // its maker crashed, or wasn't berth
		name = r.newCgroup(record.ID)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cgroupPaths[record.ID] = name
	return name
}

func (r *Runtime) forgetCgroup(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.cgroupPaths, id)
}

// cgroup finds a container's cgroup, without containerd if need be. Then a
// container that this Runtime never saw is taken to be where it would be made
// now, and if nothing is there, nobody can tell.
func (r *Runtime) cgroup(ctx context.Context, id string) (string, error) {
	r.mu.Lock()
	name := r.cgroupPaths[id]
	r.mu.Unlock()
	if name != "" {
		return name, nil
	}
	bounded, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	record, err := r.client.ContainerService().Get(bounded, id)
	if err == nil {
		return r.recordedCgroup(record), nil
	}
	name = r.newCgroup(id)
	if errdefs.IsNotFound(native(err)) || len(r.cgroups.dirs(name)) > 0 {
		return name, nil
	}
	return "", fmt.Errorf("containerd at %s doesn't answer, and container %s has no cgroup %s: it may have ended, or be in another; see that containerd runs: %w: %w",
		r.cfg.Address, id, name, runtime.ErrUnavailable, err)
}
