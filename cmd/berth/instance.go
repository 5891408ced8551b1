package main

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) instanceCommand() *cobra.Command {
	return noun("instance", "Environments: create, start, stop, look at", []string{"instances", "inst", "i"},
		a.instanceLs(), a.instanceGet(), a.instanceCreate(),
		a.instanceStart(), a.instanceStop(), a.instanceRestart(), a.instanceRm(), a.instanceExtend(), a.instanceWait(), a.instanceExplain(),
		a.instanceAccess(), a.execCommand(), a.logsCommand(), a.portForwardCommand(), a.cpCommand())
}

// instanceKind shows instances; everywhere adds the workspace.
func instanceKind(n *names, everywhere bool) kind[workspace.Instance] {
	k := kind[workspace.Instance]{
		id:   func(i *workspace.Instance) string { return i.ID },
		name: func(i *workspace.Instance) string { return i.Name },
		columns: []column[workspace.Instance]{
			{title: "NAME", cell: func(i *workspace.Instance) string { return i.Name }},
			{title: "WORKSPACE", wide: !everywhere, cell: func(i *workspace.Instance) string { return n.workspace(i.Workspace) }},
			{title: "STATUS", cell: func(i *workspace.Instance) string { return string(i.Status) }},
			{title: "REASON", cell: reasonText},
			{title: "GPUS", cell: func(i *workspace.Instance) string { return gpusText(&i.Resources) }},
			{title: "CPUS", cell: func(i *workspace.Instance) string { return formatCores(i.Resources.CPUMilli) }},
			{title: "MEMORY", cell: func(i *workspace.Instance) string { return formatSize(i.Resources.MemoryMiB) }},
			{title: "TEMPLATE", cell: func(i *workspace.Instance) string { return i.Template.Name }},
			{title: "ACCESS", cell: accessText},
			{title: "AGE", cell: func(i *workspace.Instance) string { return age(i.CreatedAt) }},
			{title: "ENDS", cell: endText},
			{title: "OWNER", wide: true, cell: func(i *workspace.Instance) string { return i.Owner }},
			{title: "ID", wide: true, cell: func(i *workspace.Instance) string { return i.ID }},
			{title: "MESSAGE", wide: true, cell: func(i *workspace.Instance) string { return i.Message }},
		},
	}
	k.detail = func(i *workspace.Instance) []section { return instanceDetail(n, i) }
	return k
}

// reasonText is an instance's reason, with how much of its image it has while it
// waits for that.
func reasonText(i *workspace.Instance) string {
	if percent, ok := pulled(i); ok {
		return fmt.Sprintf("%s %d %%", i.Reason, percent)
	}
	return i.Reason
}

// accessText is the first address of an instance, and how many more it has.
func accessText(i *workspace.Instance) string {
	switch len(i.Access) {
	case 0:
		return ""
	case 1:
		return accessURL(i.Access[0])
	}
	return fmt.Sprintf("%s +%d", accessURL(i.Access[0]), len(i.Access)-1)
}

// gpusText is what is asked for, such as "2×A100" or "0.5".
func gpusText(r *workspace.Resources) string {
	count := strconv.Itoa(r.GPUCount)
	if r.Shared() {
		count = strconv.FormatFloat(float64(r.GPUShare)/1000, 'f', -1, 64)
	}
	if r.GPUCount > 0 && r.GPUType != "" {
		return count + "×" + r.GPUType
	}
	return count
}

func instanceDetail(n *names, i *workspace.Instance) []section {
	state := []section{
		{label: "Name", text: i.Name},
		{label: "Description", text: i.Description},
		{label: "ID", text: i.ID},
		{label: "Workspace", text: n.workspace(i.Workspace)},
		{label: "Owner", text: i.Owner},
		{label: "Status", text: string(i.Status)},
		{label: "Reason", text: i.Reason},
		{label: "Message", text: i.Message},
		{label: "Since", text: moment(i.Since)},
		{label: "Wanted", text: string(i.Desired)},
	}
	request := []section{
		{label: "Access", rows: each(i.Access, accessCells)},
		{label: "Template", text: i.Template.Name},
		{label: "Variables", rows: variableRows(i.Template.Variables)},
		{label: "Resources", text: resourcesText(&i.Resources)},
		{label: "Storage policy", text: i.StoragePolicy},
		{label: "Restart policy", text: restartText(i.RestartPolicy)},
		{label: "Volume", text: i.Volume},
		{label: "To be deleted", text: endMoment(i.ToBeDeletedAt)},
		{label: "Created", text: moment(i.CreatedAt)},
	}
	return slices.Concat(state, n.warningSections(i.Warnings, i.Name, i.Run, i.Workspace), n.runSections(i), request)
}

// runSections are about the instance's latest run.
func (n *names) runSections(i *workspace.Instance) []section {
	if i.Run == "" {
		return nil
	}
	run, err := n.cl.Run(n.ctx, i.Run)
	if err != nil {
		return []section{{label: "Run", text: i.Run}}
	}
	return []section{
		{label: "Run", text: fmt.Sprintf("%s (attempt %d, %s)", run.ID, run.Attempt, run.Phase)},
		{label: "Node", text: n.node(run.Node)},
		{label: "Devices", rows: n.deviceRows(run)},
		{label: "Exit code", text: exitText(run)},
		{label: "Rate", text: rateText(run)},
		{label: "Cost", text: costText(run)},
		{label: "Given up", text: endMoment(run.ExpiresAt)},
		{label: "Max duration", text: maxDurationText(run)},
	}
}

func resourcesText(r *workspace.Resources) string {
	gpus := "GPUs"
	if r.GPUCount == 1 {
		gpus = "GPU"
	}
	text := fmt.Sprintf("%s %s, %s cores, %s memory, %s storage",
		gpusText(r), gpus, formatCores(r.CPUMilli), formatSize(r.MemoryMiB), formatSize(r.StorageMiB))
	if r.GPUMemoryMiB > 0 {
		text += ", " + gpus + " of at least " + formatSize(r.GPUMemoryMiB)
	}
	return text
}

func restartText(p workspace.RestartPolicy) string {
	if p.MaxRestarts == 0 {
		return string(p.Mode)
	}
	return fmt.Sprintf("%s, at most %d times in a row", p.Mode, p.MaxRestarts)
}

func accessCells(i workspace.AccessInfo) []string {
	return []string{i.Protocol, accessURL(i), i.Name}
}

func accessURL(i workspace.AccessInfo) string {
	return strings.ToLower(i.Protocol) + "://" + net.JoinHostPort(i.Host, strconv.Itoa(i.Port)) + safePath(i.Path)
}

// moment is a time and how long ago it was.
func moment(at time.Time) string {
	switch {
	case at.IsZero():
		return ""
	case time.Until(at) > 0:
		return at.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s (%s ago)", at.UTC().Format(time.RFC3339), age(at))
}

func (a *app) instanceLs() *cobra.Command {
	var everywhere bool
	var o client.ListOptions
	c := lsVerb(a, cobra.Command{
		Short: "List instances",
		Long: `Lists the instances of a workspace, oldest first. With --watch it goes on and
shows each that changes, as a row, or as a line of JSON.`,
		Example: `  berth instance ls
  berth instance ls --status FAILED -o wide
  berth instance ls --watch --timeout 1m
  berth instance ls -o json | jq '.[].name'`,
	}, source[workspace.Instance]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Instance, error) {
			o := o
			o.Status = strings.ToUpper(o.Status)
			if everywhere {
				o.Workspace = "*"
			}
			return all(ctx, cl.Instances, o)
		},
		kind: func(n *names) kind[workspace.Instance] { return instanceKind(n, everywhere) },
	})
	c.Flags().BoolVarP(&everywhere, "all-workspaces", "A", false, "of all workspaces")
	c.Flags().StringVar(&o.Status, "status", "", "only PENDING, RUNNING, STOPPED, FAILED or DELETED ones")
	must(c.RegisterFlagCompletionFunc("status", cobra.FixedCompletions([]string{"PENDING", "RUNNING", "STOPPED", "FAILED", "DELETED"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (a *app) instanceGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:   "get NAME",
		Short: "Show one instance, its run and how to get in",
		Long: `Shows all that is known of an instance: its status with reason and message, what
it asked for, its latest run with node and GPUs, and the addresses it listens on.`,
		Example: `  berth instance get demo
  berth instance get demo -o yaml`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(instanceNames),
	}, func(ctx context.Context, cl *client.Client, ref string) (*workspace.Instance, error) {
		return cl.Instance(ctx, ref)
	}, func(n *names) kind[workspace.Instance] { return instanceKind(n, false) })
}

func (a *app) instanceExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain NAME",
		Short: "Say why an instance is as it is, and what it waits for",
		Long: `Says why an instance is in its state. For one that waits it asks the scheduler
again: what each node lacks, and whether waiting can help.`,
		Example:           `  berth instance explain demo`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(instanceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			e, err := cl.Explain(c.Context(), args[0])
			if err != nil {
				return err
			}
			return showOne(a, explanationKind(newNames(c.Context(), cl)), e)
		}),
	}
}

func explanationKind(n *names) kind[workspace.Explanation] {
	return kind[workspace.Explanation]{
		name: func(e *workspace.Explanation) string { return e.Name },
		detail: func(e *workspace.Explanation) []section {
			sections := []section{
				{label: "Name", text: e.Name},
				{label: "Status", text: string(e.Status)},
				{label: "Reason", text: e.Reason},
				{label: "Message", text: e.Message},
				{label: "Since", text: moment(e.Since)},
				{label: "Run", text: e.Run},
				{label: "Phase", text: string(e.Phase)},
			}
			if e.Placement != nil {
				sections = append(sections, section{label: "Placement now", text: placementText(n, e.Placement)})
			}
			return sections
		},
	}
}

// placementText says in a sentence where a run would go, or why nowhere.
func placementText(n *names, p *workspace.Placement) string {
	switch {
	case p.Fits && len(p.Devices) > 0:
		uuids := each(p.Devices, func(d workspace.Allotment) string { return d.UUID })
		return fmt.Sprintf("fits on %s with %s", n.node(p.Node), strings.Join(uuids, ", "))
	case p.Fits:
		return "fits on " + n.node(p.Node)
	case p.Final:
		return fmt.Sprintf("never fits (%s): %s", p.Reason, p.Message)
	}
	return fmt.Sprintf("waits (%s): %s", p.Reason, p.Message)
}

func variableRows(values map[string]string) [][]string {
	return each(slices.Sorted(maps.Keys(values)), func(name string) []string { return []string{name, values[name]} })
}
