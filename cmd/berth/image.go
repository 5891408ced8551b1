package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) imageCommand() *cobra.Command {
	return noun("image", "Container images on the nodes", []string{"images", "img"}, a.imageLs(), a.imagePull(), a.imageImport(), a.imageRm())
}

func imageKind(*names) kind[workspace.ImageOnNode] {
	return kind[workspace.ImageOnNode]{
		id:   func(i *workspace.ImageOnNode) string { return i.Node + " " + i.Reference },
		name: func(i *workspace.ImageOnNode) string { return i.Reference },
		columns: []column[workspace.ImageOnNode]{
			{title: "REFERENCE", cell: func(i *workspace.ImageOnNode) string { return i.Reference }},
			{title: "NODE", cell: func(i *workspace.ImageOnNode) string { return i.NodeName }},
			{title: "SIZE", cell: func(i *workspace.ImageOnNode) string { return formatBytes(i.Size) }},
			{title: "DIGEST", cell: func(i *workspace.ImageOnNode) string { return i.Digest }},
		},
	}
}

func (a *app) imageLs() *cobra.Command {
	var o client.ListOptions
	c := lsVerb(a, cobra.Command{
		Short: "List images, a row for each node that has one",
		Example: `  berth image ls
  berth image ls --node gpu-1`,
	}, source[workspace.ImageOnNode]{
		fetch: func(ctx context.Context, cl *client.Client) ([]workspace.ImageOnNode, error) {
			return all(ctx, cl.Images, o)
		},
		kind: imageKind,
	})
	c.Flags().StringVar(&o.Node, "node", "", "only those of one node")
	must(c.RegisterFlagCompletionFunc("node", a.complete(nodeNames)))
	return c
}

func (a *app) imageImport() *cobra.Command {
	var o client.ImportOptions
	c := &cobra.Command{
		Use:   "import FILE",
		Short: "Store the images of an OCI archive on a node",
		Long: `Stores the images of an OCI archive (a tar file, such as docker save or skopeo
copy … oci-archive: write) on a node; - is standard input. Hosts without a way to
a registry get their images so.`,
		Example: `  berth image import demo.tar
  berth image import demo.tar --name demo:latest --node gpu-1
  skopeo copy docker://debian:12 oci-archive:/dev/stdout | berth image import - --name debian:12`,
		Args: takes("FILE"),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			archive, size, err := a.openArchive(args[0])
			if err != nil {
				return err
			}
			defer archive.Close()
			images, err := a.sendArchive(c.Context(), cl, archive, size, o)
			if err != nil {
				return err
			}
			return a.tellImported(images)
		}),
	}
	c.Flags().StringVar(&o.Node, "node", "", "node to store it on (default: the daemon's host)")
	c.Flags().StringVar(&o.Name, "name", "", "reference to store it under (default: what the archive says)")
	must(c.RegisterFlagCompletionFunc("node", a.complete(nodeNames)))
	return c
}

// openArchive gives a file and its size, 0 for standard input.
func (a *app) openArchive(file string) (io.ReadCloser, int64, error) {
	if file == "-" {
		return io.NopCloser(a.stdin), 0, nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, fmt.Errorf("read the archive: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory: give an OCI archive, a tar file", file)
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// progressStep keeps the display from costing more than the transfer.
const progressStep = 4 << 20

func (a *app) sendArchive(ctx context.Context, cl *client.Client, archive io.Reader, size int64, o client.ImportOptions) ([]workspace.NodeImage, error) {
	p := newProgress(a.stderr)
	defer p.done()
	if !p.live {
		return cl.ImportImage(ctx, archive, o, nil)
	}
	next := int64(0)
	return cl.ImportImage(ctx, archive, o, func(sent int64) {
		switch {
		case sent < next && sent != size:
		case size > 0:
			p.show(fmt.Sprintf("sent %s of %s (%d %%)", formatBytes(sent), formatBytes(size), 100*sent/size))
			next = sent + progressStep
		default:
			p.show("sent " + formatBytes(sent))
			next = sent + progressStep
		}
	})
}

func (a *app) tellImported(images []workspace.NodeImage) error {
	switch {
	case a.machine():
		return a.writeDocument(images)
	case a.output == "name":
		for _, i := range images {
			fmt.Fprintln(a.stdout, printable(i.Reference))
		}
	default:
		for _, i := range images {
			a.say("image %s imported (%s, %s)", i.Reference, i.Digest, formatBytes(i.Size))
		}
	}
	return nil
}

func (a *app) imageRm() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:               "rm REFERENCE...",
		Aliases:           []string{"delete", "remove"},
		Short:             "Forget images on a node; running containers keep theirs",
		Example:           `  berth image rm demo:latest --node gpu-1`,
		Args:              takes("REFERENCE..."),
		ValidArgsFunction: a.complete(imageReferences),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			for _, reference := range args {
				if err := cl.RemoveImage(c.Context(), reference, node); err != nil {
					return err
				}
				a.say("image %s removed", reference)
			}
			return nil
		}),
	}
	c.Flags().StringVar(&node, "node", "", "node to remove it from (default: the daemon's host)")
	must(c.RegisterFlagCompletionFunc("node", a.complete(nodeNames)))
	return c
}
