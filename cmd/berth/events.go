package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

func eventKind(n *names) kind[workspace.Event] {
	return kind[workspace.Event]{
		id:   func(e *workspace.Event) string { return e.ID },
		name: func(e *workspace.Event) string { return e.ID },
		columns: []column[workspace.Event]{
			{title: "TIME", cell: func(e *workspace.Event) string { return e.At.UTC().Format(preciseTime) }},
			{title: "TYPE", cell: func(e *workspace.Event) string { return e.Type }},
			{title: "INSTANCE", cell: func(e *workspace.Event) string { return n.instance(e.Instance) }},
			{title: "REASON", cell: func(e *workspace.Event) string { return e.Reason }},
			{title: "MESSAGE", cell: func(e *workspace.Event) string { return e.Message }},
			{title: "NODE", wide: true, cell: func(e *workspace.Event) string { return n.node(e.Node) }},
			{title: "BY", wide: true, cell: func(e *workspace.Event) string { return e.Principal }},
			{title: "OBJECT", wide: true, cell: func(e *workspace.Event) string { return e.Object }},
			{title: "ID", wide: true, cell: func(e *workspace.Event) string { return e.ID }},
		},
	}
}

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var last int
	var timeout time.Duration
	var instance, object string
	c := &cobra.Command{
		Use:     "events",
		Aliases: []string{"event"},
		Short:   "Show what happened, and what happens",
		Long: `Shows the latest events of the cluster, oldest first; with --follow it goes on. A
connection that breaks is made again, and no event is left out. In JSON, --follow
writes a line for each event.`,
		Example: `  berth events -f
  berth events --instance demo --last 0
  berth events -f -o json | jq -r .message`,
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, _ []string) error {
			if err := exclusive(c, "instance", "object"); err != nil {
				return err
			}
			if instance != "" {
				i, err := cl.Instance(c.Context(), instance)
				if err != nil {
					return err
				}
				object = i.ID
			}
			if !follow {
				events, err := latestEvents(c.Context(), cl, object, last)
				if err != nil {
					return err
				}
				return showList(a, eventKind(newNames(c.Context(), cl)), events)
			}
			return a.followEvents(c.Context(), cl, object, last, timeout)
		}),
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	c.Flags().DurationVar(&timeout, "timeout", 0, "end --follow after this long (0: never)")
	c.Flags().IntVarP(&last, "last", "n", 50, "how many of those that were; 0 is all that are kept")
	c.Flags().StringVar(&instance, "instance", "", "only those about one instance")
	c.Flags().StringVar(&object, "object", "", "only those about one id: a run, a node, a workspace, …")
	must(c.RegisterFlagCompletionFunc("instance", a.complete(instanceNames)))
	return c
}

// latestEvents are the last so many of those that are kept, oldest first.
func latestEvents(ctx context.Context, cl *client.Client, object string, last int) ([]workspace.Event, error) {
	events, err := all(ctx, cl.ListEvents, client.ListOptions{Object: object})
	if last > 0 && len(events) > last {
		events = events[len(events)-last:]
	}
	return events, err
}

// followEvents shows the latest events, then each that comes, until it is ended
// from outside or by its timeout, which is no error.
func (a *app) followEvents(ctx context.Context, cl *client.Client, object string, last int, timeout time.Duration) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	events, err := latestEvents(ctx, cl, object, last)
	t, after := a.newTable(), ""
	if len(events) > 0 {
		after = events[len(events)-1].ID
	}
	if err == nil {
		err = showChanges(a, t, eventKind(newNames(ctx, cl)), events)
	}
	if err != nil {
		return err
	}
	for event, err := range cl.Events(ctx, client.EventFilter{After: after, Object: object}) {
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = showChanges(a, t, eventKind(newNames(ctx, cl)), []workspace.Event{event})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
