package state

import (
	"fmt"
	"strconv"
	"strings"

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

// event notes that something happened.
func (t *tx) event(e workspace.Event) {
	if t.events == 0 {
		t.seq = t.nextSeq()
	}
	row := &eventRow{Index: t.index, N: t.events, Seq: t.seq, Event: e}
	t.events++
	t.seq++
	row.Event.ID = fmt.Sprintf("%d.%d", row.Index, row.N)
	row.Event.At = t.at
	row.Event.Principal = t.env.Principal
	events.put(t, row)
}

func (t *tx) nextSeq() uint64 {
	if last, err := t.Last(events.name, "id"); err == nil && last != nil {
		return last.(*eventRow).Seq + 1
	}
	return 0
}

// trimEvents lets the oldest fall out of the ring, once an entry's are in it.
func (t *tx) trimEvents() {
	var old []*eventRow
	if t.events > 0 {
		for first := range events.from(t.Txn, "id") {
			if t.seq-first.Seq <= EventRing {
				break
			}
			old = append(old, first)
		}
	}
	for _, e := range old {
		events.delete(t, e)
	}
}

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
