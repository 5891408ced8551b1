package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func (a *app) priceCommand() *cobra.Command {
	return noun("price", "What an hour of a GPU, a core or a GB of memory costs", []string{"prices"},
		a.priceLs(), a.priceSet(), a.priceRm())
}

func priceKind(n *names) kind[workspace.Price] {
	return kind[workspace.Price]{
		id:   func(p *workspace.Price) string { return p.Resource + " " + p.GPUType + " " + p.Node },
		name: priceName,
		columns: []column[workspace.Price]{
			{title: "RESOURCE", cell: func(p *workspace.Price) string { return p.Resource }},
			{title: "GPU TYPE", cell: func(p *workspace.Price) string { return p.GPUType }},
			{title: "NODE", cell: func(p *workspace.Price) string { return n.node(p.Node) }},
			{title: "USD/HOUR", cell: func(p *workspace.Price) string { return usdNumber(p.Amount) }},
		},
	}
}

// priceName is what price set and price rm take.
func priceName(p *workspace.Price) string { return strings.TrimSpace(p.Resource + " " + p.GPUType) }

func (a *app) priceLs() *cobra.Command {
	return &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the price book",
		Long: `Lists what an hour costs: of a GPU by its type (the longest match counts, * is any),
of a core, of a GB of memory. A price with a node is for that node only. What has no
price costs nothing; but a GPU without one can't be started where a budget or a
spending limit applies.`,
		Example:           `  berth price ls`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			book, err := cl.Prices(c.Context())
			if err != nil {
				return err
			}
			a.warnUnpriced(book)
			return showList(a, priceKind(newNames(c.Context(), cl)), book.Items)
		}),
	}
}

// warnUnpriced names GPU types that no price is for.
func (a *app) warnUnpriced(book *workspace.PriceBook) {
	for _, gpuType := range book.Unpriced {
		fmt.Fprintln(a.stderr, printable(fmt.Sprintf(
			"WARNING: GPU type %s has no price: it is free, and can't be started where a money limit applies: berth price set gpu %s AMOUNT", gpuType, gpuType)))
	}
}

// priced reads what a price is for: a resource, and of a gpu its type.
func priced(c *cobra.Command, args []string, more int) (p workspace.Price, rest []string, err error) {
	p.Resource, rest = args[0], args[1:]
	switch {
	case p.Resource != "gpu" && p.Resource != "cpu" && p.Resource != "memory":
		return p, nil, usagef("%q is none of gpu, cpu, memory", p.Resource)
	case p.Resource == "gpu" && len(rest) == more:
		return p, nil, usagef("%s gpu needs a GPU type, such as a100 or '*'", c.CommandPath())
	case p.Resource == "gpu":
		p.GPUType, rest = rest[0], rest[1:]
	}
	if len(rest) > more {
		return p, nil, usagef("%s doesn't take %q: see %s --help", c.CommandPath(), rest[more], c.CommandPath())
	}
	return p, rest, nil
}

func (a *app) priceSet() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:   "set gpu TYPE|cpu|memory AMOUNT",
		Short: "Set the price of an hour of something, in USD",
		Long: `Sets what an hour costs: of one GPU of a type, of a core, of a GB of memory. It
counts for what is placed from now on; what runs keeps its rate. A GPU type may be the
first words of one, in any case (a100 is for A100-SXM4-80GB too); '*' is any. The
longest match counts, and a node's own price over the general one.`,
		Example: `  berth price set gpu a100 2.50
  berth price set gpu '*' 1
  berth price set cpu 0.01
  berth price set memory 0.002 --node gpu-1`,
		Args:              takes("gpu|cpu|memory", "AMOUNT", "[AMOUNT]"),
		ValidArgsFunction: a.completeResource,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			p, rest, err := priced(c, args, 1)
			if err != nil {
				return err
			}
			if p.Amount, err = parseUSD(rest[0]); err != nil {
				return usagef("the price: %v", err)
			}
			p.Node = node
			set, err := cl.SetPrice(c.Context(), p)
			if err != nil {
				return err
			}
			book, err := cl.Prices(c.Context())
			if err != nil {
				return err
			}
			a.warnUnpriced(book)
			n := newNames(c.Context(), cl)
			return did(a, priceKind(n), set, "an hour of %s costs %s%s", priceName(set), workspace.FormatUSD(set.Amount), onNode(n, set))
		}),
	}
	a.addNodeFlag(c, &node)
	return c
}

func onNode(n *names, p *workspace.Price) string {
	if p.Node == "" {
		return ""
	}
	return " on node " + n.node(p.Node)
}

func (a *app) addNodeFlag(c *cobra.Command, node *string) {
	c.Flags().StringVar(node, "node", "", "for this node only, by id or name")
	must(c.RegisterFlagCompletionFunc("node", a.complete(nodeNames)))
}

func (a *app) priceRm() *cobra.Command {
	var node string
	c := &cobra.Command{
		Use:     "rm gpu TYPE|cpu|memory",
		Aliases: []string{"delete", "remove"},
		Short:   "Take a price out of the price book",
		Example: `  berth price rm gpu a100
  berth price rm memory --node gpu-1`,
		Args:              takes("gpu|cpu|memory", "[TYPE]"),
		ValidArgsFunction: a.completeResource,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			p, _, err := priced(c, args, 0)
			if err != nil {
				return err
			}
			p.Node = node
			if err := cl.RemovePrice(c.Context(), p); err != nil {
				return err
			}
			book, err := cl.Prices(c.Context())
			if err != nil {
				return err
			}
			a.warnUnpriced(book)
			a.say("the price of %s%s is taken out", priceName(&p), onNode(newNames(c.Context(), cl), &p))
			return nil
		}),
	}
	a.addNodeFlag(c, &node)
	return c
}

// completeResource offers resources, then the GPU types that the nodes have.
func (a *app) completeResource(c *cobra.Command, args []string, start string) ([]cobra.Completion, cobra.ShellCompDirective) {
	switch {
	case len(args) == 0:
		return []cobra.Completion{"gpu", "cpu", "memory"}, cobra.ShellCompDirectiveNoFileComp
	case len(args) == 1 && args[0] == "gpu":
		return a.complete(gpuTypes)(c, args, start)
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

func gpuTypes(ctx context.Context, cl *client.Client) ([]string, error) {
	devices, err := all(ctx, cl.Devices, client.ListOptions{})
	seen := map[string]bool{}
	var types []string
	for i := range devices {
		if t := devices[i].Type; !seen[t] {
			seen[t] = true
			types = append(types, t)
		}
	}
	return types, err
}
