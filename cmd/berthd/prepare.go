package main

import (
	"github.com/google/uuid"

	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

// prepare completes a command on the leader, just before it enters the log: it
// makes ids and, for a start, asks the scheduler where the run would go. It is
// called by one goroutine; the release it gives is called once the entry has
// been applied or never will be.
func prepare(planner *scheduler.Planner) func(state.View, state.Command) func() {
	return func(view state.View, cmd state.Command) (release func()) {
		switch c := cmd.(type) {
		case *state.CreateWorkspace:
			fill(&c.ID)
		case *state.CreateInstance:
			fill(&c.ID)
			fill(&c.Run)
			if c.Start {
				c.Suggestion, release = suggest(planner, view, c.Run, c.Resources)
			}
		case *state.StartInstance:
			fill(&c.Run)
			c.Suggestion, release = suggestFor(planner, view, c.ID, c.Run)
		case *state.RestartInstance:
			fill(&c.Run)
			c.Suggestion, release = suggestFor(planner, view, c.ID, c.Run)
		}
		if release == nil {
			release = func() {}
		}
		return release
	}
}

func fill(id *string) {
	if *id == "" {
		*id = uuid.Must(uuid.NewV7()).String()
	}
}

// suggestFor suggests for an instance that has no run now; one that has gets
// its next place from the scheduler's loop, when it has ended.
func suggestFor(p *scheduler.Planner, view state.View, instance, run string) (*state.Suggestion, func()) {
	inst := view.Instance(instance)
	if inst == nil {
		return nil, nil
	}
	if old := view.Run(inst.Run); old != nil && !old.Phase.Terminal() {
		return nil, nil
	}
	return suggest(p, view, run, inst.Resources)
}

func suggest(p *scheduler.Planner, view state.View, run string, r workspace.Resources) (*state.Suggestion, func()) {
	s, release := p.SuggestNewcomer(view, scheduler.Request{Run: run, Resources: r})
	return &s, release
}
