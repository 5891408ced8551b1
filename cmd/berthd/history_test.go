package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/state"
	"berth/workspace"
)

// past is a history of two days with the entries of a state, whose clock the test
// moves.
type past struct {
	*entries
	*history
	clock time.Time
}

func newPast(t *testing.T, export string) *past {
	p := &past{entries: newEntries(t), clock: time.Now().Add(time.Second)}
	p.entries.clock = func() time.Time { p.clock = p.clock.Add(time.Millisecond); return p.clock }
	p.history = newHistory(HistoryConfig{KeepDays: 2, Export: export}, slog.New(slog.DiscardHandler))
	return p
}

// ran adds a run that lived an hour somewhere else, and gives its rows.
func (p *past) ran(id string) (rows []workspace.LedgerEntry) {
	p.t.Helper()
	p.apply(workspace.RoleClusterAdmin, "alice", &state.StartExternal{Run: id, Workspace: "ws", Rate: 3_600_000})
	p.clock = p.clock.Add(time.Hour)
	p.apply(workspace.RoleClusterAdmin, "alice", &state.EndExternal{Run: id, Phase: workspace.PhaseSucceeded})
	for row := range p.store.View().RunLedger(id) {
		rows = append(rows, *row)
	}
	if len(rows) == 0 {
		p.t.Fatal("it has no rows")
	}
	return rows
}

// later lets time pass, of which the state learns.
func (p *past) later(d time.Duration) {
	p.clock = p.clock.Add(d)
	p.apply(workspace.RoleSystem, "", &state.Sweep{})
}

func (p *past) once() time.Duration {
	p.t.Helper()
	left, err := p.RunOnce(p.t.Context(), p.store.View(), p.propose, p.clock)
	if err != nil {
		p.t.Fatal(err)
	}
	return left
}

// exported reads the file; lines that are no rows are left out, as its readers are
// told to.
func exported(t *testing.T, path string) (rows []workspace.LedgerEntry) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var row workspace.LedgerEntry
		if json.Unmarshal([]byte(line), &row) == nil {
			rows = append(rows, row)
		}
	}
	return rows
}

// Runs are forgotten once they are older than is kept, and what they have cost is
// in the file and in the sums.
func TestHistory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	p := newPast(t, path)
	want := append(p.ran("one"), p.ran("two")...)
	if left := p.once(); p.swept.Load() != 0 || left <= 0 || left > 24*time.Hour {
		t.Errorf("young runs: %d entries, %s left", p.swept.Load(), left)
	}
	p.later(2 * 24 * time.Hour)
	p.ran("three")
	before := p.store.View().Usage(workspace.UsageQuery{})
	p.once()
	view := p.store.View()
	if view.Run("one") != nil || view.Run("two") != nil || view.Run("three") == nil {
		t.Error("it has forgotten the wrong ones")
	}
	if diff := cmp.Diff(want, exported(t, path)); diff != "" {
		t.Errorf("-rows +exported:\n%s", diff)
	}
	if diff := cmp.Diff(before, view.Usage(workspace.UsageQuery{})); diff != "" {
		t.Errorf("usage has changed:\n%s", diff)
	}
	if p.once(); p.swept.Load() != 1 {
		t.Errorf("%d entries: one was enough", p.swept.Load())
	}
	p.later(24 * time.Hour)
	next := p.clock.Add(p.once())
	if day := workspace.DayOf(p.clock) + 1; !next.Equal(day.Start()) {
		t.Errorf("it looks again at %s", next)
	}
}

// What can't be exported is kept and told of, until it can.
func TestExportFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "absent")
	for _, path := range []string{filepath.Join(dir, "ledger.jsonl"), "/dev/full"} {
		p := newPast(t, path)
		want := p.ran("one")
		p.later(3 * 24 * time.Hour)
		if left := p.once(); left != exportAgain || p.store.View().Run("one") == nil || p.swept.Load() != 0 {
			t.Errorf("%s: %s left, %d entries", path, left, p.swept.Load())
		}
		if w := p.warnings(); len(w) != 1 || !strings.Contains(w[0], path) || !p.metrics().Failed {
			t.Errorf("%s: %v", path, w)
		}
		if path == "/dev/full" {
			continue
		}
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		p.once()
		if diff := cmp.Diff(want, exported(t, path)); diff != "" || p.store.View().Run("one") != nil || p.warnings() != nil || p.metrics().Failed {
			t.Errorf("mended: %v %s", p.warnings(), diff)
		}
	}
}

// A crash between the export and the entry exports the rows twice, and one within
// the export leaves a line that is none; nothing is lost.
func TestExportAfterCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	if err := os.WriteFile(path, []byte("{\"run\":\"tor"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newPast(t, path)
	want := p.ran("one")
	p.later(3 * 24 * time.Hour)
	crash := errors.New("leadership lost")
	never := func(context.Context, state.Command) error { return crash }
	if _, err := p.RunOnce(t.Context(), p.store.View(), never, p.clock); !errors.Is(err, crash) {
		t.Fatal(err)
	}
	p.once()
	if diff := cmp.Diff(append(want, want...), exported(t, path)); diff != "" {
		t.Errorf("-rows, twice +exported:\n%s", diff)
	}
	raw, err := os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(raw, []byte("{\"run\":\"tor\n{")) || bytes.Count(raw, []byte("\n")) != 1+2*len(want) {
		t.Errorf("%v\n%s", err, raw)
	}
}

// Many runs take several entries, at once.
func TestHistoryInBatches(t *testing.T) {
	p := newPast(t, "")
	for i := range foldedMost + 1 {
		p.ran(fmt.Sprintf("run-%d", i))
	}
	p.later(3 * 24 * time.Hour)
	first, then := p.once(), p.once()
	if first != 0 || then == 0 || p.swept.Load() != 2 {
		t.Errorf("%s, then %s left; %d entries", first, then, p.swept.Load())
	}
	for r := range p.store.View().AllRuns() {
		t.Fatalf("%s is left", r.ID)
	}
}

// The loop wakes once a day, and ends with leadership.
func TestHistoryIsDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPast(t, "")
		p.ran("one")
		p.entries.clock = time.Now
		ctx, cancel := context.WithCancel(t.Context())
		var looks atomic.Int64
		done := make(chan error, 1)
		view := func() state.View { looks.Add(1); return p.store.View() }
		go func() { done <- p.Run(ctx, view, p.propose, time.Now) }()
		for day := range 4 {
			synctest.Wait()
			if want := int64(1 + day); looks.Load() != want || (p.store.View().Run("one") == nil) != (day == 3) {
				t.Errorf("day %d: it has looked %d times", day, looks.Load())
			}
			time.Sleep(24*time.Hour - time.Second)
			p.apply(workspace.RoleSystem, "", &state.Sweep{}) // something happens in the cluster
			time.Sleep(time.Second)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
