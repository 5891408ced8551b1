package state

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"berth/workspace"
)

// TestStaging: whatever an entry writes and reads in turn, it reads what it
// would without staging, and the tables end the same.
func TestStaging(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		plain := newDatabase().mem.Txn(true)
		staged := &tx{Txn: newDatabase().mem.Txn(true)}
		same := func(index string, parts ...any) {
			want := slices.Collect(runs.each(plain, index, parts...))
			if got := slices.Collect(runs.each(staged, index, parts...)); !slices.Equal(got, want) {
				t.Fatalf("index %s has %v, want %v", index, idsOf(got), idsOf(want))
			}
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			id := fmt.Sprint("r", rapid.IntRange(0, 50).Draw(t, "id"))
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				same("live", "w", active)
			case 1:
				same("live", "w", waiting)
			case 2:
				if row := runs.get(plain, "id", id); row != nil {
					runs.delete(plain, row)
					runs.delete(staged, row)
				}
			case 3:
				if got, want := runs.get(staged, "id", id), runs.get(plain, "id", id); got != want {
					t.Fatalf("run %s is %v, want %v", id, got, want)
				}
			default:
				row := &workspace.Run{ID: id, Workspace: "w", Phase: rapid.SampledFrom([]workspace.Phase{
					workspace.PhasePending, workspace.PhaseRunning, workspace.PhaseStopped}).Draw(t, "phase")}
				runs.put(plain, row)
				runs.put(staged, row)
			}
		}
		same("id")
		same("live")
	})
}
