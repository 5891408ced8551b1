package agent

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/agent/guard"
	"berth/runtime"
)

// fakeGuard keeps to the rules of package guard, on the host's containers. Like
// the real one it outlives the agent.
type fakeGuard struct {
	host *host

	mu      sync.Mutex
	entries map[string]*guard.Entry
	timers  map[string]*time.Timer
	down    bool // it doesn't answer, and goes on with what it holds
	dead    bool // it does nothing at all
	sets    []guard.Deadline
}

func newFakeGuard(h *host) *fakeGuard {
	return &fakeGuard{host: h, entries: map[string]*guard.Entry{}, timers: map[string]*time.Timer{}}
}

func (g *fakeGuard) enter() error {
	if g.down || g.dead {
		return fmt.Errorf("guard: %w", guard.ErrUnavailable)
	}
	return nil
}

func (g *fakeGuard) Set(_ context.Context, d guard.Deadline) error  { return g.store(d, false) }
func (g *fakeGuard) Stop(_ context.Context, d guard.Deadline) error { return g.store(d, true) }

func (g *fakeGuard) store(d guard.Deadline, stop bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.enter(); err != nil {
		return err
	}
	held, now := g.entries[d.Run], g.host.boottime().Milliseconds()
	next := guard.Entry{Deadline: d}
	switch {
	case d.BootID != "boot-1":
		return guard.ErrOtherBoot
	case d.Kill <= 0 || d.Term < 0 || d.Term > d.Kill || len(d.Cgroups) == 0 || len(d.NoticeText) > noticeMost:
		return fmt.Errorf("%w: %+v", guard.ErrInvalid, d)
	case held == nil:
	case d.Kill < held.Kill && !stop:
		return guard.ErrEarlier
	case held.Killed != 0 && d.Kill > held.Kill && !stop:
		return guard.ErrEnded
	case held.Killed != 0:
		return nil
	default:
		if next.Termed = held.Termed; d.Term > held.Termed {
			next.Termed = 0
		}
	}
	g.sets = append(g.sets, d)
	g.entries[d.Run] = &next
	g.schedule(d.Run, now)
	return nil
}

// schedule has the entry looked at when it is due next. The caller holds mu.
func (g *fakeGuard) schedule(run string, now int64) {
	e := g.entries[run]
	if t := g.timers[run]; t != nil {
		t.Stop()
	}
	due := e.Kill
	if e.Term != 0 && e.Termed == 0 {
		due = e.Term
	}
	g.timers[run] = time.AfterFunc(ms(max(0, due-now)), func() { g.act(run) })
}

func (g *fakeGuard) act(run string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	e, now := g.entries[run], g.host.boottime().Milliseconds()
	switch {
	case e == nil || g.dead:
	case now >= e.Kill:
		if e.Killed == 0 {
			e.Killed = now
		}
		c, stuck := g.host.OfProcess(e.Pid)
		if c.ID == run && stuck {
			g.timers[run] = time.AfterFunc(time.Second, func() { g.act(run) })
			return
		}
		switch {
		case c.ID == run && c.State == runtime.StateRunning:
			g.host.Exit(run, killedCode)
		case c.ID == run:
			_ = g.host.Kill(context.Background(), run)
		}
		e.Emptied = now
	case e.Term != 0 && e.Termed == 0 && now >= e.Term:
		e.Termed = now
		if e.Notice != "" {
			_ = os.WriteFile(e.Notice, []byte(e.NoticeText), 0o644)
		}
		if c, _ := g.host.OfProcess(e.Pid); c.ID == run {
			g.host.mu.Lock()
			g.host.terms++
			g.host.mu.Unlock()
			_ = g.host.Signal(context.Background(), run, int(unix.SIGTERM))
		}
		g.schedule(run, now)
	}
}

func (g *fakeGuard) Clear(_ context.Context, run string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.enter(); err != nil {
		return err
	}
	g.forget(run)
	return nil
}

func (g *fakeGuard) forget(run string) {
	if t := g.timers[run]; t != nil {
		t.Stop()
	}
	delete(g.entries, run)
	delete(g.timers, run)
}

func (g *fakeGuard) List(context.Context) ([]guard.Entry, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []guard.Entry
	for _, e := range g.entries {
		all = append(all, *e)
	}
	return all, g.enter()
}

// set changes how the guard behaves.
func (g *fakeGuard) set(change func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	change()
}

// end is the end that the guard holds for a run, zero when there is none.
func (g *fakeGuard) end(run string) bound {
	g.mu.Lock()
	defer g.mu.Unlock()
	if e := g.entries[run]; e != nil {
		return bound{e.Term, e.Kill}
	}
	return bound{}
}

// stop ends its timers, so that a test's bubble has no goroutine left.
func (g *fakeGuard) stop() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for run := range g.entries {
		g.forget(run)
	}
}

// guardLink is a daemon's connection to it.
type guardLink struct {
	*fakeGuard
	daemon *daemon
}

func (l *guardLink) alive() error {
	if l.daemon.dead.Load() {
		return errDead
	}
	return nil
}

func (l *guardLink) Set(ctx context.Context, d guard.Deadline) error {
	if err := l.alive(); err != nil {
		return err
	}
	return l.fakeGuard.Set(ctx, d)
}

func (l *guardLink) Stop(ctx context.Context, d guard.Deadline) error {
	if err := l.alive(); err != nil {
		return err
	}
	return l.fakeGuard.Stop(ctx, d)
}

func (l *guardLink) Clear(ctx context.Context, run string) error {
	if err := l.alive(); err != nil {
		return err
	}
	return l.fakeGuard.Clear(ctx, run)
}

func (h *host) processStart(pid int) (uint64, error) {
	if c, _ := h.OfProcess(pid); c.ID == "" {
		return 0, fmt.Errorf("no process %d", pid)
	}
	return uint64(pid), nil
}

func (h *host) cgroupsOf(pid int) ([]string, error) {
	c, _ := h.OfProcess(pid)
	if c.ID == "" {
		return nil, fmt.Errorf("no process %d", pid)
	}
	return []string{"/sys/fs/cgroup/berth/" + c.ID}, nil
}
