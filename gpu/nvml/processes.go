package nvml

import (
	"math"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"berth/gpu"
)

// processes lists who computes or draws on a device. Of a divided device only
// its slices are asked.
func (s *server) processes() ([]gpu.Process, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	devices, err := s.list()
	if err != nil {
		return nil, err
	}
	processes := []gpu.Process{}
	for _, d := range devices {
		if d.split {
			continue
		}
		seen := map[uint32]int{}
		for _, p := range s.processesOf(d) {
			i, ok := seen[p.Pid]
			if !ok {
				i = len(processes)
				seen[p.Pid] = i
				processes = append(processes, gpu.Process{UUID: d.info.UUID, PID: int(p.Pid)})
			}
			processes[i].UsedMiB = max(processes[i].UsedMiB, usedMiB(p.UsedGpuMemory))
		}
	}
	return processes, nil
}

func (s *server) processesOf(d *device) (found []nvml.ProcessInfo) {
	for _, kind := range []struct {
		symbol string
		read   func() ([]nvml.ProcessInfo, nvml.Return)
	}{
		{"nvmlDeviceGetComputeRunningProcesses", d.GetComputeRunningProcesses},
		{"nvmlDeviceGetGraphicsRunningProcesses", d.GetGraphicsRunningProcesses},
		{"nvmlDeviceGetMPSComputeRunningProcesses", d.GetMPSComputeRunningProcesses},
	} {
		if !s.lib.has(kind.symbol+"_v3", kind.symbol+"_v2", kind.symbol) {
			continue
		}
		if list, ret := kind.read(); ret == nvml.SUCCESS {
			found = append(found, list...)
		}
	}
	return found
}

func usedMiB(bytes uint64) int64 {
	if bytes == math.MaxUint64 { // the library doesn't know
		return 0
	}
	return int64(bytes / mib) // #nosec G115 -- bytes of a memory
}
