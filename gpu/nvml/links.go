package nvml

import (
	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"berth/gpu"
)

// links says how every two whole devices reach each other.
func (s *server) links(devices []*device) (links []gpu.Link) {
	var whole []*device
	for _, d := range devices {
		if d.info.Parent == "" {
			whole = append(whole, d)
		}
	}
	if len(whole) < 2 {
		return nil
	}
	wires := make([]wiring, len(whole))
	for i, d := range whole {
		wires[i] = s.wiring(d)
	}
	for i, a := range whole {
		for j := i + 1; j < len(whole); j++ {
			b := whole[j]
			links = append(links, gpu.Link{
				A: min(a.info.UUID, b.info.UUID), B: max(a.info.UUID, b.info.UUID),
				NVLink: wires[i].to(wires[j], b.info.PCIBusID), PCIe: s.closeness(a, b),
			})
		}
	}
	return links
}

// wiring is where the NVLinks of a device lead.
type wiring struct {
	direct   map[string]int // to other devices, by PCI address
	switched int            // to NVSwitches, through which any other is reached
}

// to is the number of links to another device: through switches, as many as the
// weaker of the two has.
func (w wiring) to(other wiring, address string) int {
	return w.direct[address] + min(w.switched, other.switched)
}

func (s *server) wiring(d *device) wiring {
	w := wiring{direct: map[string]int{}}
	if !s.lib.has("nvmlDeviceGetNvLinkState") || !s.lib.has("nvmlDeviceGetNvLinkRemotePciInfo_v2", "nvmlDeviceGetNvLinkRemotePciInfo") {
		return w
	}
	for link := range nvml.NVLINK_MAX_LINKS {
		state, ret := d.GetNvLinkState(link)
		if ret != nvml.SUCCESS {
			break // there are no more
		}
		if state != nvml.FEATURE_ENABLED {
			continue
		}
		if s.lib.has("nvmlDeviceGetNvLinkRemoteDeviceType") {
			kind, ret := d.GetNvLinkRemoteDeviceType(link)
			if ret == nvml.SUCCESS && kind == nvml.NVLINK_DEVICE_TYPE_SWITCH {
				w.switched++
				continue
			}
		}
		if remote, ret := d.GetNvLinkRemotePciInfo(link); ret == nvml.SUCCESS {
			w.direct[pciAddress(remote)]++
		}
	}
	return w
}

func (s *server) closeness(a, b *device) gpu.PCIeLink {
	if !s.lib.has("nvmlDeviceGetTopologyCommonAncestor") {
		return gpu.LinkSystem
	}
	level, ret := a.GetTopologyCommonAncestor(b.Device)
	if ret != nvml.SUCCESS {
		return gpu.LinkSystem
	}
	switch level {
	case nvml.TOPOLOGY_INTERNAL:
		return gpu.LinkBoard
	case nvml.TOPOLOGY_SINGLE:
		return gpu.LinkSwitch
	case nvml.TOPOLOGY_MULTIPLE:
		return gpu.LinkMultiSwitch
	case nvml.TOPOLOGY_HOSTBRIDGE:
		return gpu.LinkHostBridge
	case nvml.TOPOLOGY_NODE:
		return gpu.LinkCPU
	default:
		return gpu.LinkSystem
	}
}
