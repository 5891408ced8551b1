package api

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"berth/state"
	"berth/workspace"
)

type extendInput struct {
	Target
	Scope
	Body workspace.Extension
}

func (a *API) extendInstance(ctx context.Context, in *extendInput) (*object[workspace.Instance], error) {
	at := in.Body.ToBeDeletedAt
	if at.Value != nil {
		end, err := utc("to_be_deleted_at", *at.Value)
		if err != nil {
			return nil, err
		}
		at.Value = &end
	}
	return a.act(ctx, &actionInput{in.Target, in.Scope}, func(_ *reader, inst *workspace.Instance) (state.Command, error) {
		return &state.ExtendInstance{ID: inst.ID, ToBeDeletedAt: at}, nil
	})
}

// utc is a time of a request as the state keeps it: to the microsecond. Another
// zone is refused.
func utc(field string, at time.Time) (time.Time, error) {
	return at.Truncate(time.Microsecond), workspace.ValidateUTC(field, at)
}

// shown is an instance as it is answered: with how far its pull is, and with the
// warnings about itself and its run.
func (a *API) shown(r *reader, inst *workspace.Instance) *workspace.Instance {
	out := a.withProgress(r, inst)
	warnings := r.warnings(inst)
	if len(warnings) == 0 {
		return out
	}
	n := *out
	n.Warnings = warnings
	return &n
}

// warnings about an instance and its run, the one that ends first first.
func (r *reader) warnings(inst *workspace.Instance) []workspace.Warning {
	var all []workspace.Warning
	if inst.Warning != nil {
		all = append(all, *inst.Warning)
	}
	if run := r.Run(inst.Run); run != nil && run.Warning != nil && !run.Phase.Terminal() {
		all = append(all, *run.Warning)
	}
	slices.SortStableFunc(all, func(x, y workspace.Warning) int { return x.EndsAt.Compare(y.EndsAt) })
	return all
}

// mostEndings bounds how much of what ends soon a status tells: the first of it.
const mostEndings = 20

// ending is what ends soon in some workspaces.
func (r *reader) ending(workspaces iter.Seq[*workspace.Workspace]) []workspace.Ending {
	var all []workspace.Ending
	for w := range workspaces {
		for inst := range r.Instances(w.ID, "") {
			for _, warning := range r.warnings(inst) {
				all = append(all, workspace.Ending{Workspace: w.ID, Instance: inst.ID, Name: inst.Name, Run: inst.Run, Warning: warning})
			}
		}
		for run := range r.ActiveRuns(w.ID) {
			if run.Kind == workspace.KindExternal && run.Warning != nil {
				all = append(all, workspace.Ending{Workspace: w.ID, Name: run.Name, Run: run.ID, Warning: *run.Warning})
			}
		}
	}
	slices.SortFunc(all, func(x, y workspace.Ending) int {
		return cmp.Or(x.EndsAt.Compare(y.EndsAt), cmp.Compare(x.Run, y.Run))
	})
	return all[:min(len(all), mostEndings)]
}

// keptOutput refuses to look for the output of a run whose retention is over.
func keptOutput(run *workspace.Run) error {
	if run.Results != workspace.ResultsDeleting && run.Results != workspace.ResultsDeleted {
		return nil
	}
	return workspace.Errorf(workspace.CodeConflict, "the output of run %s was deleted on %s (data_retention %s): what is kept elsewhere, such as on its volume, stays",
		run.ID, run.ResultsUntil.UTC().Format("2006-01-02 15:04 UTC"), retentionText(run.Spec.RetentionHours))
}

func retentionText(hours int) string {
	switch {
	case hours == 24:
		return "1 day"
	case hours > 0 && hours%24 == 0:
		return fmt.Sprintf("%d days", hours/24)
	case hours == 1:
		return "1 hour"
	}
	return fmt.Sprintf("%d hours", hours)
}
