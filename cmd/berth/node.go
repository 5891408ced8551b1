package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/gpu"
	"berth/workspace"
)

func (a *app) nodeCommand() *cobra.Command {
	return noun("node", "Hosts of the cluster", []string{"nodes", "host", "hosts"}, a.nodeLs(), a.nodeGet())
}

func nodeKind(n *names) kind[workspace.Node] {
	return kind[workspace.Node]{
		id:   func(w *workspace.Node) string { return w.ID },
		name: func(w *workspace.Node) string { return w.Name },
		columns: []column[workspace.Node]{
			{title: "NAME", cell: func(w *workspace.Node) string { return w.Name }},
			{title: "STATUS", cell: nodeStatus},
			{title: "ROLE", cell: func(w *workspace.Node) string { return w.Role }},
			{title: "GPUS", cell: func(w *workspace.Node) string { return inventoryText(n.nodeDevices(w.ID)) }},
			{title: "FREE", cell: func(w *workspace.Node) string { return strconv.Itoa(freeDevices(n.nodeDevices(w.ID))) }},
			{title: "HELD BY", cell: func(w *workspace.Node) string { return strings.Join(n.holders(n.nodeDevices(w.ID)), ", ") }},
			{title: "CPUS", cell: func(w *workspace.Node) string { return formatCores(w.Facts.CPUMilli) }},
			{title: "MEMORY", cell: func(w *workspace.Node) string { return formatSize(w.Facts.MemoryMiB) }},
			{title: "STORAGE", cell: func(w *workspace.Node) string { return formatSize(w.Facts.StorageMiB) }},
			{title: "AGE", cell: func(w *workspace.Node) string { return age(w.CreatedAt) }},
			{title: "VERSION", wide: true, cell: func(w *workspace.Node) string { return w.Facts.Version }},
			{title: "RUNTIME", wide: true, cell: func(w *workspace.Node) string { return w.Facts.Runtime }},
			{title: "KERNEL", wide: true, cell: func(w *workspace.Node) string { return w.Facts.Kernel }},
			{title: "ID", wide: true, cell: func(w *workspace.Node) string { return w.ID }},
			{title: "MESSAGE", wide: true, cell: func(w *workspace.Node) string { return w.Message }},
		},
		detail: func(w *workspace.Node) []section { return nodeDetail(n, w) },
	}
}

func nodeStatus(w *workspace.Node) string {
	status := "ready"
	switch {
	case !w.Reachable:
		status = "unreachable"
	case !w.Ready:
		status = "not ready"
	}
	if w.Draining {
		status += ", draining"
	} else if w.Cordoned {
		status += ", cordoned"
	}
	return status
}

func nodeDetail(n *names, w *workspace.Node) []section {
	f, devices := &w.Facts, n.nodeDevices(w.ID)
	return []section{
		{label: "Name", text: w.Name},
		{label: "ID", text: w.ID},
		{label: "Role", text: w.Role},
		{label: "Status", text: nodeStatus(w)},
		{label: "Reason", text: w.Reason},
		{label: "Message", text: w.Message},
		{label: "Since", text: moment(w.Since)},
		{label: "Capacity", text: fmt.Sprintf("%s cores, %s memory, %s storage", formatCores(f.CPUMilli), formatSize(f.MemoryMiB), formatSize(f.StorageMiB))},
		{label: "CAPACITY NOTE", text: f.CapacityNote},
		{label: "GPU source", text: gpuSourceText(f)},
		{label: "GPUs", text: noGPUs(f, devices), rows: each(devices, func(d gpu.Device) []string {
			return []string{d.UUID, d.Type, string(d.State), string(d.Health), holderText(n, &d)}
		})},
		{label: "Images", rows: each(w.Images, func(i workspace.NodeImage) []string {
			return []string{i.Reference, i.Digest, formatBytes(i.Size)}
		})},
		{label: "Quarantined containers", rows: each(w.Orphans, func(o workspace.Orphan) []string {
			return []string{o.Container, o.Reason, strings.Join(o.Devices, ", ")}
		})},
		{label: "Publish address", text: f.PublishAddress},
		{label: "berthd", text: f.Version},
		{label: "Runtime", text: f.Runtime},
		{label: "Kernel", text: strings.TrimSpace(f.Kernel + " " + f.Arch)},
		{label: "Boot", text: f.BootID},
		{label: "Joined", text: moment(w.CreatedAt)},
	}
}

func gpuSourceText(f *workspace.NodeFacts) string {
	switch f.GPUSource {
	case "simulated":
		return "SIMULATED: there is no hardware behind these GPUs"
	case "nvml":
		return fmt.Sprintf("driver %s, CUDA %s", f.DriverVersion, f.CUDAVersion)
	}
	return f.GPUSource
}

func noGPUs(f *workspace.NodeFacts, devices []gpu.Device) string {
	if len(devices) > 0 {
		return ""
	}
	return orText(f.GPUMessage, "none")
}

func orText(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// inventoryText counts devices by type, such as "8×A100-SXM4-80GB".
func inventoryText(devices []gpu.Device) string {
	counts := map[string]int{}
	for i := range devices {
		if !devices[i].Missing {
			counts[devices[i].Type]++
		}
	}
	if len(counts) == 0 {
		return "0"
	}
	return strings.Join(each(slices.Sorted(maps.Keys(counts)), func(t string) string {
		return fmt.Sprintf("%d×%s", counts[t], t)
	}), ", ")
}

// freeDevices counts those that nobody holds and that are fit to be given out.
func freeDevices(devices []gpu.Device) int {
	free := 0
	for i := range devices {
		if d := &devices[i]; d.State == gpu.Free && d.Health == gpu.Healthy && !d.Missing && d.Blocked == "" {
			free++
		}
	}
	return free
}

func (a *app) nodeLs() *cobra.Command {
	return lsVerb(a, cobra.Command{
		Short: "List nodes: readiness, capacity, GPUs and who holds them",
		Example: `  berth node ls
  berth node ls -o wide`,
	}, source[workspace.Node]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Node, error) {
			return all(ctx, cl.Nodes, client.ListOptions{})
		},
		kind: nodeKind,
	})
}

func (a *app) nodeGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:   "get NAME",
		Short: "Show one node: readiness, capacity, GPUs, images, versions",
		Example: `  berth node get gpu-1
  berth node get gpu-1 -o json`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(nodeNames),
	}, func(ctx context.Context, cl *client.Client, ref string) (*workspace.Node, error) {
		return cl.Node(ctx, ref)
	}, nodeKind)
}
