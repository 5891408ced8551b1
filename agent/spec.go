package agent

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"berth/gpu"
	"berth/runtime"
	"berth/workspace"
)

// ClusterLabel is the label of a container that names its cluster.
const ClusterLabel = "dev.berth/cluster"

// Further labels of a container: all that a later agent needs to know it again.
const (
	labelRun         = "dev.berth/run"
	labelInstance    = "dev.berth/instance"
	labelWorkspace   = "dev.berth/workspace"
	labelIncarnation = "dev.berth/incarnation"
	labelIndex       = "dev.berth/index"
	labelVolume      = "dev.berth/volume"  // id, absent without one
	labelDevices     = "dev.berth/devices" // uuid or uuid=milli, separated by commas
)

// origin is where a container comes from, read from its labels.
type origin struct {
	cluster string
	epoch   gpu.Epoch // of the run's placement
	devices []workspace.Allotment

	instance, volume string
}

func labelsOf(cluster string, a *workspace.Assignment) map[string]string {
	devices := make([]string, len(a.Devices))
	for i, d := range a.Devices {
		devices[i] = d.UUID
		if d.Milli != gpu.MilliPerDevice {
			devices[i] += "=" + strconv.Itoa(d.Milli)
		}
	}
	labels := map[string]string{
		ClusterLabel:     cluster,
		labelRun:         a.Run,
		labelInstance:    a.Instance,
		labelWorkspace:   a.Workspace,
		labelIncarnation: strconv.FormatUint(a.Epoch.Incarnation, 10),
		labelIndex:       strconv.FormatUint(a.Epoch.Index, 10),
		labelDevices:     strings.Join(devices, ","),
	}
	if volume := volumeOf(a); volume != "" {
		labels[labelVolume] = volume
	}
	return labels
}

// volumeOf is the id of the volume that a run gets, empty when it gets none: its
// template names no place for one.
func volumeOf(a *workspace.Assignment) string {
	if a == nil || a.Volume == nil || a.Spec.VolumePath == "" {
		return ""
	}
	return a.Volume.ID
}

// originOf reads a container's labels. It fails for a container that no agent
// made; what could be read of it is given all the same.
func originOf(c *runtime.Container) (origin, error) {
	o := origin{cluster: c.Labels[ClusterLabel], instance: c.Labels[labelInstance], volume: c.Labels[labelVolume]}
	var failed error
	number := func(text string) uint64 {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			failed = fmt.Errorf("container %s: label %q: %w", c.ID, text, err)
		}
		return n
	}
	o.epoch.Incarnation = number(c.Labels[labelIncarnation])
	o.epoch.Index = number(c.Labels[labelIndex])
	for entry := range strings.SplitSeq(c.Labels[labelDevices], ",") {
		uuid, milli, shared := strings.Cut(entry, "=")
		if uuid == "" {
			continue
		}
		d := workspace.Allotment{UUID: uuid, Milli: gpu.MilliPerDevice}
		if shared {
			d.Milli = int(number(milli))
		}
		o.devices = append(o.devices, d)
	}
	if o.cluster == "" || c.Labels[labelRun] != c.ID {
		failed = fmt.Errorf("container %s has no labels of berth", c.ID)
	}
	return o, failed
}

func uuidsOf(devices []workspace.Allotment) []string {
	uuids := make([]string, len(devices))
	for i, d := range devices {
		uuids[i] = d.UUID
	}
	return uuids
}

// specOf is the container that an assignment asks for, made from the image
// stored here under reference, on what was prepared for it.
func specOf(cluster, reference, logPath string, a *workspace.Assignment, on *prepared) runtime.Spec {
	return runtime.Spec{
		ID:       a.Run,
		Image:    reference,
		Digest:   a.Spec.ImageDigest,
		Args:     a.Spec.Command,
		Env:      envOf(a, on),
		Hostname: a.Name,
		Labels:   labelsOf(cluster, a),
		Devices:  uuidsOf(a.Devices),
		Limits:   runtime.Limits{CPUMilli: a.Resources.CPUMilli, MemoryMiB: a.Resources.MemoryMiB},
		LogPath:  logPath,
		NetNS:    on.network.NetNS,
		Mounts:   mountsOf(a, on),
	}
}

// mountsOf are the volume, the files of the network and the notice.
func mountsOf(a *workspace.Assignment, on *prepared) []runtime.Mount {
	var mounts []runtime.Mount
	if on.volume != "" {
		mounts = append(mounts, runtime.Mount{Source: on.volume, Target: a.Spec.VolumePath})
	}
	for _, file := range []runtime.Mount{
		{Source: on.network.ResolvConf, Target: "/etc/resolv.conf", ReadOnly: true},
		{Source: on.network.Hosts, Target: "/etc/hosts", ReadOnly: true},
	} {
		if file.Source != "" {
			mounts = append(mounts, file)
		}
	}
	if on.notices != "" { // the directory: a file that is replaced isn't seen through a mount of its own
		mounts = append(mounts, runtime.Mount{Source: on.notices, Target: noticeDir, ReadOnly: true})
	}
	return mounts
}

// envOf is the assignment's environment with its secrets filled in. A name of
// ours wins over the user's, and no NVIDIA_* variable of the user's gets
// through: a runtime hook would take it for an order to inject devices. HOME is
// on the volume unless the template has another.
func envOf(a *workspace.Assignment, on *prepared) []string {
	env := map[string]string{}
	if on.volume != "" {
		env["HOME"] = a.Spec.VolumePath
	}
	for _, v := range a.Spec.Env {
		if !strings.HasPrefix(v.Name, "NVIDIA_") {
			env[v.Name] = fillSecrets(v.Value, a.Secrets)
		}
	}
	maps.Copy(env, map[string]string{
		"BERTH_WORKSPACE":        a.Workspace,
		"BERTH_INSTANCE":         a.Instance,
		"BERTH_INSTANCE_NAME":    a.Name,
		"BERTH_RUN":              a.Run,
		"BERTH_GPU_COUNT":        strconv.Itoa(len(a.Devices)),
		"BERTH_GPU_UUIDS":        strings.Join(uuidsOf(a.Devices), ","),
		"NVIDIA_VISIBLE_DEVICES": "void",
	})
	if on.results != "" {
		env["BERTH_RESULTS"] = path.Join(a.Spec.VolumePath, on.results)
	}
	if on.notices != "" {
		env["BERTH_NOTICE"] = path.Join(noticeDir, noticeName)
	}
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// fillSecrets puts secrets in place of their ${name}, in one pass: a secret's
// own text is never read as a reference. Other ${…} stay as they are.
func fillSecrets(text string, secrets map[string]workspace.Secret) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, after, closed := strings.Cut(rest, "}")
		secret, known := secrets[name]
		if !closed || !known {
			b.WriteString("${")
			text = rest
			continue
		}
		b.WriteString(secret.Reveal())
		text = after
	}
}
