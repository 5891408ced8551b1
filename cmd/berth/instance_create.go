package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// creating gathers a request for an instance: a file first, flags over it.
type creating struct {
	file      string
	template  string
	variables []string
	request   workspace.NewInstance
	resources workspace.ResourceRequest // from flags
	gpus      int
	gpuType   string
	restart   workspace.RestartPolicy // from flags, as are the next two
	policy    string
	volume    string
	noStart   bool
	dryRun    bool
	wait      waiting
	ends      ends
}

func (a *app) instanceCreate() *cobra.Command {
	n := &creating{}
	c := &cobra.Command{
		Use:     "create [NAME]",
		Aliases: []string{"new"},
		Short:   "Make an instance of a template and start it",
		Long: `Makes an instance of a template and starts it. What isn't given comes from the
template, then from the cluster: no GPU, 1 core, 2GiB memory, 10GiB storage.

Sizes are a number and a unit: 512MiB, 40GiB, 1TiB; GB means GiB, a plain number
is MiB. --gpu-type takes what device ls shows or the beginning of it, and several
with a bar between: 'A100|H100'.

-f reads the request from a file, YAML or JSON with the keys of the API (name,
template.name, template.variables, resources.gpu_count, …); - is standard input.
Flags go over it.

--dry-run makes nothing: it says whether the instance would get its place now,
and ends with exit code 5 when it would not.`,
		Example: `  berth instance create demo --template demo --gpus 1 --wait
  berth instance create train --template pytorch --gpus 4 --gpu-type A100 --gpu-memory 40GiB --cpus 16 --memory 64GiB
  berth instance create nb --template jupyter-notebook --gpus 1 --lifetime 8h --wait
  berth instance create nb2 --template jupyter-notebook --volume 01980000-0000-7000-800d-000000000007
  berth instance create -f instance.yaml --dry-run`,
		Args:              takes("[NAME]"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			if err := n.gather(c, a.stdin, args); err != nil {
				return err
			}
			if n.dryRun {
				return a.dryRun(c.Context(), cl, &n.request)
			}
			return a.create(c.Context(), cl, n)
		}),
	}
	n.addFlags(c)
	must(c.RegisterFlagCompletionFunc("template", a.complete(templateNames)))
	must(c.RegisterFlagCompletionFunc("volume", a.complete(detachedVolumes)))
	must(c.RegisterFlagCompletionFunc("restart", cobra.FixedCompletions([]string{"never", "on-loss", "on-failure", "always"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (n *creating) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&n.file, "file", "f", "", "read the request from a file (- is standard input)")
	n.addChoices(c)
	f.StringVar((*string)(&n.restart.Mode), "restart", "", "which ends are followed by another run: never, on-loss, on-failure or always")
	f.IntVar(&n.restart.MaxRestarts, "max-restarts", 0, "how many restarts in a row before it stays FAILED (0: without end)")
	f.BoolVar(&n.noStart, "no-start", false, "make it, but don't start it")
	n.wait.addFlags(c, "running")
}

// addChoices adds the flags that jobs have too.
func (n *creating) addChoices(c *cobra.Command) {
	f := c.Flags()
	f.StringVarP(&n.template, "template", "t", "", "what to make it of (berth template ls)")
	f.StringArrayVar(&n.variables, "var", nil, "value for a variable of the template, as name=value; repeat for more")
	f.IntVar(&n.gpus, "gpus", 0, "number of GPUs")
	f.StringVar(&n.gpuType, "gpu-type", "", "which GPUs will do, such as A100 or 'A100|H100'")
	f.Var(sizeFlag{&n.resources.GPUMemoryMiB}, "gpu-memory", "memory each GPU must have at least")
	f.Var(coresFlag{&n.resources.CPUMilli}, "cpus", "processor cores, such as 1.5")
	f.Var(sizeFlag{&n.resources.MemoryMiB}, "memory", "memory, such as 512MiB")
	f.Var(sizeFlag{&n.resources.StorageMiB}, "storage", "size of its volume")
	f.StringVar(&n.policy, "storage-policy", "", "of its volume once it is deleted: retain, delete or retain:DAYS")
	f.StringVar(&n.volume, "volume", "", "id of a volume to go on with (berth volume ls)")
	f.StringVar(&n.request.Description, "description", "", "a text for people")
	f.BoolVar(&n.dryRun, "dry-run", false, "make nothing, say whether it would get a place now")
	n.ends.addFlags(c)
}

// gather makes the request of the file, the flags and the name.
func (n *creating) gather(c *cobra.Command, stdin io.Reader, args []string) error {
	if n.file != "" {
		description := n.request.Description
		if err := readDocument(n.file, stdin, &n.request); err != nil {
			return err
		}
		if description != "" {
			n.request.Description = description
		}
	}
	if len(args) > 0 {
		n.request.Name = args[0]
	}
	if n.template != "" {
		n.request.Template.Name = n.template
	}
	switch {
	case n.request.Name == "":
		return usagef("%s needs a NAME, or -f with a name in the file", c.CommandPath())
	case n.request.Template.Name == "":
		return usagef("%s needs --template: see berth template ls", c.CommandPath())
	case n.noStart && n.wait.on:
		return usagef("--no-start and --wait exclude each other: what isn't started is never running")
	}
	if n.noStart {
		n.request.Start = new(bool)
	}
	if c.Flags().Changed("gpus") {
		n.resources.GPUCount = &n.gpus
	}
	if c.Flags().Changed("gpu-type") {
		n.resources.GPUType = &n.gpuType
	}
	n.mergeResources()
	n.mergePolicies(c)
	if err := n.ends.merge(&n.request, time.Now()); err != nil {
		return err
	}
	return n.mergeVariables()
}

// mergeResources puts the flags over what the file says.
func (n *creating) mergeResources() {
	r := &n.request.Resources
	over(&r.GPUCount, n.resources.GPUCount)
	over(&r.GPUType, n.resources.GPUType)
	over(&r.GPUMemoryMiB, n.resources.GPUMemoryMiB)
	over(&r.CPUMilli, n.resources.CPUMilli)
	over(&r.MemoryMiB, n.resources.MemoryMiB)
	over(&r.StorageMiB, n.resources.StorageMiB)
}

// mergePolicies puts what becomes of its runs and its volume over the file.
func (n *creating) mergePolicies(c *cobra.Command) {
	r := &n.request
	r.RestartPolicy.Mode = workspace.RestartMode(orText(string(n.restart.Mode), string(r.RestartPolicy.Mode)))
	if c.Flags().Changed("max-restarts") {
		r.RestartPolicy.MaxRestarts = n.restart.MaxRestarts
	}
	r.StoragePolicy, r.Volume = orText(n.policy, r.StoragePolicy), orText(n.volume, r.Volume)
}

func over[T any](field **T, value *T) {
	if value != nil {
		*field = value
	}
}

func (n *creating) mergeVariables() error {
	for _, v := range n.variables {
		name, value, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return usagef("--var %q must be name=value", v)
		}
		if n.request.Template.Variables == nil {
			n.request.Template.Variables = map[string]string{}
		}
		n.request.Template.Variables[name] = value
	}
	return nil
}

// readDocument reads a file of YAML or JSON; - is standard input.
func readDocument(file string, stdin io.Reader, v any) error {
	read := func() ([]byte, error) { return os.ReadFile(file) }
	if file == "-" {
		read = func() ([]byte, error) { return io.ReadAll(stdin) }
	}
	text, err := read()
	if err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	if err := unmarshalYAML(text, v); err != nil {
		return usagef("%s can't be read: %v", file, err)
	}
	return nil
}

func (a *app) create(ctx context.Context, cl *client.Client, n *creating) error {
	inst, err := cl.CreateInstance(ctx, n.request)
	if err != nil {
		return err
	}
	if n.wait.on {
		if inst, err = a.waitFor(ctx, cl, inst.ID, "running", n.wait.timeout); err != nil {
			return err
		}
	}
	return a.tellState(ctx, cl, inst, false)
}

// dryRun says whether a request could be carried out: whether the template
// takes its variables, and whether there is a place now.
func (a *app) dryRun(ctx context.Context, cl *client.Client, r *workspace.NewInstance) error {
	if err := workspace.ValidateLabel("name", r.Name, workspace.MaxInstanceName); err != nil {
		return err
	}
	t, err := cl.Template(ctx, r.Template.Name)
	if err != nil {
		return err
	}
	if _, _, _, err := t.Render(r.Template.Variables, func() string { return "generated" }); err != nil {
		return err
	}
	p, err := cl.DryRun(ctx, workspace.DryRun{Template: r.Template.Name, Resources: r.Resources})
	if err != nil {
		return err
	}
	k := kind[workspace.Placement]{name: func(p *workspace.Placement) string { return p.Node }}
	if err := did(a, k, p, "%s: %s", r.Name, placementText(newNames(ctx, cl), p)); err != nil {
		return err
	}
	if !p.Fits {
		return workspace.Errorf(workspace.CodeConflict, "%s would get no place now", r.Name)
	}
	return nil
}
