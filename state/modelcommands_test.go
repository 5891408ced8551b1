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

// actions are the commands that the model sends. Those of a run's life have
// several names, so that they come more often.
func (m *model) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){
		"workspaces": m.workspaces, "cluster": m.cluster, "restore": m.restore, "host": m.host,
		"volumes1": m.volumes, "volumes2": m.volumes,
	}
	for _, n := range []string{"1", "2", "3"} {
		actions["create"+n], actions["change"+n], actions["place"+n], actions["runs"+n] = m.create, m.change, m.place, m.runs
	}
	for name, action := range actions {
		actions[name] = func(t *rapid.T) {
			m.clock += rapid.Int64Range(-5e5, 2e7).Draw(t, "later")
			action(t)
		}
	}
	return actions
}

func (m *model) view() View { return m.replicas[0].View() }

func (m *model) newID(t *rapid.T, kind string, taken []string) string {
	if len(taken) > 0 && rarely(t, "id taken") {
		return rapid.SampledFrom(append(taken, "")).Draw(t, "id")
	}
	m.ids++
	return fmt.Sprintf("%s%06d", kind, m.ids)
}

func rarely(t *rapid.T, what string) bool { return rapid.IntRange(0, 15).Draw(t, what) == 0 }

// caller is mostly one who may, with a request id or an idempotency key at times.
func (m *model) caller(t *rapid.T, role workspace.Role) Caller {
	c := Caller{Principal: rapid.SampledFrom([]string{"root", "alice", "bob"}).Draw(t, "principal"), Role: role}
	if rarely(t, "other role") {
		c.Role = rapid.SampledFrom([]workspace.Role{workspace.RoleMember, workspace.RoleNode, workspace.RoleSystem, "", "emperor"}).Draw(t, "role")
	}
	if rarely(t, "request id") {
		c.RequestID = fmt.Sprint("q", rapid.IntRange(0, 9).Draw(t, "request"))
	}
	if rarely(t, "idempotent") {
		c.Idem = &IdempotencyKey{Scope: fmt.Sprint(rapid.IntRange(0, 3).Draw(t, "scope")), Body: fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "body"))}
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
	return rapid.SampledFrom(append(ids, "nothing")).Draw(t, "which")
}

func (m *model) workspaces(t *rapid.T) {
	ids := m.workspaceIDs()
	var cmd Command
	switch what := rapid.IntRange(0, 9).Draw(t, "what"); {
	case what < 2:
		name := rapid.SampledFrom([]string{"team", "Team!", "other", ""}).Draw(t, "name")
		cmd = &CreateWorkspace{ID: m.newID(t, "w", ids), Name: &name, Plan: rapid.SampledFrom([]workspace.Plan{
			workspace.PlanPro, workspace.PlanBasic, "gold"}).Draw(t, "plan")}
	case what < 3:
		cmd = &ArchiveWorkspace{ID: oneOf(t, ids)}
	default:
		cmd = &UpdateWorkspace{ID: oneOf(t, ids), MaxConcurrentRuns: ptr(rapid.IntRange(0, 8).Draw(t, "max"))}
	}
	m.do(t, cmd, m.caller(t, workspace.RoleClusterAdmin))
}

func (m *model) cluster(t *rapid.T) {
	name := rapid.SampledFrom([]string{"shell", "mine", "Mine"}).Draw(t, "template")
	cmd := rapid.SampledFrom([]Command{
		&InitCluster{ID: "c2", Workspace: "w9"}, &RaiseVersion{To: uint64(m.ids % (Version + 1))}, &DeleteTemplate{Name: name},
		&PutTemplate{Template: workspace.Template{Name: name, Image: "i", Kind: workspace.KindJob}},
		&InstallTemplates{Templates: []workspace.Template{{Name: name, Image: "j", Kind: workspace.KindJob}}},
		&SetRegistry{Host: name + ".lab", Username: "me", Password: workspace.Sealed{Sealed: []byte{1}}}, &RemoveRegistry{Host: name + ".lab"},
	}).Draw(t, "command")
	m.do(t, cmd, m.caller(t, workspace.RoleSystem))
}

func (m *model) create(t *rapid.T) {
	c := &CreateInstance{
		ID: m.newID(t, "i", m.instanceIDs()), Workspace: oneOf(t, m.workspaceIDs()),
		Name: fmt.Sprint("name-", rapid.IntRange(0, 30).Draw(t, "name")), Spec: workspace.RunSpec{Image: "i", Stoppable: !rarely(t, "unstoppable")},
		Kind: rapid.SampledFrom([]workspace.RunKind{workspace.KindInteractive, workspace.KindJob}).Draw(t, "kind"),
		Resources: workspace.Resources{GPUCount: rapid.SampledFrom([]int{0, 1, 1, 1, 2, 3}).Draw(t, "gpus"),
			CPUMilli: 1000, MemoryMiB: 1000, StorageMiB: 1000},
		Start: !rarely(t, "created only"), Run: m.newID(t, "r", m.runIDs()),
		StoragePolicy: rapid.SampledFrom([]string{"", "delete", "retain", "retain:1"}).Draw(t, "policy"),
		RestartPolicy: workspace.RestartPolicy{MaxRestarts: rapid.IntRange(0, 2).Draw(t, "max restarts"),
			Mode: rapid.SampledFrom([]workspace.RestartMode{"", workspace.RestartNever, workspace.RestartAlways, workspace.RestartOnFailure}).Draw(t, "restart")},
	}
	if rapid.Bool().Draw(t, "volume") {
		c.Spec.VolumePath = "/home"
		c.Resources.StorageMiB = rapid.SampledFrom([]int64{500, 1000, 2000}).Draw(t, "storage")
		if rapid.Bool().Draw(t, "reattach") {
			c.Volume = oneOf(t, m.volumeIDs())
		}
	}
	if rapid.Bool().Draw(t, "slices") {
		c.Resources.GPUType = "a100|a100-mig"
	}
	if c.Resources.GPUCount == 1 {
		c.Resources.GPUShare = rapid.SampledFrom([]int{0, 0, 200, 500, 700}).Draw(t, "share")
	}
	c.Suggestion = m.suggest(t, &c.Resources)
	m.do(t, c, m.caller(t, workspace.RoleClusterAdmin))
}

// change starts, stops, restarts or deletes an instance.
func (m *model) change(t *rapid.T) {
	id := oneOf(t, m.instanceIDs())
	res := &workspace.Resources{}
	if i := m.view().Instance(id); i != nil {
		res = &i.Resources
	}
	var cmd Command
	switch rapid.IntRange(0, 6).Draw(t, "what") {
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

// volumes removes or keeps one, lets time pass, or is a node's word of some.
func (m *model) volumes(t *rapid.T) {
	switch rapid.IntRange(0, 7).Draw(t, "what") {
	case 0:
		m.do(t, &RemoveVolume{ID: oneOf(t, m.volumeIDs())}, m.caller(t, workspace.RoleClusterAdmin))
	case 1:
		policy := rapid.SampledFrom([]string{"delete", "retain", "retain:1", "retain:2", "burn", ""}).Draw(t, "policy")
		m.do(t, &KeepVolume{ID: oneOf(t, m.volumeIDs()), Policy: policy}, m.caller(t, workspace.RoleClusterAdmin))
	case 2:
		m.clock += rapid.Int64Range(0, 2*24*3600e6).Draw(t, "days")
		m.do(t, &Sweep{}, m.caller(t, workspace.RoleSystem))
	default:
		node := rapid.SampledFrom(nodeNames).Draw(t, "node")
		m.report(t, node, func(r *workspace.Report) {
			for range rapid.IntRange(0, 3).Draw(t, "volumes") {
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
	switch rapid.IntRange(0, 7).Draw(t, "word") {
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
	if rarely(t, "any run") {
		ids = m.runIDs()
	}
	cmd := &PlaceRuns{}
	for range rapid.IntRange(1, 3).Draw(t, "batch") {
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
	switch rapid.IntRange(0, 15).Draw(t, "suggestion") {
	case 0:
		return nil
	case 1:
		return &Suggestion{Reason: "waiting_for_gpu", Message: "later"}
	case 2:
		return &Suggestion{Reason: "gpu_kind_absent", Message: "never", Impossible: true}
	}
	s := &Suggestion{Node: rapid.SampledFrom(nodeNames).Draw(t, "node")}
	there, count, milli := hardware[s.Node], r.GPUCount, r.MilliPerGPU()
	if rarely(t, "nonsense") {
		s.Node = rapid.SampledFrom([]string{"n1", "n2", "n3"}).Draw(t, "node")
		count, milli = rapid.IntRange(0, 4).Draw(t, "count"), rapid.IntRange(-500, 1500).Draw(t, "milli")
	}
	first := rapid.IntRange(0, len(there)-1).Draw(t, "device")
	for n := range count {
		s.Devices = append(s.Devices, workspace.Allotment{UUID: there[(first+n)%len(there)].UUID, Milli: milli})
	}
	return s
}

// runs is a report of what became of runs and their devices.
func (m *model) runs(t *rapid.T) {
	node := rapid.SampledFrom(nodeNames).Draw(t, "node")
	var known []*workspace.Run
	for r := range m.view().NodeRuns(node) {
		known = append(known, r)
	}
	m.report(t, node, func(report *workspace.Report) {
		for range rapid.IntRange(0, 3).Draw(t, "run reports") {
			id := oneOf(t, idsOf(known))
			report.Runs = append(report.Runs, workspace.RunReport{Run: id, Epoch: m.epoch(t, id), Reason: "seen",
				Phase: rapid.SampledFrom(reported).Draw(t, "phase"), Access: []workspace.AccessInfo{{Port: 30000}}})
		}
		for range rapid.IntRange(0, 2).Draw(t, "releases") {
			id := oneOf(t, idsOf(known))
			report.Released = append(report.Released, workspace.Release{Run: id, Epoch: m.epoch(t, id), Device: m.deviceOf(t, id),
				Stuck: rarely(t, "stuck")})
		}
	})
}

var reported = []workspace.Phase{workspace.PhasePulling, workspace.PhaseStarting, workspace.PhaseRunning, workspace.PhaseRunning,
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
		return rapid.SampledFrom(r.Devices).Draw(t, "device").UUID
	}
	return rapid.SampledFrom(hardware["n1"]).Draw(t, "device").UUID
}

// host is a report of the node itself: readiness, devices, orphans, a reboot,
// or a word that comes late.
func (m *model) host(t *rapid.T) {
	node := rapid.SampledFrom(nodeNames).Draw(t, "node")
	stamp := m.boots[node]
	switch rapid.IntRange(0, 9).Draw(t, "boot") {
	case 0:
		*stamp = workspace.Stamp{BootID: m.newID(t, "boot", nil)}
	case 1:
		now := *stamp
		defer func() { *stamp = now }()
		*stamp = workspace.Stamp{BootID: rapid.SampledFrom([]string{"boot1", now.BootID}).Draw(t, "late"), BoottimeMS: -1000}
	}
	there := hardware[node]
	m.report(t, node, func(r *workspace.Report) {
		r.Ready = &workspace.Readiness{Ready: !rarely(t, "not ready")}
		if !rarely(t, "no inventory yet") {
			r.Devices = &gpu.Inventory{Devices: slices.Clone(there[:len(there)-rapid.IntRange(0, 1).Draw(t, "missing")])}
		}
		r.Orphans = &[]workspace.Orphan{}
		if rarely(t, "orphan") {
			*r.Orphans = []workspace.Orphan{{Container: "orphan", Devices: []string{there[0].UUID}}}
		}
		h := workspace.DeviceHealth{Device: rapid.SampledFrom(there).Draw(t, "device").UUID, Health: gpu.Healthy}
		if rarely(t, "unhealthy") {
			h.Health, h.Reason = gpu.Unhealthy, "xid_79"
		}
		r.Health = []workspace.DeviceHealth{h}
	})
}
