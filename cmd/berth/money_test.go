package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/workspace"
)

func TestLimitFlags(t *testing.T) {
	for text, want := range map[string]int64{"100": 100_000_000, "12.50": 12_500_000, "0.000001": 1, "0": 0, "2.50 USD": 2_500_000, "none": -1} {
		var o workspace.Optional[int64]
		err := moneyFlag{&o}.Set(text)
		if err != nil || !o.Set || (want < 0) != (o.Value == nil) || o.Value != nil && *o.Value != want {
			t.Errorf("%s: %+v, %v", text, o, err)
		}
	}
	for _, text := range []string{"", "-1", "1e3", "1.0000001", "12 EUR", "12€", "$12", "1,000", ".5", "5.", "9007199254740991", "None", "0x10", " "} {
		var o workspace.Optional[int64]
		if err := (moneyFlag{&o}).Set(text); err == nil || strings.Contains(err.Error(), "invalid:") {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]int{"7": 7, "0": 0, "none": -1} {
		var o workspace.Optional[int]
		err := countFlag[int]{&o}.Set(text)
		if err != nil || !o.Set || (want < 0) != (o.Value == nil) || o.Value != nil && *o.Value != want {
			t.Errorf("%s: %+v, %v", text, o, err)
		}
	}
	for _, text := range []string{"", "-1", "1.5", "many", "9223372036854775808"} {
		if (countFlag[int64]{&workspace.Optional[int64]{}}).Set(text) == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

func TestAbsoluteDay(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 30, 0, 0, time.FixedZone("", 3600)) // still February in UTC
	for text, want := range map[string]string{
		"": "", "0d": "2026-02-28", "1d": "2026-02-27", "30d": "2026-01-29", "2026-01-31": "2026-01-31",
		"-1d": "-1d", "d": "d", "1.5d": "1.5d", "yesterday": "yesterday",
	} {
		if got := absoluteDay(now, text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestLongTime(t *testing.T) {
	for ms, want := range map[int64]string{0: "0:00:00", 999: "0:00:00", 61_000: "0:01:01", 360_000_000: "100:00:00"} {
		if got := longTime(ms); got != want {
			t.Errorf("%d: %s, want %s", ms, got, want)
		}
	}
}

// A write that breaks off leaves the file that was there, and nothing beside it.
func TestWriteWhole(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "out")
	write := func(text string, err error) error {
		return writeWhole(file, func(w io.Writer) error {
			_, _ = io.WriteString(w, text)
			return err
		})
	}
	broken := errors.New("it broke")
	if err := write("one", nil); err != nil {
		t.Fatal(err)
	}
	if err := write("half", broken); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if got, err := os.ReadFile(file); string(got) != "one" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if err := write("two", nil); err != nil {
		t.Error(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "two" {
		t.Errorf("%q", got)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left %v", left)
	}
	if err := writeWhole(filepath.Join(dir, "no", "out"), nil); err == nil || !strings.Contains(err.Error(), "write ") {
		t.Errorf("%v", err)
	}
}

func TestKillText(t *testing.T) {
	a := workspace.StoppedRun{Run: "r1", Name: "nb", User: "alice", Node: "n1", NodeName: "gpu-1"}
	b := workspace.StoppedRun{Run: "r2", User: "bob"}
	for want, k := range map[string]*workspace.KillSwitch{
		"nothing runs":                                   {},
		"1 run stopping: nb (alice on gpu-1)":            {Runs: []workspace.StoppedRun{a}},
		"2 runs stopping: nb (alice on gpu-1), r2 (bob)": {Runs: []workspace.StoppedRun{a, b}},
		"1 run on hosts that can't be reached, stopped when they reconnect: r2 (bob)": {Unreachable: []workspace.StoppedRun{b}},
	} {
		if got := killText(k, "stopping"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestUsageForPeople(t *testing.T) {
	five, day := int64(5_000_000), workspace.Day(20454)
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	u := &workspace.WorkspaceUsage{
		Slug: "vision", At: at, Spent: 4_000_000, Reserved: 500_000,
		Budgets: []workspace.BudgetUsage{
			{Budget: "workspace_daily", Day: day, Limit: &five, Spent: 4_000_000, Reserved: 500_000, Left: new(int64), ResetsAt: at.Add(12 * time.Hour)},
			{Budget: "spending_limit", Spent: 4_000_000},
		},
		Concurrency: workspace.ConcurrencyUsage{Limit: 10, Active: 1, Waiting: 2, Holders: []workspace.ConcurrencyHolder{
			{Run: "r1", Name: "nb", User: "alice", Kind: workspace.KindInteractive, Phase: workspace.PhaseRunning, Since: at, Rate: 1_000_000, PaidUntil: at.Add(time.Hour)},
		}},
		MonthlyRuns: workspace.MonthlyUsage{Month: 202601, Runs: 7, ResetsAt: at.AddDate(0, 1, -1).Truncate(24 * time.Hour)},
		DeniedToday: map[workspace.Code]int64{workspace.CodeConcurrency: 3}, KillSwitch: "cluster",
	}
	var out bytes.Buffer
	a := &app{stdout: &out}
	n := &names{nodes: map[string]string{}}
	a.writeSections(workspaceUsageKind(n).detail(u))
	for _, want := range []string{
		"Kill switch:      of the cluster is ON: nothing starts",
		"Runs this month:  7, begins anew in 29d, at 2026-01-31T00:00:00Z",
		"Concurrent runs:  1 of 10, 2 waiting",
		"  daily budget    -     5.00   4.00   0.50      0.00  in 12h, at 2026-01-02T00:00:00Z",
		"  spending limit  -     none   4.00   0.00      none  never",
		"  nb    alice  interactive  running  -     ", "  1.00      2026-01-01T13:00:00Z",
		"  MAX_CONCURRENT_RUNS_EXCEEDED  3",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
