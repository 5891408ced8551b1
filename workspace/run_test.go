package workspace

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// phases in their order, the ends last.
var phases = []Phase{PhasePending, PhaseAssigned, PhasePulling, PhaseStarting, PhaseRunning, PhaseStopping,
	PhaseSucceeded, PhaseFailed, PhaseStopped, PhaseLost}

// TestPhases: a run goes forward only and never out of an end; the active phases
// are those between pending and the ends.
func TestPhases(t *testing.T) {
	const firstEnd = 6
	for i, p := range phases {
		for j, next := range phases {
			want := i < firstEnd && j > i
			if got := p.CanBecome(next); got != want {
				t.Errorf("%s can become %s: %v, want %v", p, next, got, want)
			}
		}
		if p.Terminal() != (i >= firstEnd) || p.Active() != (i > 0 && i < firstEnd) {
			t.Errorf("%s: terminal %v, active %v", p, p.Terminal(), p.Active())
		}
		if p.CanBecome("dancing") || Phase("dancing").ByAgent() {
			t.Errorf("%s can become a phase that doesn't exist", p)
		}
		if apply := p == PhasePending || p == PhaseAssigned || p == PhaseLost; p.ByAgent() == apply {
			t.Errorf("an agent may write %s: %v", p, p.ByAgent())
		}
	}
	if p := Phase("dancing"); p.Terminal() || p.Active() {
		t.Error("an unknown phase is active or an end")
	}
}

// TestMark: each phase has its own time; the ends share one.
func TestMark(t *testing.T) {
	var times RunTimes
	at := func(n int) time.Time { return time.Unix(int64(n), 0).UTC() }
	for i, p := range phases {
		times.Mark(p, at(i))
	}
	want := RunTimes{Created: at(0), Assigned: at(1), Pulling: at(2), Starting: at(3), Running: at(4), Stopping: at(5), Ended: at(9)}
	if diff := cmp.Diff(want, times); diff != "" {
		t.Error(diff)
	}
}

func TestErrors(t *testing.T) {
	err := Errorf(CodeConflict, "%s is busy", "i1")
	if got := err.Error(); got != "conflict: i1 is busy" {
		t.Error(got)
	}
	for _, c := range []struct {
		err  error
		want Code
	}{{nil, ""}, {err, CodeConflict}, {fmt.Errorf("start: %w", err), CodeConflict}, {fmt.Errorf("plain"), CodeInternal}} {
		if got := CodeOf(c.err); got != c.want {
			t.Errorf("CodeOf(%v) = %q, want %q", c.err, got, c.want)
		}
	}
	if f := InvalidField("name", "is %s", "bad"); f.Code != CodeInvalid || f.Message != "name: is bad" || f.Fields["name"] != "is bad" {
		t.Errorf("%+v", f)
	}
}
