package state

import (
	"iter"

	"berth/workspace"
)

// WorkspaceUsage is what a workspace has used of each of its limits; nil when
// there is no such workspace.
func (v View) WorkspaceUsage(id string) *workspace.WorkspaceUsage { panic("todo") }

// Usage sums the ledger as a query asks, in the order of its dimensions.
func (v View) Usage(q workspace.UsageQuery) []workspace.UsageRow { panic("todo") }

// Ledger is what the runs of a workspace (empty: of all) have cost on the days
// since..until, both included; 0: no bound. Rows of live runs are not final.
func (v View) Ledger(workspaceID string, since, until workspace.Day) iter.Seq[*workspace.LedgerEntry] {
	panic("todo")
}

// FoldHistory forgets ended runs and their ledger rows; their sums per day stay.
type FoldHistory struct {
	Before int64    `cbor:"1,keyasint"` // µs since 1970: only what ended earlier
	Runs   []string `cbor:"2,keyasint"`
}

// Type is TypeFoldHistory.
func (*FoldHistory) Type() Type { return TypeFoldHistory }

func (c *FoldHistory) apply(*tx) error { panic("todo") }

// Foldable are ended runs that a FoldHistory may forget, oldest end first.
func (v View) Foldable(before int64) iter.Seq[*workspace.Run] { panic("todo") }
