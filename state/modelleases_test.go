package state

import (
	"math"
	"slices"

	"pgregory.net/rapid"

	"berth/workspace"
)

// lived is how long a run's process has lived, in ms, as an honest node would say
// it: its guard ends it with its lease.
func (m *model) lived(id string) int64 {
	from, ok := m.lives[id]
	r := m.view().Run(id)
	if !ok || r == nil || r.Node == "" {
		return 0
	}
	ms, b := (m.now-from)/1000, m.boots[r.Node]
	if x := meters.get(m.view().txn, "id", id); x != nil && x.Lease.Hard && x.Lease.End.BootID == b.id {
		ms = min(ms, x.Lease.End.BoottimeMS-(from-b.at)/1000)
	}
	return max(ms, 0)
}

// over: the guard has ended a run whose lease is a deadline.
func (m *model) over(id string) bool {
	x := meters.get(m.view().txn, "id", id)
	if x == nil || !x.Lease.Hard || x.Node == "" {
		return false
	}
	s := m.stamp(x.Node)
	return x.Lease.End.BootID == s.BootID && s.BoottimeMS >= x.Lease.End.BoottimeMS
}

// told is what is said of a life: mostly the truth.
func (m *model) told(t *rapid.T, id string) int64 {
	truth := m.lived(id)
	switch upTo(t, 63, "lie") {
	case 0:
		return one(t, []int64{-1, 1 << 40, math.MaxInt64, math.MinInt64}, "nonsense")
	case 1:
		return truth * 2
	case 2:
		return truth / 2
	}
	return truth
}

// runReport is what a node says of one of its runs.
func (m *model) runReport(t *rapid.T, id string) workspace.RunReport {
	r := workspace.RunReport{Run: id, Epoch: m.epoch(t, id), Reason: "seen",
		Phase: one(t, reported, "phase"), Access: []workspace.AccessInfo{{Port: 30000}}}
	if r.Phase == workspace.PhaseRunning && m.lives[id] == 0 {
		m.lives[id] = m.now
	}
	if m.over(id) && !rarely(t, "not noticed") {
		r.Phase, r.Reason = workspace.PhaseStopped, workspace.ReasonLeaseExpired
		r.LivedMS = m.lived(id) + one(t, []int64{0, 0, 7, 900}, "too long")
		return r
	}
	r.LivedMS = m.told(t, id)
	return r
}

// beat is a leader's answer to a node's beat: it renews what is due.
func (m *model) beat(t *rapid.T) { m.beatOf(t, one(t, nodeNames, "node")) }

func (m *model) beatOf(t *rapid.T, node string) {
	m.now += 1000
	stamp := m.stamp(node)
	var said []workspace.Livedness
	for r := range m.view().NodeRuns(node) {
		if r.Phase.Active() && !m.over(r.ID) {
			l := workspace.Livedness{Run: r.ID, LivedMS: m.told(t, r.ID)}
			if x := meters.get(m.view().txn, "id", r.ID); coin.Draw(t, "holds") {
				l.EndMS = x.Lease.End.BoottimeMS
			}
			said = append(said, l)
		}
	}
	if len(said) == 0 {
		m.create(t)
		return
	}
	switch upTo(t, 31, "beat") {
	case 0:
		stamp.BoottimeMS -= within(t, 0, 7200_000, "stale")
	case 1:
		stamp.BootID = "boot1"
	}
	c := &RenewLeases{Node: node, Stamp: stamp}
	for _, l := range m.view().Leases(workspace.Beat{Node: node, Stamp: stamp, Runs: said}, unixMicro(m.now+m.skew)) {
		if l.Due && (l.Renewable || l.Learns) || rarely(t, "not due") {
			c.Runs = append(c.Runs, workspace.Livedness{Run: l.Run, LivedMS: l.LivedMS, EndMS: l.EndMS})
		}
	}
	if id := oneOf(t, m.runIDs()); rarely(t, "another's") && !slices.Contains(runsIn(c), id) {
		c.Runs = append(c.Runs, workspace.Livedness{Run: id, LivedMS: 7200_000})
	}
	m.do(t, c, m.caller(t, workspace.RoleSystem))
	if rarely(t, "repeated") {
		m.do(t, c, Caller{Role: workspace.RoleSystem})
	}
}

func runsIn(c *RenewLeases) (ids []string) {
	for _, l := range c.Runs {
		ids = append(ids, l.Run)
	}
	return ids
}

// reach loses sight of a node, or hears it again, or ends leases.
func (m *model) reach(t *rapid.T) {
	node := one(t, nodeNames, "node")
	if rarely(t, "no such node") {
		node = "n9"
	}
	switch upTo(t, 7, "what") {
	case 0, 1, 2, 6, 7:
		m.do(t, &SetReachable{Node: node, Reachable: true}, m.caller(t, workspace.RoleSystem))
		return
	case 3, 4:
		m.do(t, &SetReachable{Node: node}, Caller{Role: workspace.RoleSystem})
	}
	if !coin.Draw(t, "expire") {
		return
	}
	c := &ExpireLeases{Term: m.term}
	if rarely(t, "other term") {
		c.Term--
	}
	for x := range meters.each(m.view().txn, "id") {
		if m.over(x.Run) || rarely(t, "too early") {
			c.Runs = append(c.Runs, Expired{Run: x.Run, Grant: x.Lease.Grant})
		}
	}
	if n := len(c.Runs); n > 0 && rarely(t, "older grant") {
		c.Runs[n-1].Grant--
	}
	m.do(t, c, m.caller(t, workspace.RoleSystem))
}
