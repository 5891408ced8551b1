package main

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
)

// source is where a verb that shows things has them from, and how they look.
type source[T any] struct {
	fetch func(context.Context, *client.Client) ([]T, error)
	kind  func(*names) kind[T]
}

// lsVerb lists what fetch gives, once or as it changes.
func lsVerb[T any](a *app, c cobra.Command, s source[T]) *cobra.Command {
	c.Use, c.Aliases, c.Args = "ls", []string{"list"}, takes()
	c.ValidArgsFunction = cobra.NoFileCompletions
	w := &watching{}
	w.addFlags(&c)
	c.RunE = a.with(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
		if w.on {
			return watch(cmd.Context(), a, cl, w.timeout, s)
		}
		items, err := s.fetch(cmd.Context(), cl)
		if err != nil {
			return err
		}
		return showList(a, s.kind(newNames(cmd.Context(), cl)), items)
	})
	return &c
}

// getVerb shows one object, or follows it as ls does.
func getVerb[T any](a *app, c cobra.Command, fetch func(context.Context, *client.Client, string) (*T, error), k func(*names) kind[T]) *cobra.Command {
	c.Aliases = []string{"show"}
	w := &watching{}
	w.addFlags(&c)
	c.RunE = a.with(func(cmd *cobra.Command, cl *client.Client, args []string) error {
		if w.on {
			return watch(cmd.Context(), a, cl, w.timeout, source[T]{kind: k,
				fetch: func(ctx context.Context, cl *client.Client) ([]T, error) {
					item, err := fetch(ctx, cl, args[0])
					if err != nil {
						return nil, err
					}
					return []T{*item}, nil
				}})
		}
		item, err := fetch(cmd.Context(), cl, args[0])
		if err != nil {
			return err
		}
		return showOne(a, k(newNames(cmd.Context(), cl)), item)
	})
	return &c
}

type watching struct {
	on      bool
	timeout time.Duration
}

func (w *watching) addFlags(c *cobra.Command) {
	c.Flags().BoolVar(&w.on, "watch", false, "go on and show what changes")
	c.Flags().DurationVar(&w.timeout, "timeout", 0, "end the watch after this long (0: never)")
}

// watchTick is how often a watch looks even if no event came: progress within a
// phase makes none.
const watchTick = 2 * time.Second

// watch shows all there is, then what differs, until ctx ends or the timeout
// has passed, which is no error. Events wake it.
func watch[T any](ctx context.Context, a *app, cl *client.Client, timeout time.Duration, s source[T]) error {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	wake, stop := wakeOnEvents(ctx, cl)
	defer stop()
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	shown, t := map[string][]byte{}, a.newTable()
	for {
		items, err := s.fetch(ctx, cl)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		k := s.kind(newNames(ctx, cl))
		changed, err := changes(shown, k, items)
		if err != nil {
			return err
		}
		if len(changed) > 0 || t.header {
			if err := showChanges(a, t, k, changed); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
		}
	}
}

// changes gives the items that aren't as they were shown, and notes them.
func changes[T any](shown map[string][]byte, k kind[T], items []T) ([]T, error) {
	var changed []T
	for i := range items {
		text, err := json.Marshal(&items[i])
		if err != nil {
			return nil, err
		}
		if id := k.id(&items[i]); !bytes.Equal(shown[id], text) {
			shown[id] = text
			changed = append(changed, items[i])
		}
	}
	return changed, nil
}

// wakeOnEvents gives a channel that has something after events came; stop ends
// it. If the stream fails, the next look at the daemon says why.
func wakeOnEvents(ctx context.Context, cl *client.Client) (wake <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	events, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		for _, err := range cl.Events(ctx, client.EventFilter{After: "now"}) {
			if err != nil {
				return
			}
			select {
			case events <- struct{}{}:
			default:
			}
		}
	}()
	return events, func() { cancel(); <-ended }
}

// all pages of a list.
func all[T any](ctx context.Context, list client.List[T], o client.ListOptions) ([]T, error) {
	o.Limit = 500
	var items []T
	for item, err := range client.All(ctx, list, o) {
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, nil
}
