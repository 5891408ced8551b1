package guard

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestGuardRestarted: killed between store and end, and started again before the
// end or after it.
func TestGuardRestarted(t *testing.T) {
	hierarchies(t)
	for name, gap := range map[string]time.Duration{"before the end": 0, "after the end": 400 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			g := newGuardProcess(t)
			w := start(t, deaf, "pids", "v2")
			go func() { _ = w.cmd.Wait() }()
			d := w.deadline(t, "r", 300*time.Millisecond)
			if err := g.Set(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			g.end(unix.SIGKILL)
			eventually(t, "the gap is over", func() bool { return bootClock() >= d.Kill-300+gap.Milliseconds() })
			began := bootClock()
			g.start()
			started := bootClock()
			var e Entry
			eventually(t, "the run has ended", func() bool {
				e = entryOf(t, g.Client, "r")
				return e.Emptied != 0
			})
			if early, due := e.Killed < d.Kill, max(d.Kill, started); early || e.Killed > due+100 {
				t.Errorf("due at %d, guard started from %d to %d, killed at %d", d.Kill, began, started, e.Killed)
			}
			if n := w.pids(t); n > 0 {
				t.Errorf("%d processes are left", n)
			}
		})
	}
}

// TestGuardPaused: what was due meanwhile is done at once when it goes on.
// Meanwhile its clients know that it doesn't answer.
func TestGuardPaused(t *testing.T) {
	hierarchies(t)
	g := newGuardProcess(t)
	w := start(t, idle, "pids", "v2")
	go func() { _ = w.cmd.Wait() }()
	d := w.deadline(t, "r", 100*time.Millisecond)
	if err := g.Set(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	g.signal(unix.SIGSTOP)
	began := time.Now()
	if _, err := g.Status(t.Context()); !errors.Is(err, ErrUnavailable) || time.Since(began) > patience+time.Second {
		t.Errorf("a paused guard: %v after %s", err, time.Since(began))
	}
	eventually(t, "the end is over", func() bool { return bootClock() > d.Kill })
	if w.pids(t) == 0 {
		t.Fatal("it ended without a guard")
	}
	went := bootClock()
	g.signal(unix.SIGCONT)
	var e Entry
	eventually(t, "the run has ended", func() bool {
		e = entryOf(t, g.Client, "r")
		return e.Emptied != 0
	})
	if e.Killed > went+100 {
		t.Errorf("it went on at %d, killed at %d", went, e.Killed)
	}
}

// TestGuardGone: who asks a dead guard knows at once.
func TestGuardGone(t *testing.T) {
	hierarchies(t)
	g := newGuardProcess(t)
	g.end(unix.SIGKILL)
	for socket, c := range map[string]*Client{"left over": g.Client, "absent": NewClient("/nowhere/guard.sock")} {
		began := time.Now()
		if err := c.Clear(t.Context(), "r"); !errors.Is(err, ErrUnavailable) || time.Since(began) > time.Second {
			t.Errorf("socket %s: %v after %s", socket, err, time.Since(began))
		}
	}
}

// TestProtected: what a guard says of itself is so.
func TestProtected(t *testing.T) {
	hierarchies(t)
	g := newGuardProcess(t)
	s, err := g.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if s.Pid != g.cmd.Process.Pid || s.BootID == "" || s.Since == 0 || s.Entries != 0 {
		t.Errorf("%+v", s)
	}
	if !s.Locked || s.OOM == (len(s.Lacks) > 0) {
		t.Errorf("%+v", s.Protection)
	}
	t.Logf("%+v", s.Protection)
}
