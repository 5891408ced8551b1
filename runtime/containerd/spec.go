package containerd

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

const (
	cfsPeriod   = 100_000 // µs, the kernel's default
	minCFSQuota = 1_000   // µs, the least the kernel takes
	mib         = 1 << 20

	defaultPids     = 4096
	defaultShmMiB   = 64
	defaultLogBytes = 16 * mib
	oomScoreAdj     = 500
	hostnameMax     = 63
)

// capabilities are what images built for root need to install and drop to a
// user. Never NET_RAW or MKNOD.
var capabilities = []string{
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_NET_BIND_SERVICE", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

// validID is what containerd takes. (It allows no two signs in a row.)
var validID = regexp.MustCompile(`^[a-zA-Z0-9]+([._-][a-zA-Z0-9]+)*$`)

const idMax = 76

func validate(spec runtime.Spec) error {
	if len(spec.ID) > idMax || !validID.MatchString(spec.ID) {
		return fmt.Errorf("%w: container id %q: use letters and digits, single '-', '_' or '.' between them, at most 76", runtime.ErrInvalid, spec.ID)
	}
	for _, variable := range spec.Env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			return fmt.Errorf("%w: environment entry of container %s isn't KEY=value", runtime.ErrInvalid, spec.ID)
		}
	}
	for _, mount := range spec.Mounts {
		if !filepath.IsAbs(mount.Source) || !filepath.IsAbs(mount.Target) {
			return fmt.Errorf("%w: mount %q on %q: both must be absolute paths", runtime.ErrInvalid, mount.Source, mount.Target)
		}
		if place, ok := reserved(mount.Target); ok {
			return fmt.Errorf("%w: nothing can be mounted on %q: %s is the system's", runtime.ErrInvalid, mount.Target, place)
		}
	}
	for what, name := range map[string]string{"log path": spec.LogPath, "network namespace": spec.NetNS} {
		if name != "" && !filepath.IsAbs(name) {
			return fmt.Errorf("%w: %s %q must be absolute", runtime.ErrInvalid, what, name)
		}
	}
	return nil
}

// reserved says whether a mount there would hide what the kernel or berth has put
// into every container.
func reserved(target string) (place string, is bool) {
	target = path.Clean(target)
	if target == "/" {
		return target, true
	}
	for _, place := range []string{"/proc", "/sys", "/dev", path.Dir(runtime.HelperPath)} {
		if target == place || strings.HasPrefix(target, place+"/") {
			return place, true
		}
	}
	return "", false
}

// ociSpec renders what runc gets. Nothing of a user reaches devices, hooks,
// annotations or sysctls.
func (r *Runtime) ociSpec(ctx context.Context, spec runtime.Spec, image *imageDetails) (*specs.Spec, error) {
	ctx = namespaces.WithNamespace(ctx, r.cfg.Namespace)
	s, err := oci.GenerateSpec(ctx, nil, &containers.Container{ID: spec.ID}, oci.WithoutRunMount)
	if err != nil {
		return nil, fmt.Errorf("default spec: %w", err)
	}
	if err := r.setProcess(s, spec, image); err != nil {
		return nil, err
	}
	s.Hostname = spec.Hostname
	if s.Hostname == "" {
		s.Hostname = spec.ID[:min(len(spec.ID), hostnameMax)]
	}
	s.Linux.CgroupsPath = r.newCgroup(spec.ID)
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	for i, namespace := range s.Linux.Namespaces {
		if namespace.Type == specs.NetworkNamespace {
			s.Linux.Namespaces[i].Path = spec.NetNS
		}
	}
	r.setResources(s.Linux.Resources, spec.Limits)
	s.Mounts = append(setShm(s.Mounts, spec.Limits.ShmMiB), specs.Mount{
		Source: r.cfg.Helper, Destination: runtime.HelperPath, Type: "bind",
		Options: bindOptions(runtime.Mount{ReadOnly: true}),
	})
	for _, mount := range spec.Mounts {
		s.Mounts = append(s.Mounts, specs.Mount{
			Source: mount.Source, Destination: mount.Target, Type: "bind", Options: bindOptions(mount),
		})
	}
	if err := r.injectDevices(s, spec.Devices); err != nil {
		return nil, err
	}
	if hasDriver(s.Mounts) {
		s.Process.Env = findDriver(s.Process.Env)
	}
	// Last word on this variable: any other value asks the NVIDIA runtime, where
	// one is installed, to add devices behind our back.
	s.Process.Env = append(s.Process.Env, "NVIDIA_VISIBLE_DEVICES=void")
	s.Linux.Seccomp = seccomp.DefaultProfile(s)
	return s, nil
}

func (r *Runtime) setProcess(s *specs.Spec, spec runtime.Spec, image *imageDetails) error {
	args := spec.Args
	if len(args) == 0 {
		args = slices.Concat(image.config.Entrypoint, image.config.Cmd)
	}
	if len(args) == 0 {
		return fmt.Errorf("%w: image %s has no command, and the container names none", runtime.ErrInvalid, spec.Image)
	}
	p := s.Process
	p.Args = slices.Concat([]string{runtime.HelperPath, "init", "--"}, args)
	p.Env = environment(image, spec.Env)
	p.User = image.user
	p.Cwd = image.config.WorkingDir
	if spec.Dir != "" {
		p.Cwd = spec.Dir
	}
	if !path.IsAbs(p.Cwd) {
		p.Cwd = "/" + p.Cwd
	}
	p.NoNewPrivileges = true
	p.Capabilities = &specs.LinuxCapabilities{Bounding: capabilities, Effective: capabilities, Permitted: capabilities}
	p.Rlimits = r.rlimits.spec()
	score := oomScoreAdj
	p.OOMScoreAdj = &score
	return nil
}

// setResources keeps the deny-all device rule of the default spec.
func (r *Runtime) setResources(resources *specs.LinuxResources, limits runtime.Limits) {
	pids := cmp.Or(limits.Pids, defaultPids)
	resources.Pids = &specs.LinuxPids{Limit: &pids}
	if limits.CPUMilli > 0 {
		quota, period := max(limits.CPUMilli*cfsPeriod/1000, minCFSQuota), uint64(cfsPeriod)
		resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if limits.MemoryMiB > 0 {
		memory := limits.MemoryMiB * mib
		resources.Memory = &specs.LinuxMemory{Limit: &memory}
		if r.cgroups.limitsSwap() {
			swap := memory // of memory and swap together: no swap
			resources.Memory.Swap = &swap
		}
	}
}

func setShm(mounts []specs.Mount, sizeMiB int64) []specs.Mount {
	size := fmt.Sprintf("size=%dm", cmp.Or(sizeMiB, defaultShmMiB))
	for i, mount := range mounts {
		if mount.Destination != "/dev/shm" {
			continue
		}
		for j, option := range mount.Options {
			if strings.HasPrefix(option, "size=") {
				mounts[i].Options[j] = size
			}
		}
	}
	return mounts
}

// rlimits are what a container's processes may have at most.
type rlimits struct {
	nofileSoft, nofileHard uint64
	memlock                bool // unlimited
}

// hostRlimits: raising a hard limit needs CAP_SYS_RESOURCE, which nested hosts
// don't give; there the limits stay as they are.
func hostRlimits() (rlimits, error) {
	limits := rlimits{nofileSoft: 65_536, nofileHard: 1_048_576, memlock: true}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return rlimits{}, err
	}
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return limits, nil
	}
	var current unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &current); err != nil {
		return rlimits{}, err
	}
	limits.nofileHard = min(limits.nofileHard, current.Max)
	limits.nofileSoft = min(limits.nofileSoft, limits.nofileHard)
	limits.memlock = false
	return limits, nil
}

func (l rlimits) spec() []specs.POSIXRlimit {
	limits := []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: l.nofileSoft, Hard: l.nofileHard}}
	if l.memlock {
		limits = append(limits, specs.POSIXRlimit{Type: "RLIMIT_MEMLOCK", Soft: unix.RLIM_INFINITY, Hard: unix.RLIM_INFINITY})
	}
	return limits
}
