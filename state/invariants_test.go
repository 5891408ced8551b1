package state

import (
	"fmt"
	"slices"
	"time"

	"berth/gpu"
	"berth/workspace"
)

// invariant is what must hold of every state, or of the step that a command made
// from one to the next. It holds on while none of the tables changes that it is
// about.
type invariant struct {
	holds func(before, after View, cmd Command) error
	about []string // names of tables; nil: it finds out itself what has changed
}

var invariantsAll = func() []invariant {
	i, r, n, d, w, v := instances.name, runs.name, nodes.name, devices.name, workspaces.name, volumes.name
	money := []string{usages.name, ledger.name, meters.name, days.name, accounts.name, w, clusters.name}
	return []invariant{
		{devicesHold, []string{d, r}}, {devicesKept, []string{d}}, {devicesBlocked, []string{d, n}}, {runsForward, []string{r, d}},
		{runsOfInstances, []string{i, r}}, {concurrencyHolds, []string{r}}, {namesUnique, []string{w, i}}, {timeForward, nil},
		{volumesAttached, []string{v, i, r}}, {volumesFit, []string{v, r}}, {volumesKept, []string{v}}, {restartsWait, []string{r}},
		{moneyBalances, append(money, r)}, {metersComplete, []string{r, meters.name, tallies.name}}, {budgetsHold, money}, {leasesForward, []string{meters.name}},
		{plansHold, nil}, {admissionHolds, nil}, {monthsHold, nil}, {killSwitchStops, nil}, {timesKept, nil}, {waitsBounded, nil}, {externalsHold, nil},
		{grantsHold, nil}, {livesPaid, nil}, {usageFollows, nil}, {ratesFrozen, nil}, {ledgerForward, nil}, {usageTotals, nil},
	}
}()

// checkedWhole is how often an entry's invariants are checked whatever it changed,
// and those that cost much at all: every so many entries.
const checkedWhole = 16

// invariants checks what must hold of every state and of the step that cmd made
// from one to the next. The names are those of docs/domain.md.
func invariants(before, after View, cmd Command) error {
	whole := after.Index()%checkedWhole == 0
	for i := range invariantsAll {
		x := &invariantsAll[i]
		if !whole && x.about != nil && !slices.ContainsFunc(x.about, func(name string) bool { return !unchanged(before, after, name) }) {
			continue
		}
		if err := x.holds(before, after, cmd); err != nil {
			return err
		}
	}
	return nil
}

// devicesHold: no more of a device is held than there is, by runs that list it.
func devicesHold(_, v View, _ Command) error {
	for d := range v.Devices() {
		if d.HeldMilli() > gpu.MilliPerDevice {
			return fmt.Errorf("I1: %d of 1000 milli of device %s are held: %v", d.HeldMilli(), d.UUID, d.Holders)
		}
		if p := v.Device(d.Parent); p != nil && len(p.Holders) > 0 && len(d.Holders) > 0 {
			return fmt.Errorf("I1: %s and its slice %s are both held", p.UUID, d.UUID)
		}
		if d.State != d.DeriveState() {
			return fmt.Errorf("device %s is %s, its holders say %s", d.UUID, d.State, d.DeriveState())
		}
		for _, h := range d.Holders {
			r := v.Run(h.Run)
			switch {
			case h.Milli <= 0:
				return fmt.Errorf("I1: %s holds %d milli of %s", h.Run, h.Milli, d.UUID)
			case r == nil || !slices.Contains(r.Devices, workspace.Allotment{UUID: d.UUID, Milli: h.Milli}):
				return fmt.Errorf("I1: run %s holds %s without listing it", h.Run, d.UUID)
			case r.Node != d.Node || r.Epoch != h.Epoch || !r.Unreleased || r.Phase.Terminal() != h.Releasing:
				return fmt.Errorf("I1: device %s has %+v, its run is %s on %s, %+v", d.UUID, h, r.Phase, r.Node, r.Epoch)
			}
		}
	}
	return nil
}

// devicesKept: a holder goes only by its node's release or a new boot, once its
// run is over.
func devicesKept(before, after View, cmd Command) error {
	report, _ := cmd.(*Report)
	for d := range before.Devices() {
		now := after.Device(d.UUID)
		if now == d {
			continue
		}
		for _, h := range d.Holders {
			kept := slices.ContainsFunc(now.Holders, func(n gpu.Holder) bool { return n.Run == h.Run && n.Milli == h.Milli })
			if !kept && !mayFree(before, after, report, d, h) {
				return fmt.Errorf("I1: %s lost its holder %s by %T", d.UUID, h.Run, cmd)
			}
		}
	}
	return nil
}

// devicesBlocked: a device that a quarantined container of its node has is no
// other's, and only such a device is kept from runs.
func devicesBlocked(_, v View, _ Command) error {
	for d := range v.Devices() {
		var by []string
		for _, o := range v.Node(d.Node).Orphans {
			if slices.Contains(o.Devices, d.UUID) {
				by = append(by, o.Container)
			}
		}
		if len(by) == 0 && d.Blocked != "" || len(by) > 0 && !slices.Contains(by, d.Blocked) {
			return fmt.Errorf("I13: device %s is blocked by %q, its node's orphans on it are %q", d.UUID, d.Blocked, by)
		}
	}
	return nil
}

func mayFree(before, after View, report *Report, d *gpu.Device, h gpu.Holder) bool {
	if report == nil || report.Node != d.Node || !after.Run(h.Run).Phase.Terminal() {
		return false
	}
	if report.Stamp.BootID != before.Node(d.Node).Stamp.BootID {
		return true
	}
	return slices.ContainsFunc(report.Released, func(r workspace.Release) bool {
		return !r.Stuck && r.Device == d.UUID && r.Run == h.Run && r.Epoch == h.Epoch
	})
}

// runsForward: a run is never forgotten, moved, or set back.
func runsForward(before, after View, cmd Command) error {
	for r := range before.AllRuns() {
		now := after.Run(r.ID)
		switch {
		case now == r:
		case now == nil:
			if !mayForget(before, after, r, cmd) {
				return fmt.Errorf("run %s is gone", r.ID)
			}
		case now.Phase != r.Phase && !r.Phase.CanBecome(now.Phase):
			return fmt.Errorf("run %s went from %s to %s", r.ID, r.Phase, now.Phase)
		case now.Instance != r.Instance || now.Workspace != r.Workspace || now.Attempt != r.Attempt:
			return fmt.Errorf("run %s became another's: %+v, %+v", r.ID, r, now)
		case r.Desired == workspace.RunStopping && now.Desired != r.Desired:
			return fmt.Errorf("run %s is wanted again", r.ID)
		case r.Node != "" && (now.Node != r.Node || now.Epoch != r.Epoch || !slices.Equal(now.Devices, r.Devices)):
			return fmt.Errorf("run %s was moved: %+v, %+v", r.ID, r, now)
		case !r.Phase.Active() && !r.Unreleased && now.Unreleased:
			if r.Phase != workspace.PhasePending {
				return fmt.Errorf("ended run %s has devices again", r.ID)
			}
		}
	}
	for r := range after.AllRuns() {
		if r.Phase.Active() != (r.Node != "") && !r.Phase.Terminal() && r.Kind != workspace.KindExternal {
			return fmt.Errorf("run %s is %s on node %q", r.ID, r.Phase, r.Node)
		}
		if err := holdsWhatItLists(after, r); err != nil {
			return err
		}
	}
	return nil
}

// mayForget: history does, what ended before its time and nothing waits for; and a
// denied external run is shown for a day.
func mayForget(before, after View, r *workspace.Run, cmd Command) bool {
	switch c := cmd.(type) {
	case *FoldHistory:
		inst := before.Instance(r.Instance)
		ended := min(c.Before, after.At().Add(-24*time.Hour).UnixMicro())
		return r.Phase.Terminal() && r.Times.Ended.UnixMicro() < ended && (inst == nil || inst.Run != r.ID) &&
			!r.Unreleased && r.ExpiresAt.IsZero() && r.Results != workspace.ResultsKept && r.Results != workspace.ResultsDeleting
	case *Sweep:
		return r.Kind == workspace.KindExternal && r.Phase == workspace.PhaseFailed && !r.ExpiresAt.IsZero() && !r.ExpiresAt.After(after.At())
	}
	return false
}

func holdsWhatItLists(v View, r *workspace.Run) error {
	held := 0
	for _, a := range r.Devices {
		if slices.ContainsFunc(v.Device(a.UUID).Holders, func(h gpu.Holder) bool { return h.Run == r.ID }) {
			held++
		}
	}
	if r.Phase.Active() && held != len(r.Devices) {
		return fmt.Errorf("I1: run %s is %s and holds %d of its %d devices", r.ID, r.Phase, held, len(r.Devices))
	}
	if r.Unreleased != (held > 0) {
		return fmt.Errorf("run %s: unreleased is %v, it holds %d devices", r.ID, r.Unreleased, held)
	}
	return nil
}

// runsOfInstances: an instance has at most one run that isn't over, and shows it.
func runsOfInstances(_, v View, _ Command) error {
	for ws := range v.Workspaces("") {
		for i := range v.Instances(ws.ID, "") {
			if err := runsOfInstance(v, i); err != nil {
				return err
			}
		}
	}
	for r := range v.AllRuns() {
		if i := v.Instance(r.Instance); !r.Phase.Terminal() && r.Kind != workspace.KindExternal && (i == nil || i.Run != r.ID) {
			return fmt.Errorf("run %s is %s, but not its instance's run", r.ID, r.Phase)
		}
	}
	return nil
}

func runsOfInstance(v View, i *workspace.Instance) error {
	run := v.Run(i.Run)
	status, reason, message := deriveStatus(i, run)
	switch {
	case status != i.Status || reason != i.Reason || message != i.Message:
		return fmt.Errorf("instance %s shows %s (%s), its run says %s (%s)", i.ID, i.Status, i.Reason, status, reason)
	case (run == nil) != (i.Attempts == 0) || run != nil && (run.Instance != i.ID || run.Attempt != i.Attempts):
		return fmt.Errorf("instance %s has run %q after %d attempts: %+v", i.ID, i.Run, i.Attempts, run)
	case i.NextRun != "" && (run == nil || run.Phase.Terminal() || i.Desired != workspace.DesiredRunning):
		return fmt.Errorf("instance %s waits for nothing to make run %s", i.ID, i.NextRun)
	case i.Desired != workspace.DesiredRunning && run != nil && run.Desired == workspace.RunWanted:
		return fmt.Errorf("instance %s is wanted %s, its run %s wanted on", i.ID, i.Desired, run.ID)
	case i.Desired == workspace.DesiredDeleted && (run == nil || run.Phase.Terminal()):
		return fmt.Errorf("instance %s is deleted, nothing of it is left, but it is still there", i.ID)
	case i.Status != workspace.StatusRunning && len(i.Access) > 0:
		return fmt.Errorf("instance %s is %s and can be reached", i.ID, i.Status)
	}
	return nil
}

// concurrencyHolds: no entry raises the active runs of a workspace above the
// limit that is then in force.
func concurrencyHolds(before, after View, _ Command) error {
	for ws := range after.Workspaces("") {
		was, is := 0, 0
		for range before.ActiveRuns(ws.ID) {
			was++
		}
		for range after.ActiveRuns(ws.ID) {
			is++
		}
		if is > was && is > ws.Limits.MaxConcurrentRuns {
			return fmt.Errorf("I3: workspace %s went from %d to %d active runs, its limit is %d", ws.ID, was, is, ws.Limits.MaxConcurrentRuns)
		}
		if is > was && ws.Archived() {
			return fmt.Errorf("workspace %s is archived and went from %d to %d active runs", ws.ID, was, is)
		}
	}
	return nil
}

func namesUnique(_, v View, _ Command) error {
	slugs, defaults := map[string]bool{}, 0
	for ws := range v.Workspaces("") {
		if slugs[ws.Slug] || v.WorkspaceBySlug(ws.Slug) != ws {
			return fmt.Errorf("slug %q is another's too", ws.Slug)
		}
		slugs[ws.Slug] = true
		if ws.IsDefault {
			defaults++
		}
		names := map[string]bool{}
		for i := range v.Instances(ws.ID, "") {
			if i.Desired == workspace.DesiredDeleted {
				continue
			}
			if names[i.Name] || v.InstanceByName(ws.ID, i.Name) != i {
				return fmt.Errorf("instance name %q is there twice in %s", i.Name, ws.Slug)
			}
			names[i.Name] = true
		}
	}
	if v.Cluster() != nil && defaults != 1 {
		return fmt.Errorf("there are %d default workspaces", defaults)
	}
	return nil
}

func timeForward(before, after View, cmd Command) error {
	if after.At().Before(before.At()) || after.Index() < before.Index() {
		return fmt.Errorf("%T took the state from %s to %s", cmd, before.At(), after.At())
	}
	return nil
}
