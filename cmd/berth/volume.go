package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) volumeCommand() *cobra.Command {
	return noun("volume", "Disks of instances, also of those that are gone", []string{"volumes", "vol"},
		a.volumeLs(), a.volumeGet(), a.volumeKeep(), a.volumeRm())
}

func volumeKind(n *names, everywhere bool) kind[workspace.Volume] {
	return kind[workspace.Volume]{
		id:   func(v *workspace.Volume) string { return v.ID },
		name: func(v *workspace.Volume) string { return v.ID },
		columns: []column[workspace.Volume]{
			{title: "ID", cell: func(v *workspace.Volume) string { return v.ID }},
			{title: "WORKSPACE", wide: !everywhere, cell: func(v *workspace.Volume) string { return n.workspace(v.Workspace) }},
			{title: "INSTANCE", cell: func(v *workspace.Volume) string { return v.Name }},
			{title: "NODE", cell: func(v *workspace.Volume) string { return n.node(v.Node) }},
			{title: "SIZE", cell: func(v *workspace.Volume) string { return formatSize(v.SizeMiB) }},
			{title: "STATE", cell: volumeState},
			{title: "POLICY", cell: func(v *workspace.Volume) string { return v.Policy }},
			{title: "GOES", cell: volumeEnd},
			{title: "AGE", cell: func(v *workspace.Volume) string { return age(v.CreatedAt) }},
			{title: "MESSAGE", wide: true, cell: func(v *workspace.Volume) string { return v.Message }},
		},
		detail: func(v *workspace.Volume) []section {
			return []section{
				{label: "ID", text: v.ID},
				{label: "Workspace", text: n.workspace(v.Workspace)},
				{label: "Instance", text: strings.TrimSpace(v.Name + " " + v.Instance)},
				{label: "Node", text: n.node(v.Node)},
				{label: "Size", text: formatSize(v.SizeMiB)},
				{label: "State", text: volumeState(v)},
				{label: "Reason", text: v.Reason},
				{label: "Message", text: v.Message},
				{label: "Storage policy", text: v.Policy},
				{label: "To be deleted", text: moment(v.PurgeAt)},
				{label: "Created", text: moment(v.CreatedAt)},
				{label: "Updated", text: moment(v.UpdatedAt)},
			}
		},
	}
}

// volumeState is the one word that matters most about a volume.
func volumeState(v *workspace.Volume) string {
	switch {
	case v.Lost():
		return "lost"
	case v.Purging:
		return "purging"
	case v.Detached:
		return "detached"
	case !v.Made:
		return "planned"
	}
	return "attached"
}

// volumeEnd is when a volume goes by itself.
func volumeEnd(v *workspace.Volume) string {
	switch {
	case v.Purging:
		return "now"
	case v.PurgeAt.IsZero():
		return ""
	}
	return "in " + formatDuration(time.Until(v.PurgeAt))
}

func (a *app) volumeLs() *cobra.Command {
	var everywhere bool
	c := lsVerb(a, cobra.Command{
		Short: "List the volumes of a workspace",
		Long: `Lists the volumes of a workspace. attached: its instance has it; detached: its
instance is gone, and the volume goes by its policy at the time shown, unless it is
kept or taken on (berth instance create --volume); lost: its node doesn't have it
any more.`,
		Example: `  berth volume ls
  berth volume ls -A -o wide`,
	}, source[workspace.Volume]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.Volume, error) {
			o := client.ListOptions{}
			if everywhere {
				o.Workspace = "*"
			}
			return all(ctx, cl.Volumes, o)
		},
		kind: func(n *names) kind[workspace.Volume] { return volumeKind(n, everywhere) },
	})
	c.Flags().BoolVarP(&everywhere, "all-workspaces", "A", false, "of all workspaces")
	return c
}

func (a *app) volumeGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:               "get ID",
		Short:             "Show one volume",
		Example:           `  berth volume get 01980000-0000-7000-800d-000000000007`,
		Args:              takes("ID"),
		ValidArgsFunction: a.completeOne(volumeIDs),
	}, func(ctx context.Context, cl *client.Client, id string) (*workspace.Volume, error) {
		return cl.Volume(ctx, id)
	}, func(n *names) kind[workspace.Volume] { return volumeKind(n, false) })
}

func (a *app) volumeKeep() *cobra.Command {
	var policy string
	c := &cobra.Command{
		Use:   "keep ID...",
		Short: "Keep volumes whose instance is gone",
		Long: `Keeps volumes that would go by their storage policy: until someone removes them, or
as long as --policy says from now on.`,
		Example: `  berth volume keep 01980000-0000-7000-800d-000000000007
  berth volume keep 01980000-0000-7000-800d-000000000007 --policy retain:90`,
		Args:              takes("ID..."),
		ValidArgsFunction: a.complete(detachedVolumes),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			k := volumeKind(newNames(c.Context(), cl), false)
			for _, id := range args {
				v, err := cl.KeepVolume(c.Context(), id, policy)
				if err != nil {
					return err
				}
				until := "until it is removed"
				if !v.PurgeAt.IsZero() {
					until = "until " + v.PurgeAt.UTC().Format(time.RFC3339)
				}
				if err := did(a, k, v, "volume %s is kept %s", v.ID, until); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	c.Flags().StringVar(&policy, "policy", "retain", "retain or retain:DAYS")
	return c
}

func (a *app) volumeRm() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use:     "rm ID...",
		Aliases: []string{"delete", "remove"},
		Short:   "Delete volumes whose instance is gone, with all that is on them",
		Long: `Deletes volumes for good. One that an instance has is refused: delete the instance
first. There is no way back, so on a terminal it asks first.`,
		Example:           `  berth volume rm 01980000-0000-7000-800d-000000000007 --yes`,
		Args:              takes("ID..."),
		ValidArgsFunction: a.complete(detachedVolumes),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			for _, id := range args {
				if !yes && isTerminal(a.stdin) {
					if err := a.confirm("Delete volume %s and all that is on it?", id); err != nil {
						return err
					}
				}
				if err := cl.RemoveVolume(c.Context(), id); err != nil {
					return err
				}
				a.say("volume %s is being deleted", id)
			}
			return nil
		}),
	}
	c.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	return c
}
