package scheduler

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// filter is one thing a node must have for a run. Amounts rather than booleans,
// so that it can say how far a node is from enough.
type filter struct {
	code  Code                  // what the run waits for while this refuses
	wants func(d *demand) int64 // amount asked for
	now   func(f fit) int64     // what the node can give at present
	ever  func(f fit) int64     // what it could if nothing else ran and it were open
	lacks func(f fit) string    // what a refused node is counted as
}

// ok reports whether the node has enough now.
func (l *filter) ok(f fit) bool { return l.now(f) >= l.wants(f.demand) }

// couldBe reports whether it ever can.
func (l *filter) couldBe(f fit) bool { return l.ever(f) >= l.wants(f.demand) }

// The filters in the order in which they are asked: a node is counted under the
// first that refuses it.
var filters = []*filter{volumeFilter, openFilter, kindFilter, sharingFilter, gpuFilter, cpuFilter, memoryFilter, storageFilter}

var volumeFilter = &filter{
	code:  CodeWaitingForVolume,
	wants: one,
	now:   hasVolume,
	ever:  hasVolume,
	lacks: func(fit) string { return "without the volume" },
}

var openFilter = &filter{
	code:  CodeWaitingForNode,
	wants: one,
	now:   func(f fit) int64 { return truth(f.host.node.Closed == "") },
	ever:  func(fit) int64 { return 1 },
	lacks: func(f fit) string { return f.host.node.Closed },
}

// kindFilter refuses nodes that hold too few devices of the kind, busy or not.
var kindFilter = &filter{
	code:  CodeWaitingForGPU,
	wants: func(d *demand) int64 { return int64(d.count) },
	now:   func(f fit) int64 { return int64(f.kind) },
	ever: func(f fit) int64 {
		if !f.host.node.Reported {
			return math.MaxInt64
		}
		return int64(f.kind)
	},
	lacks: func(f fit) string {
		switch {
		case !f.host.node.Reported:
			return "not yet telling its GPUs"
		case f.kind == 0 && f.unusable != "":
			return fmt.Sprintf("whose %s can't be had (%s)", kindText(f.demand, 0), f.unusable)
		case f.kind == 0:
			return "without " + kindText(f.demand, 0)
		default:
			return fmt.Sprintf("with only %d %s", f.kind, kindText(f.demand, f.kind))
		}
	},
}

// sharingFilter refuses a share of a GPU where runs can't share any.
var sharingFilter = &filter{
	code:  CodeSharingOff,
	wants: func(d *demand) int64 { return truth(!d.whole()) },
	now:   func(f fit) int64 { return truth(f.host.node.Shares) },
	ever:  func(f fit) int64 { return truth(f.host.node.Shares || !f.host.node.Reported) },
	lacks: func(fit) string { return "that shares no GPUs" },
}

var gpuFilter = &filter{
	code:  CodeWaitingForGPU,
	wants: func(d *demand) int64 { return int64(d.count) },
	now:   func(f fit) int64 { return int64(len(f.room)) },
	ever:  kindFilter.ever,
	lacks: func(f fit) string {
		if f.demand.whole() {
			return fmt.Sprintf("without %d free %s", f.demand.count, kindText(f.demand, f.demand.count))
		}
		return fmt.Sprintf("without %d/1000 of %d %s free", f.demand.milli, f.demand.count, kindText(f.demand, f.demand.count))
	},
}

var cpuFilter = &filter{
	code:  CodeWaitingForCPU,
	wants: func(d *demand) int64 { return d.request.Resources.CPUMilli },
	now:   func(f fit) int64 { return f.host.free.CPUMilli },
	ever:  func(f fit) int64 { return f.host.node.Total.CPUMilli },
	lacks: func(f fit) string { return "without " + cores(f.demand.request.Resources.CPUMilli) + " free" },
}

var memoryFilter = &filter{
	code:  CodeWaitingForMemory,
	wants: func(d *demand) int64 { return d.request.Resources.MemoryMiB },
	now:   func(f fit) int64 { return f.host.free.MemoryMiB },
	ever:  func(f fit) int64 { return f.host.node.Total.MemoryMiB },
	lacks: func(f fit) string { return "without " + memory(f.demand.request.Resources.MemoryMiB) + " free" },
}

var storageFilter = &filter{
	code:  CodeWaitingForStorage,
	wants: func(d *demand) int64 { return d.request.Resources.StorageMiB },
	// A volume that doesn't grow fits however full the disk is.
	now: func(f fit) int64 { return max(0, f.host.free.StorageMiB) + f.demand.storageHere(f.host) },
	ever: func(f fit) int64 {
		return max(f.host.node.Total.StorageMiB, f.demand.storageHere(f.host))
	},
	lacks: func(f fit) string { return "without " + storage(f.demand.request.Resources.StorageMiB) + " free" },
}

// firstRefusal is the first filter that refuses; nil when the run fits.
func firstRefusal(f fit) *filter {
	for _, l := range filters {
		if !l.ok(f) {
			return l
		}
	}
	return nil
}

func one(*demand) int64 { return 1 }

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func hasVolume(f fit) int64 {
	pinned := f.demand.request.Node
	return truth(pinned == "" || pinned == f.host.node.ID)
}

// kindText names the kind of GPU asked for, after a number of n or none (0):
// "H100 or A100 of ≥ 40960 MiB", "GPUs".
func kindText(d *demand, n int) string {
	r := &d.request.Resources
	var types []string
	for item := range strings.SplitSeq(r.GPUType, "|") {
		if item = strings.TrimSpace(item); item != "" {
			types = append(types, strings.ToUpper(item))
		}
	}
	text := strings.Join(types, " or ")
	if text == "" {
		text = strings.TrimSpace(strings.ToUpper(r.GPUVendor) + " GPU")
		if n != 1 {
			text += "s"
		}
	}
	if r.GPUMemoryMiB > 0 {
		text += fmt.Sprintf(" of ≥ %d MiB", r.GPUMemoryMiB)
	}
	return text
}

func cores(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) + " cores"
}

func memory(mib int64) string { return strconv.FormatInt(mib, 10) + " MiB memory" }

func storage(mib int64) string { return strconv.FormatInt(mib, 10) + " MiB storage" }
