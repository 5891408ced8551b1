package nvml

import (
	"fmt"
	"regexp"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"berth/gpu"
)

// slicesOf lists the MIG slices of a device, and says on the device why it can't
// be used as a whole then. A driver without MIG has none.
func (s *server) slicesOf(d *device) (found []*device) {
	if !s.lib.has("nvmlDeviceGetMigMode") {
		return nil
	}
	current, pending, ret := d.GetMigMode()
	if ret != nvml.SUCCESS {
		return nil
	}
	if current != pending {
		d.info.Unusable = "its MIG mode changes with its next reset; reset it, or reboot this host"
	}
	if current != nvml.DEVICE_MIG_ENABLE {
		return nil
	}
	d.split = true
	if s.lib.has("nvmlDeviceGetMaxMigDeviceCount") && s.lib.has("nvmlDeviceGetMigDeviceHandleByIndex") {
		count, _ := d.GetMaxMigDeviceCount()
		for i := range count {
			handle, ret := d.GetMigDeviceHandleByIndex(i)
			if ret != nvml.SUCCESS {
				continue // this place is empty
			}
			if slice, ok := s.identifySlice(d, handle, i); ok {
				found = append(found, slice)
			}
		}
	}
	switch {
	case d.info.Unusable != "":
	case len(found) > 0: // CUDA sees nothing of it but slices
		d.info.Unusable = "MIG is enabled: its slices are offered in its place"
	default:
		d.info.Unusable = fmt.Sprintf("MIG is enabled and has no instance: create some (nvidia-smi mig -i %d -cgi … -C), or disable it (nvidia-smi -i %d -mig 0)",
			d.info.Index, d.info.Index)
	}
	return found
}

func (s *server) identifySlice(parent *device, handle nvml.Device, index int) (*device, bool) {
	info := parent.info
	info.Index, info.Parent, info.Unusable = index, parent.info.UUID, ""
	var ret nvml.Return
	if info.UUID, ret = handle.GetUUID(); ret != nvml.SUCCESS {
		return nil, false
	}
	memory, ret := handle.GetMemoryInfo()
	if ret != nvml.SUCCESS {
		return nil, false
	}
	info.MemoryMiB = int64(memory.Total / mib) // #nosec G115 -- bytes of a memory
	if info.Profile = s.profile(handle); info.Profile == "" {
		return nil, false
	}
	info.Model = parent.info.Model + " MIG " + info.Profile
	info.Type = gpu.TypeName(info.Model)
	d := &device{Device: handle, info: info}
	if s.lib.has("nvmlDeviceGetGpuInstanceId") && s.lib.has("nvmlDeviceGetComputeInstanceId") {
		d.slice.GPUInstance, _ = handle.GetGpuInstanceId()
		d.slice.ComputeInstance, _ = handle.GetComputeInstanceId()
	}
	return d, true
}

// sliceName ends a slice's name: "NVIDIA A100-SXM4-80GB MIG 3g.40gb".
var sliceName = regexp.MustCompile(`(?i)\bMIG ([0-9a-z.+]+)$`)

// profile of a slice, such as "3g.40gb": from its name, else from its parts.
func (s *server) profile(handle nvml.Device) string {
	if name, ret := handle.GetName(); ret == nvml.SUCCESS {
		if found := sliceName.FindStringSubmatch(name); found != nil {
			return found[1]
		}
	}
	if !s.lib.has("nvmlDeviceGetAttributes_v2", "nvmlDeviceGetAttributes") {
		return ""
	}
	a, ret := handle.GetAttributes()
	if ret != nvml.SUCCESS {
		return ""
	}
	profile := fmt.Sprintf("%dg.%dgb", a.GpuInstanceSliceCount, (a.MemorySizeMB+1023)/1024)
	if a.ComputeInstanceSliceCount != a.GpuInstanceSliceCount {
		profile = fmt.Sprintf("%dc.%s", a.ComputeInstanceSliceCount, profile)
	}
	return profile
}
