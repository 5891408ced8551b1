package state

import (
	"time"

	"berth/workspace"
)

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

// Type is TypeStartExternal.
func (*StartExternal) Type() Type { return TypeStartExternal }

func (c *StartExternal) apply(*tx) error { panic("todo") }

// RenewExternal is any call about an external run: its lease begins anew.
type RenewExternal struct {
	Run string `cbor:"1,keyasint"`
}

// Type is TypeRenewExternal.
func (*RenewExternal) Type() Type { return TypeRenewExternal }

func (c *RenewExternal) apply(*tx) error { panic("todo") }

// EndExternal says how an external run ended.
type EndExternal struct {
	Run      string          `cbor:"1,keyasint"`
	Phase    workspace.Phase `cbor:"2,keyasint"` // succeeded, failed or stopped
	Message  string          `cbor:"3,keyasint,omitempty"`
	ExitCode *int            `cbor:"4,keyasint,omitempty"`
}

// Type is TypeEndExternal.
func (*EndExternal) Type() Type { return TypeEndExternal }

func (c *EndExternal) apply(*tx) error { panic("todo") }
