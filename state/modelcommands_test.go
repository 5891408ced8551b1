package state

import (
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"berth/gpu"
	"berth/workspace"
)

func unixMicro(us int64) time.Time { return time.UnixMicro(us).UTC() }

// actions is the one that rapid repeats: some time passes, then one of the commands
// is sent. Those of a run's life come more often.
func (m *model) actions() map[string]func(*rapid.T) {
	var all []func(*rapid.T)
	for often, some := range [][]func(*rapid.T){
		1: {m.cluster, m.restore, m.prices, m.fleet, m.people, m.fold, m.workspaces},
		2: {m.host, m.volumes, m.external, m.reach, m.again, m.sweep},
		3: {m.change, m.limits},
		5: {m.create, m.place, m.runs},
		9: {m.beat},
	} {
		for range often {
			all = append(all, some...)
		}
	}
	return map[string]func(*rapid.T){"next": func(t *rapid.T) {
		m.pass(t)
		one(t, all, "action")(t)
	}}
}

// pass lets time pass: mostly a few seconds, at times until about midnight, or for
// days. The leader's clock goes wrong at times, and back.
func (m *model) pass(t *rapid.T) {
	const second, day = 1e6, 24 * 3600e6
	switch what := upTo(t, 63, "time"); {
	case what == 63:
		m.now += within(t, 0, 2*day, "days")
	case what == 62:
		m.now += day - m.now%day + within(t, -2*second, 2*second, "about midnight")
	case what == 61 && rarely(t, "months"):
		m.now += within(t, 10*day, 40*day, "long")
	case what >= 58:
		m.now += within(t, 0, 7200*second, "hours")
	case what >= 48:
		m.now += within(t, 0, 1200*second, "minutes")
	case what == 47:
		m.skew = within(t, -3600*second, 3600*second, "skew")
	case what == 46:
		m.skew = 0
		m.term++
	case what == 45 && rarely(t, "far off"):
		m.skew = within(t, -2*day, 2*day, "days off")
	default:
		m.now += within(t, 0, 20*second, "later")
	}
}

func (m *model) view() View { return m.replicas[0].View() }

func (m *model) newID(t *rapid.T, kind string, taken []string) string {
	if len(taken) > 0 && rarely(t, "id taken") {
		return one(t, append(taken, ""), "id")
	}
	m.ids++
	return fmt.Sprintf("%s%06d", kind, m.ids)
}

// caller is mostly one who may, with a request id or an idempotency key at times.
func (m *model) caller(t *rapid.T, role workspace.Role) Caller {
	c := Caller{Principal: one(t, []string{"root", "alice", "bob"}, "principal"), Role: role}
	switch upTo(t, 15, "as") {
	case 0:
		c.Role = one(t, []workspace.Role{workspace.RoleNode, workspace.RoleSystem, workspace.RoleClusterAdmin, "", "emperor"}, "role")
	case 1, 2:
		c.Role = one(t, []workspace.Role{workspace.RoleOwner, workspace.RoleAdmin, workspace.RoleMember}, "role")
	}
	switch upTo(t, 15, "asked") {
	case 0:
		c.RequestID = fmt.Sprint("q", upTo(t, 9, "request"))
	case 1, 2, 3:
		c.RequestID = m.newID(t, "u", nil)
	case 4:
		c.Idem = &IdempotencyKey{Scope: fmt.Sprint(upTo(t, 3, "scope")), Body: fmt.Sprint(upTo(t, 1, "body"))}
	case 5:
		c.Idem = &IdempotencyKey{Scope: m.newID(t, "k", nil), Body: "b"}
	}
	return c
}

func (m *model) workspaceIDs() (ids []string) {
	for w := range m.view().Workspaces("") {
		ids = append(ids, w.ID)
	}
	return ids
}

func (m *model) instanceIDs() (ids []string) {
	for _, w := range m.workspaceIDs() {
		for i := range m.view().Instances(w, "") {
			ids = append(ids, i.ID)
		}
	}
	return ids
}

func (m *model) runIDs() (ids []string) {
	for r := range m.view().AllRuns() {
		ids = append(ids, r.ID)
	}
	return ids
}

func oneOf(t *rapid.T, ids []string) string {
	if len(ids) == 0 || rarely(t, "none of them") {
		return "nothing"
	}
	return one(t, ids, "which")
}

func (m *model) workspaces(t *rapid.T) {
	ids := m.workspaceIDs()
	name := one(t, []string{"team", "Team!", "other", ""}, "name")
	var cmd Command = &CreateWorkspace{ID: m.newID(t, "w", ids), Name: &name, Plan: one(t, []workspace.Plan{
		workspace.PlanPro, workspace.PlanBasic, workspace.PlanScale, "", "gold"}, "plan")}
	switch {
	case len(ids) > 3 && rarely(t, "archive"):
		cmd = &ArchiveWorkspace{ID: oneOf(t, ids)}
	case len(ids) > 3 && rarely(t, "delete"):
		cmd = &DeleteWorkspace{ID: oneOf(t, ids)}
	case len(ids) > 3:
		cmd = &UpdateWorkspace{ID: oneOf(t, ids), MaxConcurrentRuns: ptr(upTo(t, 8, "max"))}
	}
	m.do(t, cmd, m.caller(t, workspace.RoleClusterAdmin))
}

func (m *model) cluster(t *rapid.T) {
	name := one(t, []string{"shell", "mine", "Mine"}, "template")
	cmd := one(t, []Command{
		&InitCluster{ID: "c2", Workspace: "w9"}, &RaiseVersion{To: uint64(m.ids % (Version + 1))}, &DeleteTemplate{Name: name},
		&PutTemplate{Template: workspace.Template{Name: name, Image: "i", Kind: workspace.KindJob}},
		&InstallTemplates{Templates: []workspace.Template{{Name: name, Image: "j", Kind: workspace.KindJob}}},
		&SetRegistry{Host: name + ".lab", Username: "me", Password: workspace.Sealed{Sealed: []byte{1}}}, &RemoveRegistry{Host: name + ".lab"},
	}, "command")
	m.do(t, cmd, m.caller(t, workspace.RoleSystem))
}

func (m *model) create(t *rapid.T) {
	c := &CreateInstance{
		ID: m.newID(t, "i", m.instanceIDs()), Workspace: oneOf(t, m.workspaceIDs()),
		Name: fmt.Sprint("name-", upTo(t, 30, "name")), Spec: workspace.RunSpec{Image: "i", Stoppable: !rarely(t, "unstoppable")},
		Kind: one(t, []workspace.RunKind{workspace.KindInteractive, workspace.KindJob}, "kind"),
		Resources: workspace.Resources{GPUCount: one(t, []int{0, 1, 1, 1, 2, 3}, "gpus"),
			CPUMilli: 1000, MemoryMiB: 1000, StorageMiB: 1000},
		Start: !rarely(t, "created only"), Run: m.newID(t, "r", m.runIDs()),
		StoragePolicy: one(t, []string{"", "delete", "retain", "retain:1"}, "policy"),
		RestartPolicy: workspace.RestartPolicy{MaxRestarts: upTo(t, 2, "max restarts"),
			Mode: one(t, []workspace.RestartMode{"", workspace.RestartNever, workspace.RestartAlways, workspace.RestartOnFailure}, "restart")},
		FailoverAfter: one(t, []int{0, 0, 0, 0, 30, 300, 86400}, "failover"),
	}
	c.Spec.MaxDuration = one(t, []int64{0, 0, 0, 0, 45, 5400}, "max duration")
	if rarely(t, "lifetime") {
		c.ToBeDeletedAt = unixMicro(m.now + m.skew + within(t, -1e6, 48*3600e6, "until"))
	}
	if rapid.Bool().Draw(t, "volume") {
		c.Spec.VolumePath = "/home"
		c.Resources.StorageMiB = one(t, []int64{500, 1000, 2000}, "storage")
		if ids := m.volumeIDs(); len(ids) > 0 && rapid.Bool().Draw(t, "reattach") {
			c.Volume = oneOf(t, ids)
		}
	}
	if rapid.Bool().Draw(t, "slices") {
		c.Resources.GPUType = "a100|a100-mig"
	}
	if c.Resources.GPUCount == 1 {
		c.Resources.GPUShare = one(t, []int{0, 0, 200, 500, 700}, "share")
	}
	c.Suggestion = m.suggest(t, &c.Resources)
	m.do(t, c, m.caller(t, workspace.RoleClusterAdmin))
}

// change starts, stops, restarts or deletes an instance.
func (m *model) change(t *rapid.T) {
	ids := m.instanceIDs()
	if len(ids) == 0 {
		m.create(t)
		return
	}
	id := oneOf(t, ids)
	res := &workspace.Resources{}
	if i := m.view().Instance(id); i != nil {
		res = &i.Resources
	}
	var cmd Command
	switch upTo(t, 15, "what") {
	case 7:
		x := &ExtendInstance{ID: id, ToBeDeletedAt: workspace.Optional[time.Time]{Set: true}}
		if rapid.Bool().Draw(t, "until a time") {
			x.ToBeDeletedAt.Value = ptr(unixMicro(m.now + m.skew + within(t, -1e6, 48*3600e6, "until")))
		}
		cmd = x
	case 0, 1:
		cmd = &StopInstance{ID: id}
	case 2:
		cmd = &DeleteInstance{ID: id}
	case 3:
		cmd = &RestartInstance{ID: id, Run: m.newID(t, "r", m.runIDs()), Suggestion: m.suggest(t, res)}
	default:
		cmd = &StartInstance{ID: id, Run: m.newID(t, "r", m.runIDs()), Suggestion: m.suggest(t, res), FreshVolume: rarely(t, "fresh")}
	}
	m.do(t, cmd, m.caller(t, workspace.RoleClusterAdmin))
}

func (m *model) volumeIDs() (ids []string) {
	for _, node := range nodeNames {
		for v := range m.view().NodeVolumes(node) {
			ids = append(ids, v.ID)
		}
	}
	return ids
}

// volumes removes or keeps one, or is a node's word of some.
func (m *model) volumes(t *rapid.T) {
	what := upTo(t, 6, "what")
	if len(m.volumeIDs()) == 0 {
		what = 6
	}
	switch what {
	case 0:
		m.do(t, &RemoveVolume{ID: oneOf(t, m.volumeIDs())}, m.caller(t, workspace.RoleClusterAdmin))
	case 1:
		policy := one(t, []string{"delete", "retain", "retain:1", "retain:2", "burn", ""}, "policy")
		m.do(t, &KeepVolume{ID: oneOf(t, m.volumeIDs()), Policy: policy}, m.caller(t, workspace.RoleClusterAdmin))
	default:
		node := one(t, nodeNames, "node")
		m.report(t, node, func(r *workspace.Report) {
			for range upTo(t, 3, "volumes") {
				r.Volumes = append(r.Volumes, m.volumeReport(t, node))
			}
		})
	}
}

// volumeReport is mostly what an honest node would say of a volume.
func (m *model) volumeReport(t *rapid.T, node string) workspace.VolumeReport {
	id := oneOf(t, m.volumeIDs())
	if ordered := m.view().Purges(node); len(ordered) > 0 && rapid.Bool().Draw(t, "purge") {
		return workspace.VolumeReport{ID: ordered[0], Gone: true}
	}
	switch upTo(t, 7, "word") {
	case 0:
		return workspace.VolumeReport{ID: id, Gone: true, Message: "it isn't there"}
	case 1:
		return workspace.VolumeReport{ID: id, Message: "it is mounted"}
	}
	return workspace.VolumeReport{ID: id, Made: true}
}

func (m *model) place(t *rapid.T) {
	var ids []string
	for r := range m.view().PendingRuns() {
		ids = append(ids, r.ID)
	}
	if len(ids) == 0 && !rarely(t, "none") {
		m.beat(t)
		return
	}
	if rarely(t, "any run") {
		ids = m.runIDs()
	}
	cmd := &PlaceRuns{}
	for range int(within(t, 1, 3, "batch")) {
		id, res := oneOf(t, ids), &workspace.Resources{}
		if r := m.view().Run(id); r != nil {
			res = &r.Resources
		}
		s := m.suggest(t, res)
		if s == nil {
			s = &Suggestion{}
		}
		cmd.Placements = append(cmd.Placements, Placement{Run: id, Suggestion: *s})
	}
	m.do(t, cmd, m.caller(t, workspace.RoleSystem))
}

// suggest is a place of the right shape, free or not, or nonsense.
func (m *model) suggest(t *rapid.T, r *workspace.Resources) *Suggestion {
	switch upTo(t, 15, "suggestion") {
	case 0:
		return nil
	case 1:
		return &Suggestion{Reason: "waiting_for_gpu", Message: "later"}
	case 2:
		return &Suggestion{Reason: "gpu_kind_absent", Message: "never", Impossible: true}
	}
	s := &Suggestion{Node: one(t, nodeNames, "node")}
	there, count, milli := hardware[s.Node], r.GPUCount, r.MilliPerGPU()
	if rarely(t, "nonsense") {
		s.Node = one(t, []string{"n1", "n2", "n3"}, "node")
		count, milli = upTo(t, 4, "count"), int(within(t, -500, 1500, "milli"))
	}
	if b := m.boots[s.Node]; b != nil && !rarely(t, "no beat yet") {
		s.Stamp = ptr(m.stamp(s.Node))
	}
	first := upTo(t, len(there)-1, "device")
	for n := range count {
		s.Devices = append(s.Devices, workspace.Allotment{UUID: there[(first+n)%len(there)].UUID, Milli: milli})
	}
	return s
}

// runs is a report of what became of runs and their devices.
func (m *model) runs(t *rapid.T) {
	node := one(t, nodeNames, "node")
	var known []*workspace.Run
	for r := range m.view().NodeRuns(node) {
		known = append(known, r)
	}
	m.report(t, node, func(report *workspace.Report) {
		for range upTo(t, 5, "run reports") {
			report.Runs = append(report.Runs, m.runReport(t, oneOf(t, idsOf(known))))
		}
		for range upTo(t, 2, "releases") {
			id := oneOf(t, idsOf(known))
			report.Released = append(report.Released, workspace.Release{Run: id, Epoch: m.epoch(t, id), Device: m.deviceOf(t, id),
				Stuck: rarely(t, "stuck")})
		}
		for _, of := range nodeNames {
			for _, claim := range m.view().Expiring(of) {
				if of == node || rarely(t, "another's") {
					report.Expired = append(report.Expired, claim.Run)
				}
			}
		}
		if rarely(t, "expired early") {
			report.Expired = append(report.Expired, oneOf(t, m.runIDs()))
		}
	})
}

var reported = []workspace.Phase{workspace.PhasePulling, workspace.PhaseStarting, workspace.PhaseRunning, workspace.PhaseRunning,
	workspace.PhaseRunning, workspace.PhaseRunning, workspace.PhaseRunning, workspace.PhaseRunning, workspace.PhaseRunning,
	workspace.PhaseStopping, workspace.PhaseSucceeded, workspace.PhaseFailed, workspace.PhaseStopped, workspace.PhaseLost,
	workspace.PhaseAssigned, workspace.PhasePending, "dancing"}

func idsOf(runs []*workspace.Run) (ids []string) {
	for _, r := range runs {
		ids = append(ids, r.ID)
	}
	return ids
}

// epoch is that of the run's placement, or nearly.
func (m *model) epoch(t *rapid.T, run string) gpu.Epoch {
	var e gpu.Epoch
	if r := m.view().Run(run); r != nil {
		e = r.Epoch
	}
	if rarely(t, "other epoch") {
		e.Index++
	}
	return e
}

func (m *model) deviceOf(t *rapid.T, run string) string {
	if r := m.view().Run(run); r != nil && len(r.Devices) > 0 && !rarely(t, "other device") {
		return one(t, r.Devices, "device").UUID
	}
	return one(t, hardware["n1"], "device").UUID
}

// host is a report of the node itself: readiness, devices, orphans, a reboot,
// or a word that comes late.
func (m *model) host(t *rapid.T) {
	node := one(t, nodeNames, "node")
	b := m.boots[node]
	switch upTo(t, 31, "boot") {
	case 0:
		*b = boot{id: m.newID(t, "boot", nil), at: m.now}
	case 1:
		now := *b
		defer func() { *b = now }()
		*b = boot{id: one(t, []string{"boot1", now.id}, "late"), at: now.at + 1e6}
	}
	there := hardware[node]
	m.report(t, node, func(r *workspace.Report) {
		r.Ready = &workspace.Readiness{Ready: !rarely(t, "not ready") || !rarely(t, "indeed")}
		if !rarely(t, "no inventory yet") {
			r.Devices = &gpu.Inventory{Devices: slices.Clone(there[:len(there)-upTo(t, 5, "missing")/5])}
		}
		r.Orphans = &[]workspace.Orphan{}
		if rarely(t, "orphan") {
			*r.Orphans = []workspace.Orphan{{Container: "orphan", Devices: []string{there[0].UUID}}}
		}
		h := workspace.DeviceHealth{Device: one(t, there, "device").UUID, Health: gpu.Healthy}
		if rarely(t, "unhealthy") {
			h.Health, h.Reason = gpu.Unhealthy, "xid_79"
		}
		r.Health = []workspace.DeviceHealth{h}
	})
}
