package state

import (
	"iter"
	"time"

	"berth/workspace"
)

// foldable: nothing waits for this run any more, so that history may forget it.
func foldable(r *workspace.Run) bool {
	return r.Phase.Terminal() && !r.Unreleased && r.ExpiresAt.IsZero() &&
		(r.Results == "" || r.Results == workspace.ResultsDeleted)
}

// FoldHistory forgets ended runs and their ledger rows, and counts of denials; the
// sums of usage per day stay. What is exported is exported before.
type FoldHistory struct {
	Before int64    `cbor:"1,keyasint"` // µs since 1970: only what ended earlier
	Runs   []string `cbor:"2,keyasint"`
}

// Type is TypeFoldHistory.
func (*FoldHistory) Type() Type { return TypeFoldHistory }

// leastHistory bounds how soon history may forget.
const leastHistory = 24 * time.Hour

func (c *FoldHistory) apply(t *tx) error {
	if err := t.needSystem(); err != nil {
		return err
	}
	before := min(c.Before, t.at.Add(-leastHistory).UnixMicro())
	for _, id := range c.Runs {
		r := runs.get(t, "id", id)
		if r == nil || !foldable(r) || r.Times.Ended.UnixMicro() >= before {
			continue
		}
		if inst := instances.get(t, "id", r.Instance); inst != nil && inst.Run == id {
			continue // it says how the instance is
		}
		t.fold(r)
	}
	t.foldDenials(workspace.DayOf(time.UnixMicro(before)))
	return nil
}

// foldDenials keeps of the denials before a day how many there were, by workspace
// and code: in the row of day 0.
func (t *tx) foldDenials(before workspace.Day) {
	for _, old := range collect(denials.each(t, "id")) {
		if old.Day == 0 || old.Day >= before {
			continue
		}
		sum := denied{Workspace: old.Workspace, Code: old.Code, N: old.N}
		if all := denials.get(t, "id", old.Workspace, uint64(0), string(old.Code)); all != nil {
			sum.N += all.N
		}
		denials.delete(t, old)
		denials.put(t, &sum)
	}
}

func (t *tx) fold(r *workspace.Run) {
	for _, e := range collect(ledger.each(t, "id", r.ID)) {
		t.account(e.Workspace).Folded += e.Amount
		ledger.delete(t, e)
	}
	runs.delete(t, r)
}

// Foldable are ended runs that a FoldHistory may forget, those first that ended
// first. The latest run of an instance stays with it.
func (v View) Foldable(before time.Time) iter.Seq[*workspace.Run] {
	return func(yield func(*workspace.Run) bool) {
		for r := range runs.each(v.txn, "ended") {
			if !r.Times.Ended.Before(before) {
				return
			}
			if inst := v.Instance(r.Instance); inst != nil && inst.Run == r.ID {
				continue
			}
			if !yield(r) {
				return
			}
		}
	}
}

// RunLedger are the final ledger rows of a run.
func (v View) RunLedger(run string) iter.Seq[*workspace.LedgerEntry] {
	return ledger.each(v.txn, "id", run)
}
