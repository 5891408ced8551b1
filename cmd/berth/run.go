package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/gpu"
	"berth/workspace"
)

func (a *app) runCommand() *cobra.Command {
	return noun("run", "Executions of instances: one container each", []string{"runs"}, a.runLs(), a.runGet())
}

func runKind(n *names) kind[workspace.Run] {
	return kind[workspace.Run]{
		id:   func(r *workspace.Run) string { return r.ID },
		name: func(r *workspace.Run) string { return r.ID },
		columns: []column[workspace.Run]{
			{title: "ID", cell: func(r *workspace.Run) string { return r.ID }},
			{title: "INSTANCE", cell: func(r *workspace.Run) string { return orText(n.instance(r.Instance), r.Name) }},
			{title: "ATTEMPT", cell: func(r *workspace.Run) string { return strconv.Itoa(r.Attempt) }},
			{title: "PHASE", cell: func(r *workspace.Run) string { return string(r.Phase) }},
			{title: "REASON", cell: func(r *workspace.Run) string { return r.Reason }},
			{title: "NODE", cell: func(r *workspace.Run) string { return n.node(r.Node) }},
			{title: "GPUS", cell: func(r *workspace.Run) string { return strconv.Itoa(len(r.Devices)) }},
			{title: "EXIT", cell: exitText},
			{title: "COST", cell: costText},
			{title: "AGE", cell: func(r *workspace.Run) string { return age(r.Times.Created) }},
			{title: "ENDS", cell: runEndText},
			{title: "WORKSPACE", wide: true, cell: func(r *workspace.Run) string { return n.workspace(r.Workspace) }},
			{title: "USER", wide: true, cell: func(r *workspace.Run) string { return r.User }},
			{title: "MESSAGE", wide: true, cell: func(r *workspace.Run) string { return r.Message }},
		},
		detail: func(r *workspace.Run) []section { return runDetail(n, r) },
	}
}

func runDetail(n *names, r *workspace.Run) []section {
	about := []section{
		{label: "ID", text: r.ID},
		{label: "Name", text: r.Name},
		{label: "Instance", text: n.instance(r.Instance)},
		{label: "Attempt", text: strconv.Itoa(r.Attempt)},
		{label: "Workspace", text: n.workspace(r.Workspace)},
		{label: "User", text: r.User},
		{label: "Kind", text: string(r.Kind)},
		{label: "Phase", text: string(r.Phase)},
		{label: "Reason", text: r.Reason},
		{label: "Message", text: r.Message},
		{label: "Since", text: moment(r.Since)},
		{label: "Wanted", text: string(r.Desired)},
		{label: "Stop reason", text: r.StopReason},
		{label: "Image", text: imageText(&r.Spec)},
		{label: "Resources", text: runResources(r)},
		{label: "Node", text: n.node(r.Node)},
		{label: "Devices", text: unreleasedText(r), rows: n.deviceRows(r)},
		{label: "Exit code", text: exitText(r)},
		{label: "Replaces", text: r.Replaces},
	}
	var warnings []workspace.Warning
	if r.Warning != nil && !r.Phase.Terminal() {
		warnings = append(warnings, *r.Warning)
	}
	return slices.Concat(about, n.warningSections(warnings, n.instance(r.Instance), r.ID, r.Workspace), moneySections(r), resultSections(r),
		[]section{{label: "Times", rows: timeRows(&r.Times)}})
}

func runResources(r *workspace.Run) string {
	if r.Kind == workspace.KindExternal {
		return "" // it has them elsewhere
	}
	return resourcesText(&r.Resources)
}

func unreleasedText(r *workspace.Run) string {
	if r.Phase.Terminal() && r.Unreleased {
		return "the run is over, its node hasn't confirmed yet that they are free"
	}
	return ""
}

func imageText(s *workspace.RunSpec) string {
	if s.ImageDigest == "" {
		return s.Image
	}
	return s.Image + " @ " + s.ImageDigest
}

func exitText(r *workspace.Run) string {
	switch {
	case r.OOM:
		return "out of memory"
	case r.ExitCode != nil:
		return strconv.Itoa(*r.ExitCode)
	}
	return ""
}

func timeRows(t *workspace.RunTimes) [][]string {
	var rows [][]string
	for _, phase := range []struct {
		name string
		at   time.Time
	}{
		{"created", t.Created}, {"assigned", t.Assigned}, {"pulling", t.Pulling}, {"starting", t.Starting},
		{"running", t.Running}, {"stopping", t.Stopping}, {"ended", t.Ended},
	} {
		if !phase.at.IsZero() {
			rows = append(rows, []string{phase.name, phase.at.UTC().Format(preciseTime)})
		}
	}
	return rows
}

const preciseTime = "2006-01-02T15:04:05.000Z"

// deviceRows are the devices of a run, with their types where they can be asked for.
func (n *names) deviceRows(r *workspace.Run) [][]string {
	return each(r.Devices, func(d workspace.Allotment) []string {
		row := []string{d.UUID, ""}
		if device, err := n.cl.Device(n.ctx, d.UUID); err == nil {
			row[1] = device.Type
		}
		if d.Milli < gpu.MilliPerDevice {
			row = append(row, fmt.Sprintf("%d/%d", d.Milli, gpu.MilliPerDevice))
		}
		return row
	})
}

func (a *app) runLs() *cobra.Command {
	var everywhere bool
	var instance, phase, only string
	c := lsVerb(a, cobra.Command{
		Short: "List runs",
		Long: `Lists the runs of a workspace, oldest first, ended ones too. A start makes a run;
a run never starts twice and never moves.`,
		Example: `  berth run ls --instance demo
  berth run ls --phase running -A
  berth run ls --watch`,
	}, source[workspace.Run]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Run, error) {
			o := client.ListOptions{Phase: phase, Kind: only}
			if everywhere {
				o.Workspace = "*"
			}
			if instance == "" {
				return all(ctx, cl.Runs, o)
			}
			i, err := cl.Instance(ctx, instance)
			if err != nil {
				return nil, err
			}
			o.Instance = i.ID
			return all(ctx, cl.Runs, o)
		},
		kind: runKind,
	})
	c.Flags().BoolVarP(&everywhere, "all-workspaces", "A", false, "of all workspaces")
	c.Flags().StringVar(&instance, "instance", "", "only those of one instance")
	c.Flags().StringVar(&phase, "phase", "", "only those in a phase, such as running")
	c.Flags().StringVar(&only, "kind", "", "only interactive, job or external ones")
	must(c.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"interactive", "job", "external"}, cobra.ShellCompDirectiveNoFileComp)))
	must(c.RegisterFlagCompletionFunc("instance", a.complete(instanceNames)))
	return c
}

func (a *app) runGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:               "get ID",
		Short:             "Show one run: image, node, GPUs, times, exit code",
		Example:           `  berth run get 0190a2b4-0000-7000-8000-000000000001 -o json`,
		Args:              takes("ID"),
		ValidArgsFunction: a.completeOne(runIDs),
	}, func(ctx context.Context, cl *client.Client, id string) (*workspace.Run, error) {
		return cl.Run(ctx, id)
	}, runKind)
}
