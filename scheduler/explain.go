package scheduler

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Code names why a run isn't placed.
type Code string

// The codes. The first four are final: no node could ever run it as things
// are registered. The others pass by themselves.
const (
	CodeKindAbsent          Code = "gpu_kind_absent"
	CodeCountImpossible     Code = "gpu_count_impossible"
	CodeResourcesImpossible Code = "resources_impossible"
	CodeSharingOff          Code = "gpu_sharing_off"
	CodeWaitingForNode      Code = "waiting_for_node"
	CodeWaitingForVolume    Code = "waiting_for_volume"
	CodeWaitingForGPU       Code = "waiting_for_gpu"
	CodeWaitingForCPU       Code = "waiting_for_cpu"
	CodeWaitingForMemory    Code = "waiting_for_memory"
	CodeWaitingForStorage   Code = "waiting_for_storage"
)

// Reason says why a run isn't placed, for programs and for people.
type Reason struct {
	Code    Code
	Message string
}

// Final reports whether waiting can't help: the run fails.
func (r *Reason) Final() bool {
	return slices.Contains([]Code{CodeKindAbsent, CodeCountImpossible, CodeResourcesImpossible, CodeSharingOff}, r.Code)
}

// explain says why no host takes the demand.
func explain(hosts []host, d *demand) *Reason {
	if len(hosts) == 0 {
		return &Reason{CodeWaitingForNode, "no node is registered yet"}
	}
	if reason := impossible(hosts, d); reason != nil {
		return reason
	}
	if reason := volumeOutOfReach(hosts, d); reason != nil {
		return reason
	}
	return busy(hosts, d)
}

// impossible looks at what every node could give if it were empty, open and had
// the volume; nil when one could run the demand.
func impossible(hosts []host, d *demand) *Reason {
	candidates := hosts
	for _, l := range []*filter{kindFilter, sharingFilter, cpuFilter, memoryFilter, storageFilter} {
		able, most := couldBe(l, candidates, d)
		if len(able) > 0 {
			candidates = able
			continue
		}
		switch {
		case l == sharingFilter:
			return &Reason{CodeSharingOff, fmt.Sprintf("no node with %s lets runs share one; ask for whole GPUs, or set [gpu] sharing on a node",
				kindText(d, 0))}
		case l != kindFilter:
			return resourcesImpossible(l, d, most)
		case most == 0:
			return &Reason{CodeKindAbsent, fmt.Sprintf("no node has %s; %s", kindText(d, 0), inventory(hosts))}
		default:
			return &Reason{CodeCountImpossible, fmt.Sprintf("no node has %d %s, the most on one node is %d; %s",
				d.count, kindText(d, d.count), most, inventory(hosts))}
		}
	}
	return nil
}

// couldBe gives the hosts on which the filter could be met, and the most that
// any could give.
func couldBe(l *filter, hosts []host, d *demand) (able []host, most int64) {
	for i := range hosts {
		f := d.on(&hosts[i])
		most = max(most, l.ever(f))
		if l.couldBe(f) {
			able = append(able, hosts[i])
		}
	}
	return able, most
}

func resourcesImpossible(l *filter, d *demand, most int64) *Reason {
	text := map[*filter]func(int64) string{cpuFilter: cores, memoryFilter: memory, storageFilter: storage}[l]
	among := ""
	if d.count > 0 {
		among = fmt.Sprintf(" with %d %s", d.count, kindText(d, d.count))
	}
	return &Reason{CodeResourcesImpossible, fmt.Sprintf("no node%s offers %s; the most is %s",
		among, text(l.wants(d)), text(most))}
}

// inventory says which devices the cluster has, by type.
func inventory(hosts []host) string {
	devices, nodes, unusable := map[string]int{}, map[string]int{}, map[string]int{}
	for i := range hosts {
		here := map[string]bool{}
		for j := range hosts[i].node.Devices {
			info := &hosts[i].node.Devices[j]
			switch {
			case info.Missing:
			case info.Unusable != "":
				unusable[info.Type+" that can't be had ("+info.Unusable+")"]++
			default:
				devices[info.Type]++
				here[info.Type] = true
			}
		}
		for name := range here {
			nodes[name]++
		}
	}
	if len(devices)+len(unusable) == 0 {
		return "the cluster has no GPUs"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		parts = append(parts, fmt.Sprintf("%d × %s on %s", devices[name], name, countNodes(nodes[name])))
	}
	for _, name := range slices.Sorted(maps.Keys(unusable)) {
		parts = append(parts, fmt.Sprintf("%d × %s", unusable[name], name))
	}
	return "the cluster has " + strings.Join(parts, ", ")
}

// volumeOutOfReach speaks of a run tied to a node that is gone or can never run
// it, though others could.
func volumeOutOfReach(hosts []host, d *demand) *Reason {
	if d.request.Node == "" {
		return nil
	}
	i := slices.IndexFunc(hosts, func(h host) bool { return h.node.ID == d.request.Node })
	if i < 0 {
		return &Reason{CodeWaitingForVolume, fmt.Sprintf(
			"its volume is on node %s, which is not in the cluster; bring the node back, or start with a fresh volume", d.request.Node)}
	}
	f := d.on(&hosts[i])
	for _, l := range filters {
		if !l.couldBe(f) {
			return &Reason{CodeWaitingForVolume, fmt.Sprintf(
				"its volume is on node %s, which can never run it (%s, even when idle); ask for less, move the volume, or start with a fresh one",
				f.host.node.Name, l.lacks(f))}
		}
	}
	return nil
}

// busy counts the nodes by what each lacks. The code is that of the last filter
// reached by a node that could run the demand one day: the closest to fitting.
func busy(hosts []host, d *demand) *Reason {
	code, reached := CodeWaitingForNode, -1
	counts := make([]map[string]int, len(filters))
	most := make([]int64, len(filters))
	for i := range hosts {
		f := d.on(&hosts[i])
		l := firstRefusal(f)
		at := slices.Index(filters, l)
		if counts[at] == nil {
			counts[at] = map[string]int{}
		}
		counts[at][l.lacks(f)]++
		most[at] = max(most[at], l.now(f))
		possible := !slices.ContainsFunc(filters, func(l *filter) bool { return !l.couldBe(f) })
		if possible && at > reached {
			code, reached = l.code, at
		}
	}
	var parts []string
	for at, l := range filters {
		for _, label := range slices.Sorted(maps.Keys(counts[at])) {
			parts = append(parts, fmt.Sprintf("%d %s%s", counts[at][label], label, atMost(l, most[at])))
		}
	}
	return &Reason{code, countNodes(len(hosts)) + ": " + strings.Join(parts, ", ") + detachedText(code, hosts)}
}

// detachedText says what removing detached volumes would give to a run that
// waits for storage.
func detachedText(code Code, hosts []host) string {
	sum := int64(0)
	for i := range hosts {
		sum += hosts[i].node.DetachedMiB
	}
	if code != CodeWaitingForStorage || sum == 0 {
		return ""
	}
	return fmt.Sprintf("; detached volumes have %s, removing them makes room", storage(sum))
}

// atMost tells how near the nearest refused node is, where the filter's amount
// means something to people.
func atMost(l *filter, most int64) string {
	switch l {
	case gpuFilter:
		return fmt.Sprintf(" (at most %d)", most)
	case cpuFilter:
		return " (at most " + cores(most) + ")"
	case memoryFilter:
		return " (at most " + memory(most) + ")"
	case storageFilter:
		return " (at most " + storage(most) + ")"
	default:
		return ""
	}
}

func countNodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
