package state

import (
	"berth/workspace"
)

// RenewLeases grants further time to runs of one node, in the order given: that
// of (lease end, run id). It answers a beat of the node.
type RenewLeases struct {
	Node  string                `cbor:"1,keyasint"`
	Stamp workspace.Stamp       `cbor:"2,keyasint"` // of the beat
	Runs  []workspace.Livedness `cbor:"3,keyasint"`
}

// Type is TypeRenewLeases.
func (*RenewLeases) Type() Type { return TypeRenewLeases }

func (c *RenewLeases) apply(*tx) error { panic("todo") }

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

func (c *ExpireLeases) apply(*tx) error { panic("todo") }

// SetReachable notes whether the leader hears from a node.
type SetReachable struct {
	Node      string `cbor:"1,keyasint"`
	Reachable bool   `cbor:"2,keyasint,omitempty"`
}

// Type is TypeSetReachable.
func (*SetReachable) Type() Type { return TypeSetReachable }

func (c *SetReachable) apply(*tx) error { panic("todo") }

// Leased is a live run with a lease, as the leader's lease loop sees it.
type Leased struct {
	Run       string
	Node      string
	Lease     workspace.Lease
	GrantedMS int64 // of its life; reserved up to here
	Renewable bool  // a renewal would give it more time now
	Due       bool  // by its lease, whatever the budgets say: a quarter of the grant is used at the beat, or it has no end yet, or a budget applies that its lease doesn't know
}

// Leases of the live runs of a node, in the order (lease end, run id), as they
// would be renewed at a beat of the node.
func (v View) Leases(beat workspace.Beat) []Leased { panic("todo") }

// Metered is the time and money of a live run; nil for one without a rate or
// lease, or that is over.
func (v View) Metered(run string) *workspace.Metered { panic("todo") }

// Present is a run as it is shown: with its lease and what it has cost so far.
func (v View) Present(run *workspace.Run) *workspace.Run { panic("todo") }
