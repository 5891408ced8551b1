package nvml

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"berth/gpu"
)

// nvidiaMajor is the character device major of /dev/nvidia<minor> (Linux's
// list of allocated devices).
const nvidiaMajor = 195

// DeviceNode is a character device that a container needs for a GPU.
type DeviceNode struct {
	Path         string // inside the container
	Major, Minor int64
}

// Access is what a container that holds a device gets of this host: nothing of
// any other device.
type Access struct {
	Nodes  []DeviceNode
	Mounts []Mount // read-only, with absolute targets
}

// DeviceNodes lists what a container that holds the device must be able to
// open, and nothing of any other device.
func DeviceNodes(info gpu.Info) []DeviceNode {
	return []DeviceNode{{
		Path:  fmt.Sprintf("/dev/nvidia%d", info.Minor),
		Major: nvidiaMajor,
		Minor: info.Minor,
	}}
}

// shared are the nodes that every user of a driver needs; the numbers of
// nvidia-uvm are the kernel's choice.
var shared = []string{"/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"}

// missingNodes says what to do about the node that is made only when it is first
// needed, by a program that no container has.
func missingNodes(root string) []string {
	if (&Access{}).addNode(root, "/dev/nvidia-uvm") {
		return nil
	}
	return []string{"/dev/nvidia-uvm doesn't exist: CUDA can't work in containers until it does; run nvidia-modprobe -c 0 -u"}
}

// Access says what a container that holds a device of the latest inventory
// gets. Libraries are seen below libDir. A node that this host doesn't have is
// left out.
func (d *Driver) Access(info gpu.Info, libDir string) Access {
	d.mu.Lock()
	files, part := slices.Clone(d.files), d.slices[info.UUID]
	d.mu.Unlock()
	var a Access
	for _, name := range shared {
		a.addNode(d.cfg.Root, name)
	}
	if own := DeviceNodes(info); !a.addNode(d.cfg.Root, own[0].Path) {
		a.Nodes = append(a.Nodes, own...)
	}
	if info.Parent != "" {
		for _, place := range part.capabilities(info.Minor) {
			a.addCapability(d.cfg.Root, place)
		}
	}
	for _, m := range files {
		if m.Lib {
			m.Target = path.Join(libDir, m.Target)
		}
		a.Mounts = append(a.Mounts, m)
	}
	return a
}

// addNode adds a character device of the host with its real numbers.
func (a *Access) addNode(root, name string) bool {
	var stat unix.Stat_t
	if err := unix.Stat(filepath.Join(root, name), &stat); err != nil || stat.Mode&unix.S_IFMT != unix.S_IFCHR {
		return false
	}
	a.Nodes = append(a.Nodes, DeviceNode{Path: name, Major: int64(unix.Major(stat.Rdev)), Minor: int64(unix.Minor(stat.Rdev))})
	return true
}

// capabilities are the files that name the nodes by which a slice is opened.
func (s slice) capabilities(minor int64) []string {
	instance := fmt.Sprintf("proc/driver/nvidia/capabilities/gpu%d/mig/gi%d", minor, s.GPUInstance)
	return []string{instance + "/access", fmt.Sprintf("%s/ci%d/access", instance, s.ComputeInstance)}
}

// addCapability adds the node that a capability file names. The node needn't
// exist on the host: its major is in /proc/devices.
func (a *Access) addCapability(root, place string) {
	minor, ok := capabilityMinor(filepath.Join(root, place))
	if !ok {
		return
	}
	name := fmt.Sprintf("/dev/nvidia-caps/nvidia-cap%d", minor)
	if a.addNode(root, name) {
		return
	}
	if major, ok := majorOf(root, "nvidia-caps"); ok {
		a.Nodes = append(a.Nodes, DeviceNode{Path: name, Major: major, Minor: minor})
	}
}

// capabilityMinor reads the line "DeviceFileMinor: N".
func capabilityMinor(file string) (int64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "DeviceFileMinor:"); ok {
			minor, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return minor, err == nil
		}
	}
	return 0, false
}

// majorOf finds a character device's major by its driver's name.
func majorOf(root, driver string) (int64, bool) {
	f, err := os.Open(filepath.Join(root, "proc/devices"))
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if number, ok := strings.CutSuffix(lines.Text(), " "+driver); ok {
			major, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
			return major, err == nil
		}
	}
	return 0, false
}
