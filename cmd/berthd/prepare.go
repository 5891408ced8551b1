package main

import (
	"github.com/google/uuid"

	"berth/lease"
	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

// prepare completes a command on the leader, just before it enters the log: it
// makes ids and, for a start, asks the scheduler where the run would go. It is
// called by one goroutine; the release it gives is called once the entry has
// been applied or never will be.
func prepare(planner *scheduler.Planner, keeper *lease.Keeper) func(state.View, state.Command) func() {
	return func(view state.View, cmd state.Command) (release func()) {
		switch c := cmd.(type) {
		case *state.CreateWorkspace:
			fill(&c.ID)
		case *state.CreateInstance:
			fill(&c.ID)
			fill(&c.Run)
			if c.Start {
				c.Suggestion, release = suggest(planner, view, scheduler.RequestOn(view, c.Run, c.Resources, c.Volume))
			}
		case *state.StartExternal:
			fill(&c.Run)
		case *state.StartInstance:
			fill(&c.Run)
			c.Suggestion, release = suggestStart(planner, view, c)
		case *state.RestartInstance:
			fill(&c.Run)
			if inst := view.Instance(c.ID); inst != nil && over(view, inst) {
				c.Suggestion, release = suggest(planner, view, requestFor(view, inst, c.Run))
			}
		}
		stamp(keeper, view, cmd)
		if release == nil {
			release = func() {}
		}
		return release
	}
}

// stamp adds to what is suggested the moment at which a first lease begins on the
// node. A node that wasn't heard lately gives none: then a run that needs a lease
// waits for the node's next beat.
func stamp(keeper *lease.Keeper, view state.View, cmd state.Command) {
	add := func(s *state.Suggestion) {
		if s == nil || s.Node == "" {
			return
		}
		if node := view.Node(s.Node); node != nil {
			s.Stamp = keeper.Stamp(node)
		}
	}
	switch c := cmd.(type) {
	case *state.CreateInstance:
		add(c.Suggestion)
	case *state.StartInstance:
		add(c.Suggestion)
	case *state.RestartInstance:
		add(c.Suggestion)
	case *state.PlaceRuns:
		for i := range c.Placements {
			add(&c.Placements[i].Suggestion)
		}
	}
}

func fill(id *string) {
	if *id == "" {
		*id = uuid.Must(uuid.NewV7()).String()
	}
}

// suggestStart suggests for an instance that has no run now, or one that a
// restart puts off, which a start ends. One that has another run gets its next
// place from the scheduler's loop, when that has ended.
func suggestStart(p *scheduler.Planner, view state.View, c *state.StartInstance) (*state.Suggestion, func()) {
	inst := view.Instance(c.ID)
	if inst == nil {
		return nil, nil
	}
	id := c.Run
	if !over(view, inst) {
		run := view.Run(inst.Run)
		if run.Phase != workspace.PhasePending || !run.NotBefore.After(view.At()) {
			return nil, nil
		}
		id = run.ID
	}
	if c.FreshVolume {
		return suggest(p, view, scheduler.Request{Run: id, Resources: inst.Resources})
	}
	return suggest(p, view, requestFor(view, inst, id))
}

// over: the instance has no run that isn't over.
func over(view state.View, inst *workspace.Instance) bool {
	run := view.Run(inst.Run)
	return run == nil || run.Phase.Terminal()
}

func requestFor(view state.View, inst *workspace.Instance, run string) scheduler.Request {
	return scheduler.RequestFor(view, &workspace.Run{ID: run, Instance: inst.ID, Resources: inst.Resources, Spec: inst.Spec})
}

func suggest(p *scheduler.Planner, view state.View, r scheduler.Request) (*state.Suggestion, func()) {
	s, release := p.SuggestNewcomer(view, r)
	return &s, release
}
