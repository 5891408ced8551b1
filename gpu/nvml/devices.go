package nvml

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"berth/gpu"
)

// device is a device that the library knows, or a slice of one.
type device struct {
	nvml.Device
	info  gpu.Info
	slice slice // of a slice
	split bool  // it is divided into slices: what uses it uses one of them
}

const mib = 1 << 20

// list gives the devices as they were last listed, and lists them when they
// weren't. mu must be held.
func (s *server) list() ([]*device, error) {
	s.devicesMu.Lock()
	defer s.devicesMu.Unlock()
	if s.devices != nil {
		return s.devices, nil
	}
	devices, _, err := s.enumerate()
	if err != nil {
		s.stale = true
		return nil, err
	}
	s.devices = devices
	return devices, nil
}

// relist lists the devices anew, and notes what couldn't be read of them.
func (s *server) relist() ([]*device, []string, error) {
	s.devicesMu.Lock()
	defer s.devicesMu.Unlock()
	devices, notes, err := s.enumerate()
	if err != nil {
		s.stale = true
		return nil, nil, err
	}
	s.devices = devices
	return devices, notes, nil
}

// markStale has the library started anew before the next inventory.
func (s *server) markStale() {
	s.devicesMu.Lock()
	defer s.devicesMu.Unlock()
	s.stale = true
}

// refresh starts the library anew where that is needed.
func (s *server) refresh() error {
	s.devicesMu.Lock()
	stale := s.stale
	s.devicesMu.Unlock()
	if !stale {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching.forget()
	s.devicesMu.Lock()
	defer s.devicesMu.Unlock()
	s.devices = nil
	if err := s.lib.restart(); err != nil {
		return err
	}
	s.stale = false
	return nil
}

func (s *server) enumerate() (devices []*device, notes []string, err error) {
	count, ret := s.lib.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return nil, nil, fmt.Errorf("count the devices: %s", ret.Error())
	}
	devices = []*device{}
	for i := range count {
		d, ret := s.identify(i)
		if ret != nvml.SUCCESS {
			s.stale = true
			notes = append(notes, fmt.Sprintf("device %d can't be read: %s", i, ret.Error()))
			continue
		}
		devices = append(devices, d)
		devices = append(devices, s.slicesOf(d)...)
	}
	return devices, notes, nil
}

// identify reads what a whole device is. Without name or memory it is no device
// that anybody could use.
func (s *server) identify(index int) (*device, nvml.Return) {
	handle, ret := s.lib.DeviceGetHandleByIndex(index)
	if ret != nvml.SUCCESS {
		return nil, ret
	}
	d := &device{Device: handle, info: gpu.Info{Index: index, Minor: int64(index), Vendor: "NVIDIA"}}
	if d.info.UUID, ret = handle.GetUUID(); ret != nvml.SUCCESS {
		return nil, ret
	}
	if d.info.Model, ret = handle.GetName(); ret != nvml.SUCCESS {
		return nil, ret
	}
	memory, ret := handle.GetMemoryInfo()
	if ret != nvml.SUCCESS {
		return nil, ret
	}
	d.info.Type, d.info.MemoryMiB = gpu.TypeName(d.info.Model), int64(memory.Total/mib) // #nosec G115 -- bytes of a memory
	if s.lib.has("nvmlDeviceGetMinorNumber") {
		if minor, ret := handle.GetMinorNumber(); ret == nvml.SUCCESS {
			d.info.Minor = int64(minor)
		}
	}
	if s.lib.has("nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", "nvmlDeviceGetPciInfo") {
		if pci, ret := handle.GetPciInfo(); ret == nvml.SUCCESS {
			d.info.PCIBusID = pciAddress(pci)
		}
	}
	if s.lib.has("nvmlDeviceGetCudaComputeCapability") {
		if major, minor, ret := handle.GetCudaComputeCapability(); ret == nvml.SUCCESS {
			d.info.Capability = fmt.Sprintf("%d.%d", major, minor)
		}
	}
	d.info.NUMANode = numaNode(s.set.Root, d.info.PCIBusID)
	return d, nvml.SUCCESS
}

// pciAddress is written as nvidia-smi does: "00000000:07:00.0".
func pciAddress(pci nvml.PciInfo) string {
	return fmt.Sprintf("%08X:%02X:%02X.0", pci.Domain, pci.Bus, pci.Device)
}

// numaNode is what the kernel says of the device; -1 when it doesn't.
func numaNode(root, address string) int {
	domain, rest, ok := strings.Cut(strings.ToLower(address), ":")
	if !ok {
		return -1
	}
	domain = strings.TrimPrefix(domain, "0000") // sysfs writes four digits
	text, err := os.ReadFile(filepath.Join(root, "sys/bus/pci/devices", domain+":"+rest, "numa_node"))
	if err != nil {
		return -1
	}
	node, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || node < 0 {
		return -1
	}
	return node
}
