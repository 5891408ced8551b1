package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) imagePull() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:   "pull REFERENCE",
		Short: "Fetch an image from its registry to a node",
		Long: `Fetches an image from its registry to a node, with the login that is kept for the
registry. Instances fetch theirs by themselves; a pull beforehand saves their wait.
One that breaks off goes on where it was when it is asked for again.`,
		Example: `  berth image pull quay.io/jupyter/minimal-notebook
  berth image pull registry.lab:5000/team/train:v3 --node gpu-1`,
		Args:              takes("REFERENCE"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			image, err := a.pull(c.Context(), cl, workspace.PullRequest{Reference: args[0], Node: node})
			if err != nil {
				return err
			}
			k := kind[workspace.NodeImage]{name: func(i *workspace.NodeImage) string { return i.Reference }}
			return did(a, k, image, "image %s pulled (%s, %s)", image.Reference, image.Digest, formatBytes(image.Size))
		}),
	}
	c.Flags().StringVar(&node, "node", "", "node to fetch it to (default: the daemon's host)")
	must(c.RegisterFlagCompletionFunc("node", a.complete(nodeNames)))
	return c
}

// pull shows a bar on a terminal, elsewhere a line for each tenth.
func (a *app) pull(ctx context.Context, cl *client.Client, r workspace.PullRequest) (*workspace.NodeImage, error) {
	p := newProgress(a.stderr)
	defer p.done()
	tenth := int64(-1)
	return cl.PullImage(ctx, r, func(now workspace.PullProgress) {
		done := int64(0)
		if now.TotalBytes > 0 {
			done = 100 * min(now.DoneBytes, now.TotalBytes) / now.TotalBytes
		}
		rest := fmt.Sprintf("%s of %s, %d of %d layers", formatBytes(now.DoneBytes), formatBytes(now.TotalBytes), now.LayersDone, now.Layers)
		if now.Unpacking {
			done, rest = 100, "unpacking"
		}
		switch {
		case p.live:
			p.show(fmt.Sprintf("%s %d %% %s, %s", bar(int(done)), done, r.Reference, rest))
		case done/10 != tenth || now.Unpacking:
			p.show(fmt.Sprintf("%s %d %%, %s", r.Reference, done, rest))
		}
		tenth = done / 10
	})
}
