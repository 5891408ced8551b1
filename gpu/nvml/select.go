package nvml

import (
	"fmt"
	"slices"
	"strings"

	"berth/gpu"
)

// selectDevices marks the devices that the configuration leaves out, and says
// which of its UUIDs this host doesn't have. A device's own trouble is told
// before the configuration's.
func selectDevices(inventory *gpu.Inventory, include, exclude []string) {
	listed := map[string]bool{}
	for i := range inventory.Devices {
		info := &inventory.Devices[i]
		listed[info.UUID] = true
		if info.Unusable != "" {
			continue
		}
		named := func(uuids []string) bool {
			return slices.Contains(uuids, info.UUID) || info.Parent != "" && slices.Contains(uuids, info.Parent)
		}
		switch {
		case named(exclude):
			info.Unusable = "excluded by [gpu] exclude"
		case len(include) > 0 && !named(include):
			info.Unusable = "not in [gpu] include"
		}
	}
	var unknown []string
	for _, uuid := range slices.Concat(include, exclude) {
		if !listed[uuid] && !slices.Contains(unknown, uuid) {
			unknown = append(unknown, uuid)
		}
	}
	if len(unknown) > 0 {
		addMessage(inventory, fmt.Sprintf("[gpu] include or exclude names %s, which this host doesn't have", strings.Join(unknown, ", ")))
	}
}

func addMessage(inventory *gpu.Inventory, message string) {
	if inventory.Message != "" {
		message = inventory.Message + "; " + message
	}
	inventory.Message = message
}
