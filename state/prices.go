package state

import (
	"berth/workspace"
)

// SetPrice sets the price of an hour of something. It counts for what is placed
// from then on.
type SetPrice struct {
	Resource string `cbor:"1,keyasint"`
	GPUType  string `cbor:"2,keyasint,omitempty"`
	Node     string `cbor:"3,keyasint,omitempty"` // id
	Amount   int64  `cbor:"4,keyasint"`
}

// Type is TypeSetPrice.
func (*SetPrice) Type() Type { return TypeSetPrice }

func (c *SetPrice) apply(*tx) error { panic("todo") }

// RemovePrice takes a price out of the price book.
type RemovePrice struct {
	Resource string `cbor:"1,keyasint"`
	GPUType  string `cbor:"2,keyasint,omitempty"`
	Node     string `cbor:"3,keyasint,omitempty"` // id
}

// Type is TypeRemovePrice.
func (*RemovePrice) Type() Type { return TypeRemovePrice }

func (c *RemovePrice) apply(*tx) error { panic("todo") }

// Prices of the price book, in the order of resource, GPU type and node.
func (v View) Prices() []workspace.Price { panic("todo") }
