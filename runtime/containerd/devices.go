package containerd

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	cdispecs "tags.cncf.io/container-device-interface/specs-go"

	"berth/runtime"
)

const (
	deviceKind = "berth.dev/gpu"
	deviceFile = "berth-gpu.json"
)

// SetDevices implements runtime.Runtime: it replaces the one CDI spec in the
// private directory, atomically.
func (r *Runtime) SetDevices(_ context.Context, devices []runtime.Device) error {
	if err := r.writeDevices(devices); err != nil {
		return fmt.Errorf("write the device spec in %s: %w", r.cfg.CDIDir, err)
	}
	if err := r.devices.Refresh(); err != nil {
		return fmt.Errorf("read the device specs in %s; it must hold berth's own only: %w", r.cfg.CDIDir, err)
	}
	return nil
}

func (r *Runtime) writeDevices(devices []runtime.Device) error {
	if len(devices) == 0 { // a CDI spec can't be empty
		return r.devices.RemoveSpec(deviceFile)
	}
	spec := &cdispecs.Spec{Kind: deviceKind}
	for _, device := range devices {
		spec.Devices = append(spec.Devices, cdispecs.Device{Name: device.Name, ContainerEdits: edits(device)})
	}
	version, err := cdispecs.MinimumRequiredVersion(spec)
	if err != nil {
		return err
	}
	spec.Version = version
	return r.devices.WriteSpec(spec, deviceFile)
}

// edits gives every field of a device node, so that no node of that path has to
// exist on the host, and so that CDI fills in nothing at injection.
func edits(device runtime.Device) cdispecs.ContainerEdits {
	var e cdispecs.ContainerEdits
	for _, node := range device.Nodes {
		mode := os.FileMode(0o666)
		e.DeviceNodes = append(e.DeviceNodes, &cdispecs.DeviceNode{
			Path: node.Path, HostPath: node.Path,
			Type: "c", Major: node.Major, Minor: node.Minor,
			FileMode: &mode, Permissions: "rw",
		})
	}
	for _, mount := range device.Mounts {
		e.Mounts = append(e.Mounts, &cdispecs.Mount{
			HostPath: mount.Source, ContainerPath: mount.Target, Type: "bind", Options: bindOptions(mount),
		})
	}
	for _, name := range slices.Sorted(maps.Keys(device.Env)) {
		e.Env = append(e.Env, name+"="+device.Env[name])
	}
	return e
}

func (r *Runtime) injectDevices(spec *specs.Spec, names []string) error {
	if len(names) == 0 {
		return nil
	}
	qualified := make([]string, len(names))
	for i, name := range names {
		qualified[i] = deviceKind + "=" + name
	}
	if unknown, err := r.devices.InjectDevices(spec, qualified...); err != nil {
		if len(unknown) > 0 {
			return fmt.Errorf("%w: this host has no device %q", runtime.ErrInvalid, unknown)
		}
		return fmt.Errorf("inject devices: %w", err)
	}
	return nil
}

// bindOptions never lets a mount bring device nodes or set-uid programs in.
func bindOptions(m runtime.Mount) []string {
	options := []string{"rbind", "rprivate", "nosuid", "nodev"}
	if m.ReadOnly {
		return append(options, "ro")
	}
	return append(options, "rw")
}
