package state

import (
	"slices"

	"berth/workspace"
)

// meter is the time and money of a live run, from the entry that placed it to
// the one that ends it. Its scale is the milliseconds that the run's process has
// lived: up to Charged they are spent, from there to Granted they are reserved,
// slice by slice. No entry charges what wasn't reserved, so what is spent and
// reserved together rises by grants only.
type meter struct {
	Run        string            `cbor:"1,keyasint"`
	Instance   string            `cbor:"2,keyasint,omitempty"`
	Workspace  string            `cbor:"3,keyasint"`
	User       string            `cbor:"4,keyasint"`
	Project    string            `cbor:"5,keyasint,omitempty"`
	Kind       workspace.RunKind `cbor:"6,keyasint"`
	GPUType    string            `cbor:"7,keyasint,omitempty"`
	Milli      int64             `cbor:"8,keyasint,omitempty"` // of GPUs, all together
	Node       string            `cbor:"9,keyasint,omitempty"`
	Rate       int64             `cbor:"10,keyasint,omitempty"`
	FailoverMS int64             `cbor:"11,keyasint,omitempty"` // failover_after
	MostMS     int64             `cbor:"12,keyasint,omitempty"` // max duration; 0: none
	Lease      workspace.Lease   `cbor:"13,keyasint"`
	Charged    int64             `cbor:"14,keyasint,omitempty"`
	Granted    int64             `cbor:"15,keyasint,omitempty"`
	Slices     []slice           `cbor:"16,keyasint,omitempty"` // from Charged to Granted
	Row        openRow           `cbor:"17,keyasint,omitzero"`
	Denied     workspace.Code    `cbor:"18,keyasint,omitempty"` // why it wasn't renewed last
	Why        string            `cbor:"19,keyasint,omitempty"` // the same, in words
	Index      uint64            `cbor:"20,keyasint"`           // of the entry that changed the lease last
	Held       bool              `cbor:"21,keyasint,omitempty"` // its node keeps to the deadline
}

// slice is reserved life that belongs to one UTC day and one generation of the
// workspace's spending limit. It begins where the one before ends.
type slice struct {
	Day        workspace.Day `cbor:"1,keyasint"`
	Generation uint64        `cbor:"2,keyasint,omitempty"`
	To         int64         `cbor:"3,keyasint"` // ms of the run's life
}

// openRow is the ledger row that still rises.
type openRow struct {
	Day        workspace.Day `cbor:"1,keyasint"`
	Generation uint64        `cbor:"2,keyasint,omitempty"`
	Amount     int64         `cbor:"3,keyasint,omitempty"`
	MS         int64         `cbor:"4,keyasint,omitempty"`
}

var meters = table[meter]{name: "meters", indexes: []index[meter]{
	{name: "id", key: func(m *meter) []byte { return key(m.Run) }},
}}

// cost of the life from one moment to a later one.
func (m *meter) cost(from, to int64) int64 {
	return workspace.Cost(m.Rate, to) - workspace.Cost(m.Rate, from)
}

// shortest is the least time that is worth being granted, in ms.
func (m *meter) shortest() int64 {
	least := workspace.ShortestGrant.Milliseconds()
	for _, asked := range []int64{m.FailoverMS, m.MostMS} {
		if asked > 0 {
			least = min(least, asked)
		}
	}
	return least
}

// wanted is how far the next grant would reach, for a run that has lived so long.
func (m *meter) wanted(lived int64) int64 {
	grant := workspace.DefaultGrant.Milliseconds()
	if m.Kind == workspace.KindExternal {
		grant = m.FailoverMS
	} else if m.FailoverMS > 0 {
		grant = min(grant, m.FailoverMS)
	}
	want := lived + grant
	if m.MostMS > 0 {
		want = min(want, m.MostMS)
	}
	return max(want, m.Granted)
}

// span is life to be reserved, with the wall time it falls on.
type span struct {
	rate     int64
	from, to int64 // ms of the run's life
	base     int64 // ms since 1970 at its life 0: wall time is base + life
}

// spanOf is the life from what is granted to a moment. It never goes back behind
// the day of what was granted or charged before: a clock that has been corrected
// opens no day again.
func (m *meter) spanOf(to, lived, atMS int64) span {
	s := span{rate: m.Rate, from: m.Granted, to: to, base: atMS - lived}
	latest := m.Row.Day
	if n := len(m.Slices); n > 0 {
		latest = m.Slices[n-1].Day
	}
	if late := latest.StartMS() - (s.base + s.from); late > 0 && planted != mutantDayTwice {
		s.base += late
	}
	return s
}

// segment is the day at a moment of life, and the end of the span or of the day,
// whichever is first.
func (s *span) segment(x int64) (day workspace.Day, end int64) {
	day = workspace.DayOfMS(s.base + x)
	return day, min(s.to, (day+1).StartMS()-s.base)
}

// reserve takes the span's life out of every budget, day by day.
func (t *tx) reserve(m *meter, s span) {
	all := slices.Clone(m.Slices)
	gen := t.payerOf(m.Workspace, m.User).generation()
	for x := s.from; x < s.to; {
		day, end := s.segment(x)
		t.setAside(m, day, gen, m.cost(x, end))
		if n := len(all); n > 0 && all[n-1].Day == day && all[n-1].Generation == gen {
			all[n-1].To = end
		} else {
			all = append(all, slice{Day: day, Generation: gen, To: end})
		}
		x = end
	}
	m.Slices, m.Granted = all, max(m.Granted, s.to)
}

// charge books what the run has lived, as far as it is reserved, to the days for
// which it was reserved.
func (t *tx) charge(m *meter, lived int64) {
	upTo := min(lived, m.Granted)
	for m.Charged < upTo {
		s := m.Slices[0]
		end := min(upTo, s.To)
		day := s.Day
		if planted == mutantPostingDay {
			day = workspace.DayOf(t.at)
		}
		t.spend(m, s, day, m.chargeFor(end), end-m.Charged)
		m.Charged = end
		if end == s.To {
			m.Slices = m.Slices[1:]
		}
	}
}

// chargeFor is the price of the life from what is charged to a moment.
func (m *meter) chargeFor(to int64) int64 {
	switch {
	case planted == mutantTruncate:
		return workspace.Cost(m.Rate, to-m.Charged)
	case planted == mutantChargeTwice && m.Charged > 0:
		return m.cost(m.Charged, to) + m.cost(m.Charged, to)/1000
	}
	return m.cost(m.Charged, to)
}

// catchUp brings a meter up to what its run has lived. Where no budget is in force,
// life beyond the last grant is paid too: the leader was late, not the run.
func (t *tx) catchUp(m *meter, lived int64) {
	if lived > m.Granted && !m.Lease.Hard && !t.bound(m) {
		t.reserve(m, m.spanOf(lived, lived, t.at.UnixMilli()))
	}
	t.charge(m, lived)
}

// giveBack lets go of what is reserved and won't be lived any more.
func (t *tx) giveBack(m *meter) {
	from := m.Charged
	for _, s := range m.Slices {
		if planted != mutantKeepReservation {
			t.setAside(m, s.Day, s.Generation, -m.cost(from, s.To))
		}
		from = s.To
	}
	m.Slices, m.Granted = nil, m.Charged
}

// closeMeter ends the time and money of a run that has ended; n is written by the
// caller. lived is what its process has lived, as far as is known.
func (t *tx) closeMeter(n *workspace.Run, lived int64) {
	old := meters.get(t, "id", n.ID)
	if old == nil {
		return
	}
	m := *old
	t.catchUp(&m, lived)
	n.UnpaidMS = max(0, lived-m.Granted)
	t.giveBack(&m)
	n.Cost, n.ChargedMS = t.closeRow(&m), m.Charged
	n.Warning = nil
	meters.delete(t, old)
}
