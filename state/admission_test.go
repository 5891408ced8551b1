package state

import (
	"testing"
	"time"

	"berth/workspace"
)

// TestAdmissionForeseesPlacement: what a view says of a pending run is what the
// next entry that would place it finds.
func TestAdmissionForeseesPlacement(t *testing.T) {
	system := Caller{Principal: "system", Role: workspace.RoleSystem}
	for what, c := range map[string]struct {
		before string // a waiting interactive run, r1, doesn't count against itself
		want   workspace.Code
	}{
		"free":                {"", ""},
		"limit reached":       {"create i2 in=w1 run=r2 on=n1\nupdate w1 max=1", workspace.CodeConcurrency},
		"another's runs":      {"create i2 run=r2 on=n1\nupdate w1 max=1", ""},
		"kill switch":         {"switch w1 kill-switch", workspace.CodeKillSwitch},
		"cluster kill switch": {"switch c1 cluster-kill-switch", workspace.CodeKillSwitch},
	} {
		w := newWorld(t)
		w.play("init\nreport n1 facts ready\nworkspace w1 name=team\ncreate i1 in=w1 run=r1 why=\"waiting_for_gpu|none free\"")
		if c.before != "" {
			w.play(c.before)
		}
		view := w.store.View()
		said := view.Admission(view.Run("r1"), nil, time.Time{})
		w.apply(&PlaceRuns{Placements: []Placement{{Run: "r1", Suggestion: Suggestion{Node: "n1"}}}}, system)
		run := w.store.View().Run("r1")
		switch {
		case c.want == "" && (said != nil || run.Phase != workspace.PhaseAssigned):
			t.Errorf("%s: the view says %v, the entry %s (%s)", what, said, run.Phase, run.Reason)
		case c.want != "" && (said == nil || said.Code != c.want || run.Reason != string(c.want) || run.Message != said.Message):
			t.Errorf("%s: the view says %v, the entry %s (%s), want %s", what, said, run.Phase, run.Reason, c.want)
		}
	}
}
