package state

import (
	"strconv"
	"strings"

	"berth/workspace"
)

// eventRow holds the events of one entry, and its place in the ring.
type eventRow struct {
	Index  uint64            `cbor:"1,keyasint"`
	Seq    uint64            `cbor:"2,keyasint"` // how many events came before these, ever
	Events []workspace.Event `cbor:"3,keyasint"`
}

var events = table[eventRow]{name: "events", indexes: []index[eventRow]{
	{name: "id", key: func(e *eventRow) []byte { return key(e.Index) }},
}}

// event notes that something happened.
func (t *tx) event(e workspace.Event) {
	e.ID = strconv.FormatUint(t.index, 10) + "." + strconv.Itoa(len(t.events))
	e.At = t.at
	e.Principal = t.env.Principal
	t.events = append(t.events, e)
}

// keepEvents puts an entry's events in the ring and lets the oldest fall out.
// Whole entries go, so that a little less than the ring may be kept.
func (t *tx) keepEvents() {
	if len(t.events) == 0 {
		return
	}
	row := &eventRow{Index: t.index, Events: t.events}
	if last, err := t.Last(events.name, "id"); err == nil && last != nil {
		row.Seq = last.(*eventRow).end()
	}
	var old []*eventRow
	for first := range events.from(t.Txn, "id") {
		if row.end()-first.Seq <= EventRing {
			break
		}
		old = append(old, first)
	}
	events.put(t.Txn, row)
	for _, e := range old {
		events.delete(t.Txn, e)
	}
}

// end is the place of the event after these.
func (e *eventRow) end() uint64 { return e.Seq + uint64(len(e.Events)) }

// eventsFrom is the place in the ring of what follows an event's id.
func eventsFrom(after string) (index, n uint64, err error) {
	if after == "" {
		return 0, 0, nil
	}
	head, rest, _ := strings.Cut(after, ".")
	index, err = strconv.ParseUint(head, 10, 64)
	if err == nil {
		n, err = strconv.ParseUint(rest, 10, 63)
	}
	if err != nil {
		return 0, 0, workspace.InvalidField("after", "%q is not an event's id such as 120.0", after)
	}
	return index, n + 1, nil
}
