package state

import (
	"berth/workspace"
)

// month counts the runs of a workspace that were first placed in a UTC month.
type month struct {
	Workspace string `cbor:"1,keyasint"`
	Month     int    `cbor:"2,keyasint"` // year × 100 + month
	Runs      int64  `cbor:"3,keyasint"`
}

var months = table[month]{name: "months", indexes: []index[month]{
	{name: "id", key: func(m *month) []byte { return monthKey(m.Workspace, m.Month) }},
}}

func monthKey(ws string, m int) []byte { return key(ws, uint64(m)) } // #nosec G115 -- after 1970

func monthlyRuns(in reader, ws string, m int) int64 {
	if row := months.get(in, "id", monthKey(ws, m)); row != nil {
		return row.Runs
	}
	return 0
}

// countRun counts a run for the month in which it is first placed; n is written by
// the caller. Restarts by policy don't count, nor do runs that count already.
func (t *tx) countRun(n *workspace.Run) {
	if n.Counted {
		return
	}
	n.Counted, n.Month = true, workspace.Month(t.at)
	months.put(t, &month{Workspace: n.Workspace, Month: n.Month, Runs: monthlyRuns(t, n.Workspace, n.Month) + 1})
}

// denied counts what admission has denied in a workspace on a UTC day.
type denied struct {
	Workspace string         `cbor:"1,keyasint"`
	Day       workspace.Day  `cbor:"2,keyasint"`
	Code      workspace.Code `cbor:"3,keyasint"`
	N         int64          `cbor:"4,keyasint"`
}

var denials = table[denied]{name: "denials", indexes: []index[denied]{
	{name: "id", key: func(d *denied) []byte { return key(d.Workspace, uint64(d.Day), string(d.Code)) }}, // #nosec G115 -- after 1970
}}

// countDenial counts a start that was refused or put off, if admission did it.
func (t *tx) countDenial(ws string, code workspace.Code) {
	if ws == "" || !code.Admission() {
		return
	}
	n := denied{Workspace: ws, Day: workspace.DayOf(t.at), Code: code}
	if old := denials.get(t, "id", ws, uint64(n.Day), string(code)); old != nil { // #nosec G115 -- after 1970
		n.N = old.N
	}
	n.N++
	denials.put(t, &n)
}
