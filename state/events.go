package state

import (
	"fmt"

	"berth/workspace"
)

// eventRow is an event with its place in the ring.
type eventRow struct {
	Index uint64          `cbor:"1,keyasint"`
	N     uint64          `cbor:"2,keyasint"`
	Seq   uint64          `cbor:"3,keyasint"` // how many events came before it, ever
	Event workspace.Event `cbor:"4,keyasint"`
}

var events = table[eventRow]{name: "events", indexes: []index[eventRow]{
	{name: "id", key: func(e *eventRow) []byte { return key(e.Index, e.N) }},
}}

// event notes that something happened and lets the oldest fall out of the ring.
func (t *tx) event(e workspace.Event) {
	row := &eventRow{Index: t.index, N: t.events, Event: e}
	t.events++
	row.Event.ID = fmt.Sprintf("%d.%d", row.Index, row.N)
	row.Event.At = t.at
	row.Event.Principal = t.env.Principal
	if last, err := t.Last(events.name, "id"); err == nil && last != nil {
		row.Seq = last.(*eventRow).Seq + 1
	}
	events.put(t.Txn, row)
	if first, err := t.First(events.name, "id"); err == nil && row.Seq-first.(*eventRow).Seq >= EventRing {
		events.delete(t.Txn, first.(*eventRow))
	}
}
