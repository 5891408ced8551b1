package gputest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
)

// patience is how long a Reader may take for what it must do at once.
const patience = 30 * time.Second

// softSuite checks readings, processes, events and status.
func softSuite(t *testing.T, open func(t *testing.T) gpu.Reader) {
	t.Run("readings", func(t *testing.T) {
		reader := open(t)
		defer shut(t, reader)
		inventory := read(t, reader)
		for range 2 { // a caller's change doesn't show
			readings, err := reader.Readings(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range ReadingProblems(inventory, readings, time.Now()) {
				t.Error(problem)
			}
			for _, r := range readings {
				clear(r.Values)
			}
			clear(readings)
		}
	})
	t.Run("processes", func(t *testing.T) {
		reader := open(t)
		defer shut(t, reader)
		inventory := read(t, reader)
		processes, err := reader.Processes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range ProcessProblems(inventory, processes) {
			t.Error(problem)
		}
	})
	t.Run("events end with their context", func(t *testing.T) {
		reader := open(t)
		defer shut(t, reader)
		eventsEnd(t, reader)
	})
	t.Run("status", func(t *testing.T) {
		reader := open(t)
		defer shut(t, reader)
		before := time.Now()
		inventory := read(t, reader)
		status := reader.Status()
		if status.Unresponsive || status.Message != "" || status.Restarts != 0 {
			t.Errorf("after a success: %+v", status)
		}
		if answered := !status.LastSuccess.IsZero(); answered != (inventory.Source != "none") {
			t.Errorf("last success at %s with source %q", status.LastSuccess, inventory.Source)
		} else if answered && (status.LastSuccess.Before(before) || status.LastSuccess.After(time.Now())) {
			t.Errorf("last success at %s, asked at %s", status.LastSuccess, before)
		}
		if diff := cmp.Diff(inventory, read(t, reader)); diff != "" {
			t.Errorf("asking for the status changes the inventory:\n%s", diff)
		}
	})
}

func eventsEnd(t *testing.T, reader gpu.Reader) {
	t.Helper()
	var over atomic.Bool
	handle := func(gpu.Event) {
		if over.Load() {
			t.Error("an event after the end")
		}
	}
	for _, wait := range []time.Duration{0, 50 * time.Millisecond} {
		over.Store(false)
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		ended := make(chan error, 1)
		go func() { ended <- reader.Events(ctx, handle) }()
		select {
		case err := <-ended:
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v, want %v", err, context.DeadlineExceeded)
			}
		case <-time.After(patience):
			t.Errorf("no end %s after that of its context", patience)
		}
		over.Store(true)
		cancel()
	}
}

// shares are the quantities from 0 to 1, flags those that are one of the two.
var (
	shares = []gpu.Quantity{gpu.Utilization, gpu.MemoryUtilization, gpu.FanSpeed}
	flags  = []gpu.Quantity{gpu.RemapPending, gpu.RemapFailed}
)

// ReadingProblems lists what is wrong with readings of the inventory's devices;
// empty when nothing is.
func ReadingProblems(inventory gpu.Inventory, readings []gpu.Reading, now time.Time) (problems []string) {
	seen := map[string]bool{}
	for _, r := range readings {
		bad := func(format string, args ...any) {
			problems = append(problems, "reading of "+r.UUID+": "+fmt.Sprintf(format, args...))
		}
		if !lists(inventory, r.UUID) {
			bad("no device of this host")
		}
		if seen[r.UUID] {
			bad("given twice")
		}
		seen[r.UUID] = true
		if r.At.IsZero() || r.At.After(now) {
			bad("measured at %s, now is %s", r.At, now)
		}
		if len(r.Values) == 0 {
			bad("measures nothing, so it should be left out")
		}
		for q, v := range r.Values {
			switch {
			case math.IsNaN(v) || math.IsInf(v, 0) || v < 0:
				bad("%s is %v", q, v)
			case slices.Contains(shares, q) && v > 1:
				bad("%s is %v, at most 1 is possible", q, v)
			case slices.Contains(flags, q) && v != 0 && v != 1:
				bad("%s is %v, which is neither 0 nor 1", q, v)
			}
		}
		if used, total := r.Values[gpu.MemoryUsed]+r.Values[gpu.MemoryFree], r.Values[gpu.MemoryTotal]; used > total {
			bad("%v bytes of memory used and free, of %v", used, total)
		}
	}
	return problems
}

// ProcessProblems lists what is wrong with processes on the inventory's devices;
// empty when nothing is.
func ProcessProblems(inventory gpu.Inventory, processes []gpu.Process) (problems []string) {
	type key struct {
		uuid string
		pid  int
	}
	seen := map[key]bool{}
	for _, p := range processes {
		bad := func(text string) {
			problems = append(problems, fmt.Sprintf("process %d on %s: %s", p.PID, p.UUID, text))
		}
		if !lists(inventory, p.UUID) {
			bad("no device of this host")
		}
		if p.PID <= 0 {
			bad("that is no process")
		}
		if p.UsedMiB < 0 {
			bad(fmt.Sprintf("%d MiB used", p.UsedMiB))
		}
		if seen[key{p.UUID, p.PID}] {
			bad("given twice")
		}
		seen[key{p.UUID, p.PID}] = true
	}
	return problems
}

func lists(inventory gpu.Inventory, uuid string) bool {
	return slices.ContainsFunc(inventory.Devices, func(d gpu.Info) bool { return d.UUID == uuid })
}
