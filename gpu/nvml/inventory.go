package nvml

import (
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"berth/gpu"
)

// inventory lists all devices, after starting the library anew when one was
// lost. Devices of the known ones that it doesn't find any more are lost.
func (s *server) inventory(known knownDevices) (inventoryReply, error) {
	if err := s.refresh(); err != nil {
		return inventoryReply{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	devices, notes, err := s.relist()
	if err != nil {
		return inventoryReply{}, err
	}
	reply := inventoryReply{
		Inventory: gpu.Inventory{Source: "nvml", DriverVersion: s.driverVersion(), CUDAVersion: s.cudaVersion(), Devices: []gpu.Info{}},
		Slices:    map[string]slice{},
	}
	for _, d := range devices {
		reply.Inventory.Devices = append(reply.Inventory.Devices, d.info)
		if d.info.Parent != "" {
			reply.Slices[d.info.UUID] = d.slice
		}
	}
	if lost := lostOf(known.Devices, devices); len(lost) > 0 {
		s.markStale()
		reply.Inventory.Devices = append(reply.Inventory.Devices, lost...)
	}
	if len(reply.Inventory.Devices) == 0 {
		notes = append(notes, "the NVIDIA driver lists no device")
	}
	reply.Inventory.Links = s.links(devices)
	var fileNotes []string
	reply.Files, fileNotes = discoverFiles(s.set.Root, reply.Inventory.DriverVersion)
	notes = append(notes, missingNodes(s.set.Root)...)
	reply.Inventory.Message = strings.Join(append(notes, fileNotes...), "; ")
	return reply, nil
}

// lostReason is why runs can't have a lost device.
const lostReason = "the driver has lost it: reboot this host, or reset it (stop berthd, then nvidia-smi -r -i INDEX)"

// lostOf gives those of the known devices that aren't listed any more, with
// their slices. A slice alone isn't lost: it was taken apart.
func lostOf(known []gpu.Info, devices []*device) (lost []gpu.Info) {
	listed, gone := map[string]bool{}, map[string]bool{}
	for _, d := range devices {
		listed[d.info.UUID] = true
	}
	for _, info := range known {
		if info.Parent == "" && !listed[info.UUID] || gone[info.Parent] {
			gone[info.UUID] = true
			info.Unusable = lostReason
			lost = append(lost, info)
		}
	}
	return lost
}

func (s *server) driverVersion() string {
	if !s.lib.has("nvmlSystemGetDriverVersion") {
		return ""
	}
	version, _ := s.lib.SystemGetDriverVersion()
	return version
}

func (s *server) cudaVersion() string {
	var version int
	var ret nvml.Return
	switch {
	case s.lib.has("nvmlSystemGetCudaDriverVersion_v2"):
		version, ret = s.lib.SystemGetCudaDriverVersion_v2()
	case s.lib.has("nvmlSystemGetCudaDriverVersion"):
		version, ret = s.lib.SystemGetCudaDriverVersion()
	default:
		return ""
	}
	if ret != nvml.SUCCESS {
		return ""
	}
	return fmt.Sprintf("%d.%d", version/1000, version%1000/10)
}
