package state

import (
	"cmp"
	"slices"
	"time"

	"berth/workspace"
)

// meterOf is the meter that a run would get; inst is nil for an external run.
func meterOf(run *workspace.Run, inst *workspace.Instance, q quote) *meter {
	m := &meter{
		Run: run.ID, Instance: run.Instance, Workspace: run.Workspace, User: run.User, Kind: run.Kind,
		GPUType: q.types, Milli: q.milli, Node: run.Node, Rate: q.rate, MostMS: run.Spec.MaxDuration * 1000,
	}
	if inst != nil {
		m.Project, m.FailoverMS = inst.Project, int64(inst.FailoverAfter)*1000
	}
	return m
}

// grantFirst is the grant of the entry that places a run. Admission has found that
// the budgets pay for the shortest.
func (t *tx) grantFirst(m *meter, stamp *workspace.Stamp, boot string) {
	p := planRenewal(t, m, 0, t.at)
	t.reserve(m, p.span)
	left := m.Granted + m.slack()
	m.Lease = workspace.Lease{Grant: 1, GrantedMS: left, PaidUntil: t.at.Add(ms(left)), Hard: p.hard}
	if stamp != nil && stamp.BootID == boot {
		m.Lease.End = workspace.Stamp{BootID: boot, BoottimeMS: stamp.BoottimeMS + left}
	}
	m.Index, m.Held = t.index, p.hard // nothing starts that its guard holds no end of
	meters.put(t, m)
}

// slack is what the lease of a run lasts longer than its life is paid, in ms. One
// that is paid for its whole max duration ends by that: its guard holds it to it,
// and its life begins some time after the grant.
func (m *meter) slack() int64 {
	if m.MostMS > 0 && m.Granted >= m.MostMS && m.Kind != workspace.KindExternal {
		return maxDurationSlack.Milliseconds()
	}
	return 0
}

const maxDurationSlack = 10 * time.Second

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// renewal is what a meter would get if its lease were renewed.
type renewal struct {
	span  span    // life to reserve
	hard  bool    // the lease is a deadline from now on
	short *budget // doesn't pay for it; nil: all do
	least int64
}

// planRenewal looks how far the budgets pay for a run that has lived so long. What
// is reserved already needs no budget.
func planRenewal(in books, m *meter, lived int64, at time.Time) renewal {
	budgets := in.payerOf(m.Workspace, m.User).budgets
	want := m.wanted(lived)
	p := renewal{span: m.spanOf(want, lived, at.UnixMilli()), hard: m.FailoverMS > 0 || m.Rate > 0 && len(budgets) > 0}
	p.least = min(want, max(m.Granted, lived)+m.shortest()) // time that is over is no use to it
	var reach int64
	reach, p.short = affordable(in, budgets, p.span, p.least)
	if planted == mutantRenewPast && m.Granted > 0 {
		reach, p.short = want, nil
	}
	p.span.to = max(reach, m.Granted)
	return p
}

// due: a renewal would be of use at a stamp of the run's node: it would move the
// end or say why it doesn't. Every grant answers a newer stamp than the one before.
func (m *meter) due(stamp workspace.Stamp, lived int64, p *renewal) bool {
	l := &m.Lease
	if l.End.BootID != stamp.BootID {
		return true // not granted in this boot
	}
	used := stamp.BoottimeMS - (l.End.BoottimeMS - l.GrantedMS)
	later := stamp.BoottimeMS+p.span.to-lived > l.End.BoottimeMS
	return used > 0 && (p.hard != l.Hard || used >= l.GrantedMS/4 && (later || p.short != nil))
}

// keeps: a node says that it keeps to the run's present end. A run that is given a
// deadline while it lives would live on where that hasn't been heard of.
func (m *meter) keeps(stamp workspace.Stamp, r *workspace.Livedness) bool {
	l := &m.Lease
	return l.Hard && l.End.BootID == stamp.BootID && r.EndMS >= l.End.BoottimeMS
}

// RenewLeases grants further time to runs of one node, in the order given: that
// of (lease end, run id). It answers a beat of the node.
type RenewLeases struct {
	Node  string                `cbor:"1,keyasint"`
	Stamp workspace.Stamp       `cbor:"2,keyasint"` // of the beat
	Runs  []workspace.Livedness `cbor:"3,keyasint"`
}

// Type is TypeRenewLeases.
func (*RenewLeases) Type() Type { return TypeRenewLeases }

func (c *RenewLeases) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	node := nodes.get(t, "id", c.Node)
	if node == nil || node.Stamp.BootID != c.Stamp.BootID {
		return workspace.Errorf(workspace.CodeConflict, "the beat is of boot %s of node %s, which isn't its present one", c.Stamp.BootID, c.Node)
	}
	// All reads come before the writes: each between two makes memdb copy again
	// what it has copied.
	renewed := make(map[string]*meter, len(c.Runs))
	for i := range c.Runs {
		run := &c.Runs[i]
		if old := meters.get(t, "id", run.Run); old != nil && old.Node == c.Node && renewed[run.Run] == nil {
			renewed[run.Run] = t.renew(old, c.Stamp, run)
		}
	}
	for i := range c.Runs {
		if m := renewed[c.Runs[i].Run]; m != nil {
			meters.put(t.Txn, m)
		}
	}
	return nil
}

// clockError is how far the log's clock may be behind that of a node: leaders'
// clocks are corrected.
const clockError = 24 * time.Hour

// believed is how long a run has lived, in ms, by its node's word: not longer than
// since the entry that placed it. Without a bound, one wrong number would reserve
// days without end.
func believed(in reader, run string, lived int64, at time.Time) int64 {
	most := at.Sub(runs.get(in, "id", run).Times.Assigned) + clockError
	return min(max(0, lived), most.Milliseconds())
}

// renew books what a run has lived, and grants it more where the budgets pay. The
// meter that it gives is to be written.
func (t *tx) renew(old *meter, stamp workspace.Stamp, r *workspace.Livedness) *meter {
	m := *old
	lived := max(believed(t, m.Run, r.LivedMS, t.at), m.Charged)
	m.Held = m.Held || m.keeps(stamp, r)
	t.catchUp(&m, lived)
	p := planRenewal(t, &m, lived, t.at)
	if m.due(stamp, lived, &p) {
		t.grant(&m, p, stamp, lived)
		t.charge(&m, lived) // a grant that came late pays for what was lived before it
	}
	if m.Lease.Hard != old.Lease.Hard { // its node doesn't know yet
		m.Held = false
	}
	return &m
}

// grant gives a run what the budgets pay for. Where they pay nothing more, a run
// that hasn't started still has the whole of what was paid, from the stamp on: the
// time before its start isn't life.
func (t *tx) grant(m *meter, p renewal, stamp workspace.Stamp, lived int64) {
	l := &m.Lease
	if p.short != nil {
		t.denyRenewal(m, p)
		if l.End.BootID == stamp.BootID && lived > 0 {
			if l.Hard != p.hard {
				l.Hard, m.Index = p.hard, t.index
			}
			return // what was paid plays out
		}
		p.span.to = m.Granted
	} else if m.Denied != "" {
		m.Denied, m.Why = "", ""
		t.warn(m.Run, nil)
	}
	t.reserve(m, p.span)
	end := workspace.Stamp{BootID: stamp.BootID, BoottimeMS: stamp.BoottimeMS + m.Granted + m.slack() - lived}
	if l.End.BootID == stamp.BootID { // ends move later only, whatever a node says its run has lived
		end.BoottimeMS = max(end.BoottimeMS, l.End.BoottimeMS)
	}
	if l.Hard || p.hard { // a node isn't told of others
		m.Index = t.index
	}
	left := end.BoottimeMS - stamp.BoottimeMS
	*l = workspace.Lease{Grant: l.Grant + 1, GrantedMS: left, PaidUntil: t.at.Add(ms(left)), Hard: p.hard, End: end}
}

// denyRenewal notes that a run isn't given more time, once per reason.
func (t *tx) denyRenewal(m *meter, p renewal) {
	if m.Denied == p.short.code {
		return
	}
	d := p.short.denial(t, t.workspace(m.Workspace), t.at, m.Rate, m.shortest())
	m.Denied, m.Why = d.Code, d.Message
	t.warn(m.Run, &workspace.Warning{Reason: string(d.Code), EndsAt: m.Lease.PaidUntil,
		Message: "it isn't given more time: " + d.Message})
}

// warn puts a warning on a run, or takes it away with nil.
func (t *tx) warn(run string, w *workspace.Warning) {
	n := *runs.get(t, "id", run)
	n.Warning = w
	t.putRun(&n)
	e := workspace.Event{Type: "run.renewed", Object: n.ID, Workspace: n.Workspace, Instance: n.Instance, Run: n.ID, Node: n.Node,
		Message: "it is given more time again"}
	if w != nil {
		e.Type, e.Reason = "run.ends_soon", w.Reason
		e.Message = "it ends at " + w.EndsAt.Format("2006-01-02 15:04:05 UTC") + ": " + w.Message
	}
	t.event(e)
}

// ExpireLeases ends runs of unreachable nodes whose lease is over by the clock of
// the leader that proposes it.
type ExpireLeases struct {
	Term uint64    `cbor:"1,keyasint"` // the proposer's
	Runs []Expired `cbor:"2,keyasint"`
}

// Expired is one lease: another grant since makes it void.
type Expired struct {
	Run   string `cbor:"1,keyasint"`
	Grant uint64 `cbor:"2,keyasint"`
}

// Type is TypeExpireLeases.
func (*ExpireLeases) Type() Type { return TypeExpireLeases }

func (c *ExpireLeases) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	if c.Term != t.term {
		return workspace.Errorf(workspace.CodeConflict, "it was proposed in term %d, this is term %d: whoever leads now waits itself", c.Term, t.term)
	}
	for _, e := range c.Runs {
		m := meters.get(t, "id", e.Run)
		if m == nil || m.Node == "" || m.Lease.Grant != e.Grant || !m.Held || nodes.get(t, "id", m.Node).Reachable {
			continue
		}
		t.endRun(runs.get(t, "id", e.Run), workspace.PhaseLost, workspace.ReasonLeaseExpired,
			"its node "+nodeName(t, m.Node)+" is unreachable and its lease is over: it has ended there")
	}
	return nil
}

// SetReachable notes whether the leader hears from a node.
type SetReachable struct {
	Node      string `cbor:"1,keyasint"`
	Reachable bool   `cbor:"2,keyasint,omitempty"`
}

// Type is TypeSetReachable.
func (*SetReachable) Type() Type { return TypeSetReachable }

func (c *SetReachable) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	old := nodes.get(t, "id", c.Node)
	if old == nil {
		return workspace.Errorf(workspace.CodeNotFound, "there is no node %.40q", c.Node)
	}
	if old.Reachable == c.Reachable {
		return nil
	}
	n := *old
	n.Reachable, n.Since, n.ModifyIndex = c.Reachable, t.at, t.index
	nodes.put(t, &n)
	e := workspace.Event{Type: "node.reachable", Object: n.ID, Node: n.ID, Message: "node " + n.Name + " is heard again"}
	if !c.Reachable {
		e.Type, e.Reason = "node.unreachable", "node_unreachable"
		e.Message = "node " + n.Name + " isn't heard: its runs go on there, those with a lease until that ends"
	}
	t.event(e)
	return nil
}

// Leased is a live run with a lease, as the leader's lease loop sees it.
type Leased struct {
	Run       string
	Node      string
	LivedMS   int64
	EndMS     int64 // as the node says
	Lease     workspace.Lease
	GrantedMS int64 // of its life; reserved up to here
	Due       bool  // a renewal would be of use: a quarter of the grant is used, or it has no end yet, or a budget applies that its lease doesn't know
	Renewable bool  // the budgets pay for it now
	Learns    bool  // the state learns something else: that they don't, or that the node keeps to its deadline
}

// forecast is a view's books for many leases.
type forecast struct {
	ledgers
	payers
}

func (f forecast) payerOf(ws, user string) *payer { return f.of(f.reader, ws, user) }

// Leases are a node's live runs at a beat of it and a time, in the order (lease
// end, run id). Those that are Due and Renewable, or Due and Learn, belong into a
// RenewLeases.
func (v View) Leases(beat workspace.Beat, now time.Time) []Leased {
	at := v.At()
	if now.After(at) {
		at = now
	}
	in := forecast{ledgers{v.txn}, payers{}}
	all := make([]Leased, 0, len(beat.Runs))
	for _, r := range beat.Runs {
		m := meters.get(v.txn, "id", r.Run)
		if m == nil || m.Node != beat.Node {
			continue
		}
		l := Leased{Run: m.Run, Node: m.Node, LivedMS: r.LivedMS, EndMS: r.EndMS, Lease: m.Lease, GrantedMS: m.Granted}
		lived := max(believed(in, m.Run, r.LivedMS, at), m.Charged)
		p := planRenewal(in, m, lived, at)
		hears := !m.Held && m.keeps(beat.Stamp, &r)
		l.Due = m.due(beat.Stamp, lived, &p) || hears
		l.Renewable = p.short == nil || m.Lease.End.BootID != beat.Stamp.BootID || lived == 0
		l.Learns = hears || p.short != nil && (m.Denied != p.short.code || p.hard != m.Lease.Hard)
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Leased) int {
		return cmp.Or(cmp.Compare(a.Lease.End.BoottimeMS, b.Lease.End.BoottimeMS), cmp.Compare(a.Run, b.Run))
	})
	return all
}

// Metered is the time and money of a live run; nil for one that is not.
func (v View) Metered(run string) *workspace.Metered {
	m := meters.get(v.txn, "id", run)
	if m == nil {
		return nil
	}
	lease := m.Lease
	return &workspace.Metered{Lease: &lease, Cost: m.cost(0, m.Charged), ChargedMS: m.Charged, GrantedMS: m.Granted,
		Reserved: m.cost(m.Charged, m.Granted), Held: m.Held}
}

// LeaseIndex is the index of the entry that changed a live run's lease last: its
// end, or whether it is a deadline. 0 for one that has none.
func (v View) LeaseIndex(run string) uint64 {
	if m := meters.get(v.txn, "id", run); m != nil {
		return m.Index
	}
	return 0
}

// Present is a run as it is shown: a live one with its lease, where that is a
// deadline, and with what it has cost so far.
func (v View) Present(run *workspace.Run) *workspace.Run {
	m := v.Metered(run.ID)
	if m == nil {
		return run
	}
	n := *run
	n.Cost, n.ChargedMS = m.Cost, m.ChargedMS
	if m.Lease.Hard {
		n.Lease = m.Lease
	}
	return &n
}
