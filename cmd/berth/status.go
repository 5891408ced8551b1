package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/gpu"
	"berth/workspace"
)

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the cluster in one page: nodes, GPUs, runs, warnings",
		Long: `Shows the cluster as one of its servers sees it: whether it has a leader, what each
node offers, how many GPUs are free, held, releasing or stuck, how many runs are in
which phase, and what an operator should look at. GPUs that are simulated, and nodes
that offer more than they have, are marked.`,
		Example: `  berth status
  berth status -o json | jq .devices`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			s, err := cl.Status(c.Context())
			if err != nil {
				return err
			}
			if a.machine() {
				return a.writeDocument(s)
			}
			if a.output == "name" {
				a.say("%s", s.Cluster.Name)
				return nil
			}
			return a.showStatus(c.Context(), cl, s)
		}),
	}
}

func (a *app) showStatus(ctx context.Context, cl *client.Client, s *workspace.Overview) error {
	nodes, err := all(ctx, cl.Nodes, client.ListOptions{})
	if err != nil {
		return err
	}
	devices, err := all(ctx, cl.Devices, client.ListOptions{})
	if err != nil {
		return err
	}
	n := newNames(ctx, cl)
	a.writeSections([]section{
		{label: "Cluster", text: clusterText(s)},
		{label: "Leader", text: orText(n.node(s.Leader), "NONE: nothing can be changed until one is elected")},
		{label: "Server", text: fmt.Sprintf("%s (berthd %s, index %d)", n.node(s.Server), s.Version, s.Index)},
		{label: "GPUs", text: deviceCounts(devices)},
		{label: "Instances", text: countsText(s.Instances, statusOrder)},
		{label: "Runs", text: countsText(s.Runs, phaseOrder)},
		{label: "Workspaces", text: fmt.Sprint(s.Workspaces)},
	})
	a.say("")
	showRows(a, a.newTable(), nodeKind(n), nodes)
	for _, e := range s.Ending {
		a.say("ENDS SOON: %s %s", orText(e.Name, e.Run), warningText(e.Warning))
	}
	for _, warning := range s.Warnings {
		a.say("WARNING: %s", warning)
	}
	return nil
}

func clusterText(s *workspace.Overview) string {
	if s.Cluster == nil {
		return "not initialised yet"
	}
	text := fmt.Sprintf("%s (%s)", s.Cluster.Name, s.Cluster.ID)
	if s.Cluster.KillSwitch {
		text += ", KILL SWITCH ON: nothing starts"
	}
	return text
}

// deviceCounts is a sentence about all GPUs: how many there are and what of
// them can be given out.
func deviceCounts(devices []gpu.Device) string {
	counts, bad, simulated := map[string]int{}, 0, 0
	for i := range devices {
		d := &devices[i]
		counts[string(d.State)]++
		if d.Missing || d.Health == gpu.Unhealthy {
			bad++
		}
		if d.Simulated {
			simulated++
		}
	}
	if len(devices) == 0 {
		return "none"
	}
	text := fmt.Sprintf("%d: %s", len(devices), countsText(counts, []string{"free", "held", "releasing", "stuck"}))
	if bad > 0 {
		text += fmt.Sprintf("; %d unhealthy or missing", bad)
	}
	if simulated > 0 {
		text += fmt.Sprintf("; %d SIMULATED", simulated)
	}
	return text
}

var (
	statusOrder = []string{"PENDING", "RUNNING", "STOPPED", "FAILED", "DELETED"}
	phaseOrder  = []string{"pending", "assigned", "pulling", "starting", "running", "stopping", "succeeded", "failed", "stopped", "lost"}
)

// countsText lists what there is any of, known names first and in their order.
func countsText(counts map[string]int, order []string) string {
	var parts []string
	for _, name := range append(slices.Clone(order), slices.Sorted(maps.Keys(counts))...) {
		part := fmt.Sprintf("%d %s", counts[name], name)
		if counts[name] > 0 && !slices.Contains(parts, part) {
			parts = append(parts, part)
		}
	}
	return orText(strings.Join(parts, ", "), "none")
}
