package state

import (
	"time"

	"berth/workspace"
)

// External runs are elsewhere: they have no node, no devices and no agent. What
// they have is a slot, a place in the books, and a lease by the log's own clock.

// StartExternal asks for leave to run something elsewhere: a slot, and money if
// it has a rate. It is running in the entry that admits it. A denied one is kept
// as failed, with its code as the reason, for a day and counts nowhere.
type StartExternal struct {
	Run       string        `cbor:"1,keyasint"` // id
	Workspace string        `cbor:"2,keyasint"`
	User      string        `cbor:"3,keyasint,omitempty"` // empty: the caller
	Name      string        `cbor:"4,keyasint,omitempty"`
	Rate      int64         `cbor:"5,keyasint,omitempty"` // micro-USD an hour
	Lease     time.Duration `cbor:"6,keyasint,omitempty"` // 0: workspace.ExternalLease
}

// The bounds of an external run's lease.
const (
	shortestExternal = workspace.ShortestGrant
	longestExternal  = 30 * 24 * time.Hour
	deniedKept       = 24 * time.Hour
)

// Type is TypeStartExternal.
func (*StartExternal) Type() Type { return TypeStartExternal }

func (c *StartExternal) apply(t *tx) error {
	w, err := t.needMember(c.Workspace)
	if err != nil {
		return err
	}
	if err := c.validate(); err != nil {
		return err
	}
	if err := t.freshRun(c.Run); err != nil {
		return err
	}
	if c.User != "" && c.User != t.env.Principal {
		if _, err := t.needOwner(c.Workspace); err != nil {
			return err
		}
	}
	run := &workspace.Run{ID: c.Run, Workspace: w.ID, User: c.User, Name: c.Name, Kind: workspace.KindExternal, Attempt: 1,
		Phase: workspace.PhasePending, Desired: workspace.RunWanted, Rate: c.Rate, Since: t.at}
	if run.User == "" {
		run.User = t.env.Principal
	}
	run.Times.Mark(workspace.PhasePending, t.at)
	t.result.Object, t.result.Run = run.ID, run.ID
	m := meterOf(run, nil, quote{known: true, rate: c.Rate})
	m.FailoverMS = workspace.ExternalLease.Milliseconds()
	if c.Lease > 0 {
		m.FailoverMS = c.Lease.Milliseconds()
	}
	ask := question{workspace: w, user: run.User, at: t.at, quote: quote{known: true, rate: c.Rate}, least: m.shortest(), atSubmit: true}
	if denial := t.admit(ask); denial != nil {
		run.ExpiresAt = t.at.Add(deniedKept)
		t.countDenial(w.ID, denial.Code)
		t.anew = true
		t.setPhase(run, workspace.PhaseFailed, string(denial.Code), denial.Message)
		return nil
	}
	t.countRun(run)
	t.grantFirst(m, nil, "")
	run.ExpiresAt = m.Lease.PaidUntil
	t.setPhase(run, workspace.PhaseRunning, "running", "admitted; it runs elsewhere")
	return nil
}

func (c *StartExternal) validate() error {
	switch {
	case c.Rate < 0 || c.Rate > workspace.MaxRate:
		return workspace.InvalidField("rate_micro_usd_per_hour", "%d is outside 0 to %d", c.Rate, workspace.MaxRate)
	case c.Lease != 0 && (c.Lease < shortestExternal || c.Lease > longestExternal):
		return workspace.InvalidField("lease_seconds", "%d is outside %d to %d", int64(c.Lease.Seconds()),
			int64(shortestExternal.Seconds()), int64(longestExternal.Seconds()))
	case len(c.Name) > workspace.MaxText:
		return workspace.InvalidField("name", "is longer than %d bytes", workspace.MaxText)
	}
	return nil
}

// RenewExternal is any call about an external run: its lease begins anew.
type RenewExternal struct {
	Run string `cbor:"1,keyasint"`
}

// Type is TypeRenewExternal.
func (*RenewExternal) Type() Type { return TypeRenewExternal }

func (c *RenewExternal) apply(t *tx) error {
	run, err := t.ownExternal(c.Run)
	if err != nil {
		return err
	}
	t.result.Object, t.result.Run = run.ID, run.ID
	w := t.workspace(run.Workspace)
	if denial := killed(t, w); denial != nil {
		return denial
	}
	if denial := closed(w); denial != nil {
		return denial
	}
	m := *meters.get(t, "id", run.ID)
	lived := t.livedExternally(run)
	t.catchUp(&m, lived)
	p := planRenewal(t, &m, lived, t.at)
	n := *run
	if p.short != nil {
		d := p.short.denial(t, w, t.at, m.Rate, m.shortest())
		t.deniedIn = w.ID
		return d
	}
	t.reserve(&m, p.span)
	left := m.Granted - lived
	m.Lease = workspace.Lease{Grant: m.Lease.Grant + 1, GrantedMS: left, PaidUntil: t.at.Add(ms(left)), Hard: p.hard}
	m.Index = t.index
	meters.put(t, &m)
	n.ExpiresAt = m.Lease.PaidUntil
	t.putRun(&n)
	return nil
}

// livedExternally is how long an external run has lived: it is taken to run from
// its admission on, but never longer than it was promised.
func (t *tx) livedExternally(run *workspace.Run) int64 {
	until := t.at
	if run.ExpiresAt.Before(until) {
		until = run.ExpiresAt
	}
	return max(0, until.UnixMilli()-run.Times.Running.UnixMilli())
}

// EndExternal says how an external run ended.
type EndExternal struct {
	Run      string          `cbor:"1,keyasint"`
	Phase    workspace.Phase `cbor:"2,keyasint"` // succeeded, failed or stopped
	Message  string          `cbor:"3,keyasint,omitempty"`
	ExitCode *int            `cbor:"4,keyasint,omitempty"`
}

// Type is TypeEndExternal.
func (*EndExternal) Type() Type { return TypeEndExternal }

func (c *EndExternal) apply(t *tx) error {
	run, err := t.ownExternal(c.Run)
	if err != nil {
		return err
	}
	switch c.Phase {
	case workspace.PhaseSucceeded, workspace.PhaseFailed, workspace.PhaseStopped:
	default:
		return workspace.InvalidField("phase", "%.40q is none of succeeded, failed, stopped", c.Phase)
	}
	if len(c.Message) > workspace.MaxText {
		return workspace.InvalidField("message", "is longer than %d bytes", workspace.MaxText)
	}
	t.result.Object, t.result.Run = run.ID, run.ID
	n := *run
	n.ExitCode = c.ExitCode
	message := c.Message
	if message == "" {
		message = "reported by " + t.env.Principal
	}
	t.endRunAt(&n, t.livedExternally(run), c.Phase, string(c.Phase), message)
	return nil
}

// ownExternal gives a live external run that the caller may change. Who may not
// see it gets the answer for one that isn't there.
func (t *tx) ownExternal(id string) (*workspace.Run, error) {
	run := runs.get(t, "id", id)
	if run != nil && run.Kind == workspace.KindExternal {
		if t.belongs(t.workspace(run.Workspace)) { // also of a deleted one: what runs must be able to end
			if run.Phase.Terminal() {
				return nil, workspace.Errorf(workspace.CodeConflict, "external run %s has ended: it is %s (%s)", id, run.Phase, run.Reason)
			}
			return run, nil
		}
	}
	return nil, workspace.Errorf(workspace.CodeNotFound, "there is no external run %.40q", id)
}

// expireExternal ends an external run about which nobody has called in time.
func (t *tx) expireExternal(run *workspace.Run) {
	t.endRunAt(run, t.livedExternally(run), workspace.PhaseLost, workspace.ReasonLeaseExpired,
		"nobody has renewed it: it is taken to have ended")
}
