package state

import (
	"fmt"

	"berth/workspace"
)

// grantsHold: a grant answers a newer stamp than the one before, is a deadline for
// exactly those runs that have one, and reaches no further than what is reserved.
func grantsHold(before, after View, cmd Command) error {
	for old, m := range changes(before, after, meters) {
		if m == nil {
			continue
		}
		if err := grantHolds(after, cmd, old, m); err != nil {
			return err
		}
	}
	return nil
}

func grantHolds(after View, cmd Command, old, m *meter) error {
	n := len(payerOf(after.txn, m.Workspace, m.User).budgets)
	deadline := m.FailoverMS > 0 || m.Rate > 0 && n > 0
	if old == nil || old.Lease.Grant != m.Lease.Grant {
		if m.Lease.Hard != deadline {
			return fmt.Errorf("lease: grant %d of run %s by %T is a deadline: %v, rate %d, %d budgets, failover after %d ms", m.Lease.Grant, m.Run, cmd,
				m.Lease.Hard, m.Rate, n, m.FailoverMS)
		}
		if told := old == nil || old.Lease.Hard || m.Lease.Hard; told && m.Index != after.Index() {
			return fmt.Errorf("lease: grant %d of run %s by %T isn't told to its node", m.Lease.Grant, m.Run, cmd)
		}
	}
	if m.Denied != "" && (!m.Lease.Hard || m.Rate == 0) {
		return fmt.Errorf("lease: run %s isn't given more time (%s), and its lease is no deadline", m.Run, m.Denied)
	}
	if most := after.At().Sub(after.Run(m.Run).Times.Assigned) + clockError; m.Node != "" && m.Charged > most.Milliseconds() {
		return fmt.Errorf("I5: run %s is charged for %d ms, it was placed %s ago", m.Run, m.Charged, most-clockError)
	}
	c, renews := cmd.(*RenewLeases)
	if renews && m.Node != c.Node {
		return fmt.Errorf("lease: a beat of %s touched run %s of %s", c.Node, m.Run, m.Node)
	}
	switch {
	case old == nil:
		if most := mostOf(m); m.Granted > most || m.MostMS > 0 && m.Granted > m.MostMS || m.Lease.Grant != 1 || m.Charged != 0 {
			return fmt.Errorf("lease: run %s began with %+v, %d ms are the most", m.Run, m, most)
		}
	case old.Lease.Grant == m.Lease.Grant:
		if old.Lease.End != m.Lease.End || old.Lease.GrantedMS != m.Lease.GrantedMS {
			return fmt.Errorf("lease: %T changed grant %d of run %s", cmd, m.Lease.Grant, m.Run)
		}
		// What is granted rises beyond a grant only for a late leader, where no budget is.
		if m.Granted > old.Granted && (old.Lease.Hard || m.Rate > 0 && n > 0) {
			return fmt.Errorf("I4: %T reserved for run %s beyond its grant", cmd, m.Run)
		}
	case m.Kind == workspace.KindExternal:
	case m.Denied != "" && (m.Granted > old.Granted || m.Charged > 0 && old.Lease.End.BootID == m.Lease.End.BootID):
		return fmt.Errorf("lease: run %s was denied more time (%s) and given it: %+v, %+v", m.Run, m.Denied, old.Lease, m.Lease)
	case m.Lease.GrantedMS > max(m.Granted-m.Charged+lasts(m), old.Lease.End.BoottimeMS-m.Lease.End.BoottimeMS+m.Lease.GrantedMS):
		return fmt.Errorf("lease: grant %d of run %s is of %d ms, %d are reserved", m.Lease.Grant, m.Run, m.Lease.GrantedMS, m.Granted-m.Charged)
	case renews && m.Granted > max(old.Granted, max(toldOf(c, m.Run), m.Charged)+mostOf(m)):
		return fmt.Errorf("lease: grant %d of run %s goes to %d ms after %d, one is of %d at most", m.Lease.Grant, m.Run, m.Granted, old.Granted, mostOf(m))
	case !renews:
		return fmt.Errorf("lease: %T granted run %s more", cmd, m.Run)
	case m.Lease.End.BootID != c.Stamp.BootID || after.Node(m.Node).Stamp.BootID != c.Stamp.BootID:
		return fmt.Errorf("lease: grant %d of run %s is of boot %s, the beat of %s", m.Lease.Grant, m.Run, m.Lease.End.BootID, c.Stamp.BootID)
	case old.Lease.End.BootID == c.Stamp.BootID && c.Stamp.BoottimeMS <= old.Lease.End.BoottimeMS-old.Lease.GrantedMS:
		return fmt.Errorf("lease: grant %d of run %s answers the stamp %+v, not newer than that of the one before", m.Lease.Grant, m.Run, c.Stamp)
	case m.Lease.End.BoottimeMS != c.Stamp.BoottimeMS+m.Lease.GrantedMS:
		return fmt.Errorf("lease: grant %d of run %s ends at %+v, the stamp was %+v", m.Lease.Grant, m.Run, m.Lease, c.Stamp)
	}
	return nil
}

// toldOf is how long a run has lived by a beat.
func toldOf(c *RenewLeases, run string) (lived int64) {
	for _, l := range c.Runs {
		if l.Run == run {
			lived = min(l.LivedMS, 1<<50)
		}
	}
	return lived
}

// mostOf is the most that one grant gives (docs/domain.md, leases).
func mostOf(m *meter) int64 {
	if m.Kind == workspace.KindExternal {
		return m.FailoverMS
	}
	if m.FailoverMS > 0 {
		return min(m.FailoverMS, workspace.DefaultGrant.Milliseconds())
	}
	return workspace.DefaultGrant.Milliseconds()
}

// leasesExpire: only a lease that is a deadline expires, of an unreachable node,
// by the leader that has waited for just that grant.
func leasesExpire(before, after View, cmd Command, term uint64) error {
	c, ok := cmd.(*ExpireLeases)
	for old, r := range changes(before, after, runs) {
		if !ok || old == nil || r == nil || old.Phase.Terminal() || !r.Phase.Terminal() {
			continue
		}
		m := meters.get(before.txn, "id", r.ID)
		told := false
		for _, e := range c.Runs {
			told = told || e.Run == r.ID && e.Grant == m.Lease.Grant
		}
		switch {
		case r.Phase != workspace.PhaseLost || c.Term != term || !told || !m.Lease.Hard || r.Node == "":
			return fmt.Errorf("I2: %+v in term %d ended run %s, whose lease is %+v", c, term, r.ID, m.Lease)
		case before.Node(r.Node).Reachable:
			return fmt.Errorf("I2: %+v ended run %s of a node that is heard", c, r.ID)
		case r.ChargedMS != m.Charged:
			return fmt.Errorf("I5: lost run %s is charged for %d ms, its node has told of %d", r.ID, r.ChargedMS, m.Charged)
		}
	}
	return nil
}

// livesPaid: a run that has ended is charged for what it was granted and lived, and
// what is unpaid is said.
func livesPaid(before, after View, cmd Command) error {
	report, ok := cmd.(*Report)
	if !ok {
		return nil
	}
	for i := range report.Runs {
		said := &report.Runs[i]
		old, now, m := before.Run(said.Run), after.Run(said.Run), meters.get(before.txn, "id", said.Run)
		if m == nil || now == nil || old.Phase.Terminal() || now.Phase != said.Phase || saidMore(report, now) || !now.Phase.Terminal() || now.Node != report.Node {
			continue
		}
		lived := min(said.LivedMS, (after.At().Sub(now.Times.Assigned) + clockError).Milliseconds())
		n := len(payerOf(before.txn, now.Workspace, now.User).budgets)
		if free := !m.Lease.Hard && (m.Rate == 0 || n == 0); free && now.UnpaidMS > 0 {
			return fmt.Errorf("I5: run %s isn't charged for %d ms, though no budget applies", now.ID, now.UnpaidMS)
		}
		if now.ChargedMS+now.UnpaidMS < lived || now.ChargedMS > max(lived, m.Charged) {
			return fmt.Errorf("I5: run %s has lived %d ms, %d are charged and %d unpaid", now.ID, lived, now.ChargedMS, now.UnpaidMS)
		}
	}
	return nil
}

// saidMore: the same report has several words of a run.
func saidMore(report *Report, r *workspace.Run) bool {
	n := 0
	for i := range report.Runs {
		if report.Runs[i].Run == r.ID {
			n++
		}
	}
	return n > 1
}

// lasts: a run whose whole max duration is paid ends by that, and its lease 10 s
// later.
func lasts(m *meter) int64 {
	if m.MostMS > 0 && m.Granted >= m.MostMS {
		return 10_000
	}
	return 0
}
