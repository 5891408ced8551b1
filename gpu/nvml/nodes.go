package nvml

import (
	"fmt"

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

// DeviceNodes lists what a container that holds the device must be able to
// open, and nothing of any other device.
func DeviceNodes(info gpu.Info) []DeviceNode {
	return []DeviceNode{{
		Path:  fmt.Sprintf("/dev/nvidia%d", info.Minor),
		Major: nvidiaMajor,
		Minor: info.Minor,
	}}
}
