package state

import (
	"iter"
	"maps"
	"slices"

	"berth/workspace"
)

// ledger has the rows that don't rise any more. A live run's last row is in its
// meter: rows are raised in place without a write to this table.
var ledger = table[workspace.LedgerEntry]{name: "ledger", indexes: []index[workspace.LedgerEntry]{
	{name: "id", key: func(e *workspace.LedgerEntry) []byte {
		return key(e.Run, uint64(e.Day), e.Generation) // #nosec G115 -- after 1970
	}},
	{name: "day", key: func(e *workspace.LedgerEntry) []byte {
		return key(e.Workspace, uint64(e.Day), e.Run, e.Generation) // #nosec G115 -- after 1970
	}},
}}

// usage sums the final ledger rows of a day by all that usage can be told apart
// by. It outlives the rows.
type usage struct {
	Workspace string        `cbor:"1,keyasint"`
	Day       workspace.Day `cbor:"2,keyasint"`
	User      string        `cbor:"3,keyasint,omitempty"`
	Project   string        `cbor:"4,keyasint,omitempty"`
	GPUType   string        `cbor:"5,keyasint,omitempty"`
	Spent     int64         `cbor:"6,keyasint,omitempty"`
	MS        int64         `cbor:"7,keyasint,omitempty"`
	GPUMS     int64         `cbor:"8,keyasint,omitempty"`
	Runs      int64         `cbor:"9,keyasint,omitempty"`
}

func (u *usage) key() []byte {
	return key(u.Workspace, uint64(u.Day), u.User, u.Project, u.GPUType) // #nosec G115 -- after 1970
}

var usages = table[usage]{name: "usage", indexes: []index[usage]{
	{name: "id", key: (*usage).key},
}}

// entry is a meter's ledger row as it is now.
func (m *meter) entry() *workspace.LedgerEntry {
	return &workspace.LedgerEntry{
		Run: m.Run, Instance: m.Instance, Workspace: m.Workspace, User: m.User, Project: m.Project, Kind: m.Kind, GPUType: m.GPUType,
		Day: m.Row.Day, Generation: m.Row.Generation, Rate: m.Rate, Amount: m.Row.Amount, MS: m.Row.MS, ChargedThrough: m.Charged,
	}
}

// usageOf is what a meter's row adds to the sums.
func (m *meter) usageOf() usage {
	return usage{Workspace: m.Workspace, Day: m.Row.Day, User: m.User, Project: m.Project, GPUType: m.GPUType,
		Spent: m.Row.Amount, MS: m.Row.MS, GPUMS: gpuMS(m.Row.MS, m.Milli), Runs: 1}
}

func gpuMS(ms, milli int64) int64 { return ms * milli / 1000 }

// turnRow closes the meter's row, if it has one, and opens another. One that was
// closed before is taken up again: a spending limit that is set and ended within a
// day comes back to the row of generation 0.
func (t *tx) turnRow(m *meter, day workspace.Day, generation uint64) {
	t.keepRow(m)
	m.Row = openRow{Day: day, Generation: generation}
	old := ledger.get(t, "id", m.Run, uint64(day), generation) // #nosec G115 -- after 1970
	if old == nil {
		return
	}
	m.Row.Amount, m.Row.MS = old.Amount, old.MS
	u := m.usageOf()
	u.Spent, u.MS, u.GPUMS, u.Runs = -u.Spent, -u.MS, -u.GPUMS, -u.Runs
	t.addUsage(&u)
	ledger.delete(t, old)
}

// keepRow writes the meter's row, which rises no more.
func (t *tx) keepRow(m *meter) {
	if m.Row == (openRow{}) {
		return
	}
	e := m.entry()
	e.Final = true
	ledger.put(t, e)
	u := m.usageOf()
	t.addUsage(&u)
}

// addUsage moves the sums of a day.
func (t *tx) addUsage(add *usage) {
	k := string(add.key())
	sum := t.books.usage[k]
	if sum == nil {
		if t.books.usage == nil {
			t.books.usage = map[string]*usage{}
		}
		sum = &usage{Workspace: add.Workspace, Day: add.Day, User: add.User, Project: add.Project, GPUType: add.GPUType}
		if old := usages.get(t, "id", add.key()); old != nil {
			*sum = *old
		}
		t.books.usage[k] = sum
	}
	sum.add(add)
}

func (u *usage) add(o *usage) {
	u.Spent += o.Spent
	u.MS += o.MS
	u.GPUMS += o.GPUMS
	u.Runs += o.Runs
}

// closeRow makes the run's last row final and gives what all its rows come to.
func (t *tx) closeRow(m *meter) (cost int64) {
	t.keepRow(m)
	m.Row = openRow{}
	for e := range ledger.each(t, "id", m.Run) {
		cost += e.Amount
	}
	return cost
}

// liveMeters are those of a workspace's live runs, or of all.
func liveMeters(in reader, ws string) iter.Seq[*meter] {
	if ws == "" {
		return meters.each(in, "id")
	}
	return func(yield func(*meter) bool) {
		for r := range runs.each(in, "live", ws, active) {
			if m := meters.get(in, "id", r.ID); m != nil && !yield(m) {
				return
			}
		}
	}
}

// Ledger is what the runs of a workspace (empty: of all) have cost on the days
// since..until, both included; 0: no bound. Rows of live runs are not final and
// come last.
func (v View) Ledger(ws string, since, until workspace.Day) iter.Seq[*workspace.LedgerEntry] {
	in := func(d workspace.Day) bool { return (since == 0 || d >= since) && (until == 0 || d <= until) }
	return func(yield func(*workspace.LedgerEntry) bool) {
		closed := ledger.each(v.txn, "day")
		if ws != "" {
			closed = ledger.each(v.txn, "day", ws)
		}
		for e := range closed {
			if in(e.Day) && !yield(e) {
				return
			}
		}
		for m := range liveMeters(v.txn, ws) {
			if m.Row != (openRow{}) && in(m.Row.Day) && !yield(m.entry()) {
				return
			}
		}
	}
}

// Usage sums the ledger as a query asks, in the order of its dimensions.
func (v View) Usage(q workspace.UsageQuery) []workspace.UsageRow {
	sums := map[string]*workspace.UsageRow{}
	add := func(u *usage) {
		if q.Since != 0 && u.Day < q.Since || q.Until != 0 && u.Day > q.Until {
			return
		}
		row, k := groupOf(u, q.By)
		sum := sums[k]
		if sum == nil {
			sum = &row
			sums[k] = sum
		}
		sum.Spent += u.Spent
		sum.MS += u.MS
		sum.GPUMS += u.GPUMS
		sum.Runs += u.Runs
	}
	closed := usages.each(v.txn, "id")
	if q.Workspace != "" {
		closed = usages.each(v.txn, "id", q.Workspace)
	}
	for u := range closed {
		add(u)
	}
	for m := range liveMeters(v.txn, q.Workspace) {
		if m.Row != (openRow{}) {
			u := m.usageOf()
			add(&u)
		}
	}
	return sorted(sums)
}

func sorted(sums map[string]*workspace.UsageRow) []workspace.UsageRow {
	rows := make([]workspace.UsageRow, 0, len(sums))
	for _, k := range slices.Sorted(maps.Keys(sums)) {
		rows = append(rows, *sums[k])
	}
	return rows
}

// groupOf is the row that a sum belongs to, without its amounts, and its key.
func groupOf(u *usage, by []string) (row workspace.UsageRow, k string) {
	var parts []any
	for _, dimension := range by {
		switch dimension {
		case "workspace":
			row.Workspace = u.Workspace
			parts = append(parts, u.Workspace)
		case "user":
			row.User = u.User
			parts = append(parts, u.User)
		case "project":
			row.Project = u.Project
			parts = append(parts, u.Project)
		case "day":
			row.Day = &u.Day
			parts = append(parts, uint64(u.Day)) // #nosec G115 -- after 1970
		case "gpu_type":
			row.GPUType = u.GPUType
			parts = append(parts, u.GPUType)
		}
	}
	return row, string(key(parts...))
}
