package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/gpu"
)

func (a *app) deviceCommand() *cobra.Command {
	return noun("device", "GPUs and who holds them", []string{"devices", "dev", "gpu", "gpus"}, a.deviceLs(), a.deviceGet())
}

func deviceKind(n *names) kind[gpu.Device] {
	return kind[gpu.Device]{
		id:   func(d *gpu.Device) string { return d.UUID },
		name: func(d *gpu.Device) string { return d.UUID },
		columns: []column[gpu.Device]{
			{title: "UUID", cell: func(d *gpu.Device) string { return d.UUID }},
			{title: "NODE", cell: func(d *gpu.Device) string { return n.node(d.Node) }},
			{title: "INDEX", cell: func(d *gpu.Device) string { return strconv.Itoa(d.Index) }},
			{title: "TYPE", cell: func(d *gpu.Device) string { return d.Type }},
			{title: "MEMORY", cell: func(d *gpu.Device) string { return formatSize(d.MemoryMiB) }},
			{title: "STATE", cell: func(d *gpu.Device) string { return string(d.State) }},
			{title: "HEALTH", cell: deviceHealth},
			{title: "HELD BY", cell: func(d *gpu.Device) string { return holderText(n, d) }},
			{title: "SOURCE", cell: func(d *gpu.Device) string { return deviceSource(d) }},
			{title: "PCI", wide: true, cell: func(d *gpu.Device) string { return d.PCIBusID }},
			{title: "REASON", wide: true, cell: func(d *gpu.Device) string { return d.Reason }},
			{title: "MESSAGE", wide: true, cell: func(d *gpu.Device) string { return d.Message }},
		},
		detail: func(d *gpu.Device) []section { return deviceDetail(n, d) },
	}
}

func deviceDetail(n *names, d *gpu.Device) []section {
	return []section{
		{label: "UUID", text: d.UUID},
		{label: "Node", text: n.node(d.Node)},
		{label: "Model", text: d.Model},
		{label: "Type", text: d.Type},
		{label: "Memory", text: formatSize(d.MemoryMiB)},
		{label: "Source", text: deviceSource(d)},
		{label: "State", text: string(d.State)},
		{label: "Health", text: deviceHealth(d)},
		{label: "Reason", text: d.Reason},
		{label: "Message", text: d.Message},
		{label: "Since", text: moment(d.Since)},
		{label: "Blocked by", text: d.Blocked},
		{label: "Held by", rows: each(d.Holders, func(h gpu.Holder) []string {
			return []string{n.holder(h.Run), fmt.Sprintf("%d/%d", h.Milli, gpu.MilliPerDevice), holderState(h), h.Run}
		})},
		{label: "Measured", rows: n.readingRows(d)},
		{label: "Index", text: strconv.Itoa(d.Index)},
		{label: "Minor", text: strconv.FormatInt(d.Minor, 10)},
		{label: "PCI", text: d.PCIBusID},
		{label: "NUMA node", text: strconv.Itoa(d.NUMANode)},
		{label: "Slice of", text: d.Parent},
	}
}

// readingRows are what a device measures now; none where its node doesn't say.
func (n *names) readingRows(d *gpu.Device) [][]string {
	readings, err := all(n.ctx, n.cl.Readings, client.ListOptions{Node: d.Node})
	i := slices.IndexFunc(readings, func(r gpu.Reading) bool { return r.UUID == d.UUID })
	if err != nil || i < 0 {
		return nil
	}
	values := readings[i].Values
	return each(slices.Sorted(maps.Keys(values)), func(q gpu.Quantity) []string {
		return []string{string(q), strconv.FormatFloat(values[q], 'f', -1, 64)}
	})
}

func deviceHealth(d *gpu.Device) string {
	if d.Missing {
		return "missing"
	}
	return string(d.Health)
}

func deviceSource(d *gpu.Device) string {
	if d.Simulated {
		return "SIMULATED"
	}
	return "driver"
}

// holderText is who holds a device: instances, with their part when it isn't
// the whole, or what blocks it.
func holderText(n *names, d *gpu.Device) string {
	if len(d.Holders) == 0 && d.Blocked != "" {
		return "container " + d.Blocked
	}
	return strings.Join(each(d.Holders, func(h gpu.Holder) string {
		if h.Milli < gpu.MilliPerDevice {
			return fmt.Sprintf("%s (%d/%d)", n.holder(h.Run), h.Milli, gpu.MilliPerDevice)
		}
		return n.holder(h.Run)
	}), ", ")
}

func holderState(h gpu.Holder) string {
	switch {
	case h.Stuck:
		return string(gpu.Stuck)
	case h.Releasing:
		return string(gpu.Releasing)
	}
	return string(gpu.Held)
}

// holders of some devices, each once.
func (n *names) holders(devices []gpu.Device) []string {
	var found []string
	for i := range devices {
		for _, h := range devices[i].Holders {
			if name := n.holder(h.Run); !slices.Contains(found, name) {
				found = append(found, name)
			}
		}
	}
	return found
}

// nodeDevices are the devices of one node; none when they can't be asked for.
func (n *names) nodeDevices(node string) []gpu.Device {
	if n.devices == nil {
		n.devices = map[string][]gpu.Device{}
		devices, _ := allDevices(n.ctx, n.cl, client.ListOptions{})
		for _, d := range devices {
			n.devices[d.Node] = append(n.devices[d.Node], d)
		}
	}
	return n.devices[node]
}

// allDevices gives devices as they stand in their hosts: by node, then index.
func allDevices(ctx context.Context, cl *client.Client, o client.ListOptions) ([]gpu.Device, error) {
	devices, err := all(ctx, cl.Devices, o)
	slices.SortStableFunc(devices, func(x, y gpu.Device) int {
		return cmp.Or(cmp.Compare(x.Node, y.Node), cmp.Compare(x.Index, y.Index))
	})
	return devices, err
}

func (a *app) deviceLs() *cobra.Command {
	var o client.ListOptions
	c := lsVerb(a, cobra.Command{
		Short: "List GPUs: state, health, who holds them",
		Long: `Lists GPUs by node and index. free: can be given out; held: a run has it; releasing: its run has
ended, its node hasn't confirmed yet that nothing is left on it; stuck: the node
can't confirm it.`,
		Example: `  berth device ls
  berth device ls --node gpu-1 --state free`,
	}, source[gpu.Device]{
		fetch: func(ctx context.Context, cl *client.Client) ([]gpu.Device, error) { return allDevices(ctx, cl, o) },
		kind:  deviceKind,
	})
	c.Flags().StringVar(&o.Node, "node", "", "only those of one node")
	c.Flags().StringVar(&o.State, "state", "", "only free, held, releasing or stuck ones")
	must(c.RegisterFlagCompletionFunc("node", a.complete(nodeNames)))
	must(c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"free", "held", "releasing", "stuck"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (a *app) deviceGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:               "get UUID",
		Short:             "Show one GPU",
		Example:           `  berth device get GPU-11111111-2222-3333-4444-555555555555`,
		Args:              takes("UUID"),
		ValidArgsFunction: a.completeOne(deviceIDs),
	}, func(ctx context.Context, cl *client.Client, uuid string) (*gpu.Device, error) {
		return cl.Device(ctx, uuid)
	}, deviceKind)
}
