package state

import (
	"strings"
	"testing"

	"berth/workspace"
)

// The lower of a workspace's own monthly limit and its plan's counts.
func TestMonthlyLimit(t *testing.T) {
	for _, c := range []struct {
		plan    workspace.Plan
		own     *int64
		want    int64
		limited bool
	}{
		{workspace.PlanBasic, nil, 1_000, true}, {workspace.PlanBasic, ptr[int64](10), 10, true}, {workspace.PlanBasic, ptr[int64](5_000), 1_000, true},
		{workspace.PlanPro, nil, 50_000, true}, {workspace.PlanScale, nil, 0, false}, {workspace.PlanScale, ptr[int64](7), 7, true},
	} {
		w := &workspace.Workspace{Plan: c.plan, Limits: workspace.Limits{MonthlyRuns: c.own}}
		if got, limited := monthlyLimit(w); got != c.want || limited != c.limited {
			t.Errorf("plan %s, own %v: %d %v, want %d %v", c.plan, c.own, got, limited, c.want, c.limited)
		}
	}
}

// Texts that others write are bounded, and an external run's caller can't lose it.
func TestExternalTexts(t *testing.T) {
	w := newWorld(t)
	w.play("init\n\nexternal x1")
	long := strings.Repeat("x", workspace.MaxText+1)
	root := Caller{Principal: "root", Role: workspace.RoleClusterAdmin}
	for _, cmd := range []Command{
		&EndExternal{Run: "x1", Phase: workspace.PhaseSucceeded, Message: long},
		&EndExternal{Run: "x1", Phase: workspace.PhaseLost},
		&StartExternal{Run: "x2", Workspace: "w0", Name: long},
	} {
		if res := w.apply(cmd, root); res.Err == nil || res.Err.Code != workspace.CodeInvalid {
			t.Errorf("%T that is too much gave %+v", cmd, res)
		}
	}
}

// What new workspaces get has no more than their plan, and no limit is negative.
func TestDefaultsOfPlans(t *testing.T) {
	w := newWorld(t)
	w.play("init")
	root := Caller{Principal: "root", Role: workspace.RoleClusterAdmin}
	if res := w.apply(&UpdateCluster{MaxConcurrentRuns: ptr(-1)}, root); res.Err == nil {
		t.Error("a negative limit of the cluster was taken")
	}
	defaults := &workspace.WorkspaceDefaults{MaxConcurrentRuns: 5, UserDailyBudget: ptr[int64](1)}
	w.apply(&UpdateCluster{Defaults: defaults}, root)
	for plan, want := range map[workspace.Plan]int{workspace.PlanBasic: 3, workspace.PlanPro: 5} {
		w.apply(&CreateWorkspace{ID: string(plan), Name: ptr(string(plan)), Plan: plan}, root)
		l := w.store.View().Workspace(string(plan)).Limits
		if l.MaxConcurrentRuns != want || (l.UserDailyBudget == nil) != (plan == workspace.PlanBasic) {
			t.Errorf("plan %s began with %+v", plan, l)
		}
	}
}
