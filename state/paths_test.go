package state

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"berth/workspace"
)

// paths counts how often the model has gone the ways that matter. One that it never
// goes tests nothing there.
type paths struct {
	mu *sync.Mutex
	n  map[string]int
}

// wanted are all of them.
var wanted = []string{
	"placed with a rate", "charged", "renewed", "denied renewal: " + workspaceDaily, "denied renewal: " + userDaily,
	"denied renewal: " + lifetimeLimit, "denied renewal: " + clusterDaily, "renewed after a denial", "soft became hard", "hard became soft",
	"soft grant topped up", "granted an end late", "lease expired", "lost with a charge", "ended by its lease", "split at midnight",
	"split at a generation", "generation begun", "limit lowered below what is taken", "downgraded", "kill switch with runs", "cluster kill switch with runs",
	"archived with runs", "workspace deleted", "default moved", "start given up", "lifetime warned", "lifetime over", "results expired", "results deleted",
	"history folded", "history folded with a cost", "external admitted", "external denied", "external renewed", "external lost", "external ended",
	"denied external forgotten", "unpaid time", "restarted", "failover granted", "max duration reached", "answered again", "key reused",
	"clock went back", "day turned", "month turned", "refused for want of authority", "price set", "price removed",
	"denied: " + string(workspace.CodeWorkspaceArchived), "denied: " + string(workspace.CodeKillSwitch), "denied: " + string(workspace.CodeUserBlocked),
	"denied: " + string(workspace.CodeWorkspaceBudget), "denied: " + string(workspace.CodeUserBudget), "denied: " + string(workspace.CodeSpendingLimit),
	"denied: " + string(workspace.CodeMonthlyRuns), "denied: " + string(workspace.CodeConcurrency), "denied: " + string(workspace.CodeUnpriced),
}

func newPaths() paths { return paths{mu: new(sync.Mutex), n: map[string]int{}} }

func (p paths) merge(o paths) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, n := range o.n {
		p.n[name] += n
	}
}

// report says how often each was gone, and with all that none was missed.
func (p paths) report(t *testing.T, all bool) {
	for _, name := range slices.Sorted(maps.Keys(p.n)) {
		t.Logf("%8d %s", p.n[name], name)
	}
	for _, name := range wanted {
		if all && p.n[name] == 0 {
			t.Errorf("the model has never gone this way: %s", name)
		}
	}
}

func (p paths) count(is bool, name string) {
	if is {
		p.n[name]++
	}
}

// note what an entry did.
func (p paths) note(before, after View, cmd Command, res Result) {
	p.count(res.Replay && (res.Err == nil || res.Err.Code != workspace.CodeKeyReused), "answered again")
	p.count(res.Err != nil && res.Err.Code == workspace.CodeKeyReused, "key reused")
	p.count(res.Err != nil && res.Err.Code == workspace.CodeDenied, "refused for want of authority")
	if before.Cluster() == nil {
		return
	}
	was, is := workspace.DayOf(before.At()), workspace.DayOf(after.At())
	p.count(was != is, "day turned")
	p.count(workspace.Month(before.At()) != workspace.Month(after.At()), "month turned")
	p.count(before.At().Equal(after.At()), "clock went back")
	for old, m := range changes(before, after, meters) {
		p.noteMeter(before, old, m, cmd)
	}
	for old, r := range changes(before, after, runs) {
		p.noteRun(before, after, old, r, cmd)
	}
	for _, d := range changes(before, after, denials) {
		if d != nil {
			p.count(d.Day != 0, "denied: "+string(d.Code))
			p.count(d.Day == 0, "denials folded")
		}
	}
	for old, w := range changes(before, after, workspaces) {
		p.noteWorkspace(before, after, old, w)
	}
	for old, i := range changes(before, after, instances) {
		p.count(i != nil && i.Warning != nil && (old == nil || old.Warning == nil), "lifetime warned")
		_, swept := cmd.(*Sweep)
		p.count(swept && old != nil && (i == nil || i.Desired == workspace.DesiredDeleted && old.Desired != i.Desired), "lifetime over")
	}
	for _, x := range changes(before, after, prices) {
		p.count(x == nil, "price removed")
		p.count(x != nil, "price set")
	}
	on := after.Cluster().KillSwitch && !before.Cluster().KillSwitch
	p.count(on && tallyOf(before.txn, "", active) > 0, "cluster kill switch with runs")
}

func (p paths) noteMeter(before View, old, m *meter, cmd Command) {
	if m == nil {
		return
	}
	if old == nil {
		p.count(m.Rate > 0, "placed with a rate")
		p.count(m.FailoverMS > 0 && m.Kind != workspace.KindExternal, "failover granted")
		old = &meter{Run: m.Run}
	}
	p.count(m.Rate > 0 && m.Charged > old.Charged, "charged")
	for i := 1; i < len(m.Slices); i++ {
		p.count(m.Slices[i].Day != m.Slices[i-1].Day && m.Rate > 0, "split at midnight")
		p.count(m.Slices[i].Generation != m.Slices[i-1].Generation, "split at a generation")
	}
	renewed := old.Lease.Grant > 0 && m.Lease.Grant > old.Lease.Grant
	p.count(renewed && m.Kind != workspace.KindExternal, "renewed")
	p.count(renewed && old.Denied != "" && m.Denied == "", "renewed after a denial")
	p.count(renewed && m.Node != "" && old.Lease.End.BootID == "", "granted an end late")
	p.count(old.Lease.Grant > 0 && m.Lease.Hard && !old.Lease.Hard, "soft became hard")
	p.count(old.Lease.Grant > 0 && !m.Lease.Hard && old.Lease.Hard, "hard became soft")
	p.count(!renewed && old.Lease.Grant > 0 && m.Granted > old.Granted, "soft grant topped up")
	p.count(m.MostMS > 0 && m.Charged >= m.MostMS, "max duration reached")
	if m.Denied != "" && m.Denied != old.Denied {
		kind := map[workspace.Code]string{workspace.CodeWorkspaceBudget: workspaceDaily, workspace.CodeUserBudget: userDaily,
			workspace.CodeSpendingLimit: lifetimeLimit}[m.Denied]
		if strings.Contains(m.Why, "whole cluster") {
			kind = clusterDaily
		}
		p.count(true, "denied renewal: "+kind)
	}
}

func (p paths) noteRun(before, after View, old, r *workspace.Run, cmd Command) {
	if r == nil {
		_, folds := cmd.(*FoldHistory)
		p.count(folds, "history folded")
		p.count(folds && old.Cost > 0, "history folded with a cost")
		p.count(!folds, "denied external forgotten")
		return
	}
	if old == nil {
		p.count(r.Restarts > 0, "restarted")
		p.count(r.Kind == workspace.KindExternal && r.Phase == workspace.PhaseRunning, "external admitted")
		p.count(r.Kind == workspace.KindExternal && r.Phase == workspace.PhaseFailed, "external denied")
		return
	}
	ended := r.Phase.Terminal() && !old.Phase.Terminal()
	_, expires := cmd.(*ExpireLeases)
	p.count(ended && expires, "lease expired")
	p.count(ended && r.Phase == workspace.PhaseLost && r.Cost > 0, "lost with a charge")
	p.count(ended && r.Phase == workspace.PhaseStopped && workspace.Code(r.Reason).Admission(), "ended by its lease")
	p.count(ended && r.Reason == "start_timeout", "start given up")
	p.count(ended && r.UnpaidMS > 0, "unpaid time")
	if r.Kind == workspace.KindExternal {
		p.count(ended && r.Phase == workspace.PhaseLost, "external lost")
		p.count(ended && r.Phase != workspace.PhaseLost, "external ended")
		p.count(!ended, "external renewed")
	}
	stopping := r.Desired == workspace.RunStopping && old.Desired != r.Desired
	p.count(stopping && r.StopReason == "kill_switch" && before.Workspace(r.Workspace).KillSwitch != after.Workspace(r.Workspace).KillSwitch, "kill switch with runs")
	p.count(stopping && r.StopReason == "workspace_archived", "archived with runs")
	p.count(r.Results == workspace.ResultsDeleting && old.Results != r.Results, "results expired")
	p.count(r.Results == workspace.ResultsDeleted && old.Results != r.Results, "results deleted")
}

func (p paths) noteWorkspace(before, after View, old, w *workspace.Workspace) {
	if old == nil {
		return
	}
	p.count(w.Generation > old.Generation, "generation begun")
	p.count(!w.DeletedAt.IsZero() && old.DeletedAt.IsZero(), "workspace deleted")
	p.count(w.IsDefault && !old.IsDefault, "default moved")
	p.count(!w.Plan.Includes(old.Plan), "downgraded")
	s := ledgers{before.txn}.sumsOf(ofWorkspace, w.ID, "", workspace.DayOf(after.At()))
	p.count(w.Limits.DailyBudget != nil && *w.Limits.DailyBudget < s.Spent+s.Reserved &&
		(old.Limits.DailyBudget == nil || *old.Limits.DailyBudget > *w.Limits.DailyBudget), "limit lowered below what is taken")
}
