package state

import (
	"github.com/hashicorp/go-memdb"

	"berth/workspace"
)

// tally is how many runs of a group there are: the size of a part of the index
// live, which memdb can't tell without going through it. It is no counter that a
// rule raises and lowers: whatever writes a row of the table runs moves it, by
// what the row was and is, and a restore counts anew. No snapshot holds it.
type tally struct {
	Workspace string // empty: all together
	Group     string
	N         int64
}

var tallies = table[tally]{name: "tallies", indexes: []index[tally]{
	{name: "id", key: func(t *tally) []byte { return key(t.Workspace, t.Group) }},
}}

// groupIn is the group in which a run is counted; empty: in none.
func groupIn(r *workspace.Run) string {
	switch {
	case r == nil:
		return ""
	case r.Phase.Active():
		return active
	case r.Phase == workspace.PhasePending && r.Kind == workspace.KindInteractive:
		return waiting
	}
	return ""
}

// count moves the tallies by one row of the table runs.
func count(txn *memdb.Txn, old, row *workspace.Run) {
	was, is := groupIn(old), groupIn(row)
	if was == is {
		return
	}
	move := func(ws, group string, by int64) {
		n := tally{Workspace: ws, Group: group}
		if t := tallies.get(txn, "id", ws, group); t != nil {
			n.N = t.N
		}
		n.N += by
		tallies.put(txn, &n)
	}
	if was != "" && (planted != mutantCounter || row.Phase != workspace.PhaseLost) {
		move(old.Workspace, was, -1)
		move("", was, -1)
	}
	if is != "" {
		move(row.Workspace, is, 1)
		move("", is, 1)
	}
}

func tallyOf(in reader, ws, group string) int64 {
	if t, ok := in.(*tx); ok {
		if err := t.flush(); err != nil {
			panic(err.Error()) // as any schema error
		}
	}
	if t := tallies.get(in, "id", ws, group); t != nil {
		return t.N
	}
	return 0
}

// recount is for a state that was just restored.
func recount(txn *memdb.Txn) {
	for r := range runs.each(txn, "id") {
		count(txn, nil, r)
	}
}
