package runtimetest

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// Signal implements runtime.Runtime.
func (f *Fake) Signal(ctx context.Context, id string, signal int) error {
	if err := f.enter(ctx, "Signal"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	switch {
	case c == nil:
		return fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	case c.State == runtime.StateExited:
		return fmt.Errorf("container %s: %w", id, runtime.ErrNotRunning)
	case c.State == runtime.StateCreated || c.stuck:
		return nil
	}
	behaviour, _ := c.behaviour()
	switch unix.Signal(signal) {
	case unix.SIGKILL:
		c.finish(runtime.Exit{Known: true, Code: 128 + signal})
	case unix.SIGTERM, unix.SIGINT:
		switch behaviour {
		case "ignore-term", "children":
		case "count":
			c.finish(runtime.Exit{Known: true})
		default:
			c.finish(runtime.Exit{Known: true, Code: 128 + signal})
		}
	}
	return nil
}

// Kill implements runtime.Runtime. For a container that Stick was called for it
// lasts until ctx ends.
func (f *Fake) Kill(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Kill"); err != nil {
		return err
	}
	f.mu.Lock()
	c := f.containers[id]
	if c == nil || c.State == runtime.StateExited {
		f.mu.Unlock()
		return nil
	}
	if !c.stuck {
		c.finish(runtime.Exit{Known: true, Code: 128 + int(unix.SIGKILL)})
		f.mu.Unlock()
		return nil
	}
	f.mu.Unlock()
	<-ctx.Done()
	return fmt.Errorf("container %s still has a process after SIGKILL: %w", id, context.Cause(ctx))
}

// Wait implements runtime.Runtime.
func (f *Fake) Wait(ctx context.Context, id string) (runtime.Exit, error) {
	if err := f.enter(ctx, "Wait"); err != nil {
		return runtime.Exit{}, err
	}
	f.mu.Lock()
	c := f.containers[id]
	f.mu.Unlock()
	if c == nil {
		return runtime.Exit{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
		return runtime.Exit{}, ctx.Err()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return c.Exit, nil
}

// Delete implements runtime.Runtime.
func (f *Fake) Delete(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Delete"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	if c == nil {
		return nil
	}
	switch c.State {
	case runtime.StateRunning:
		return fmt.Errorf("container %s runs: %w", id, runtime.ErrInUse)
	case runtime.StateCreated:
		c.finish(runtime.Exit{Known: true, Code: 128 + int(unix.SIGKILL)}) // wakes who waits
	}
	if !c.StartedAt.IsZero() {
		f.lifetimes[id] = c.Exit.At.Sub(c.StartedAt)
	}
	delete(f.containers, id)
	return nil
}

// List implements runtime.Runtime.
func (f *Fake) List(ctx context.Context) ([]runtime.Container, error) {
	if err := f.enter(ctx, "List"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]runtime.Container, 0, len(f.containers))
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		list = append(list, f.containers[id].view())
	}
	return list, nil
}

// Inspect implements runtime.Runtime.
func (f *Fake) Inspect(ctx context.Context, id string) (runtime.Container, error) {
	if err := f.enter(ctx, "Inspect"); err != nil {
		return runtime.Container{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	if c == nil {
		return runtime.Container{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	return c.view(), nil
}

// view is a copy that the caller may keep.
func (c *container) view() runtime.Container {
	view := c.Container
	view.Labels = maps.Clone(view.Labels)
	return view
}
