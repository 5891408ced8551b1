package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/agent/guard"
	"berth/runtime"
	"berth/workspace"
)

// leased gives a run a lease of so long a grant, not granted yet.
func leased(grant time.Duration) func(*workspace.Assignment) {
	return func(a *workspace.Assignment) {
		a.Lease = &workspace.Lease{GrantedMS: grant.Milliseconds(), Hard: true}
	}
}

func lasting(most time.Duration) func(*workspace.Assignment) {
	return func(a *workspace.Assignment) { a.Spec.MaxDuration = int64(most.Seconds()) }
}

// granting has the cluster grant and renew leases, or no more.
func (c *cluster) granting(on bool) { c.set(func() { c.grants = on }) }

// lastBeat is what was said last of a run's life; false: nothing.
func (c *cluster) lastBeat(run string) (workspace.Livedness, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(c.beats) - 1; i >= 0; i-- {
		for _, l := range c.beats[i].Runs {
			if l.Run == run {
				return l, true
			}
		}
	}
	return workspace.Livedness{}, false
}

// terminated is how many SIGTERMs were sent.
func (h *host) terminated() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.terms
}

func (c *cluster) is(t *testing.T, run string, phase workspace.Phase, reason string) {
	t.Helper()
	if r := c.now(run); r.Phase != phase || r.reason != reason {
		t.Errorf("%s is %s (%s: %s), want %s (%s)", run, r.Phase, r.reason, r.message, phase, reason)
	}
}

// lived checks what was reported of an ended run, to the millisecond.
func (c *cluster) lived(t *testing.T, run string, want time.Duration) {
	t.Helper()
	if got := ms(c.now(run).end.LivedMS); got != want {
		t.Errorf("%s lived for %s, and %s was reported", run, want, got)
	}
}

func TestNothingStartsBeforeItsLeaseIsGranted(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, leased(time.Minute))
		if beat, ok := c.lastBeat("run-1"); !ok || beat.LivedMS != 0 {
			t.Errorf("no stamp was sent for the grant to answer: %+v", beat)
		}
		pass(10 * time.Minute)
		c.is(t, "run-1", workspace.PhasePulling, "waiting_for_lease")
		if len(h.created()) != 0 || len(h.left()) != 1 {
			t.Errorf("made %d containers, prepared %v", len(h.created()), h.left())
		}
		c.grant("run-1", h.boottime().Milliseconds()-29_999) // has its TERM in a moment
		c.edit("run-1", func(r *clusterRun) { r.Lease.End.BootID = "boot-0" })
		pass(time.Second)
		c.is(t, "run-1", workspace.PhasePulling, "waiting_for_lease")
		c.grant("run-1", h.boottime().Milliseconds())
		settle()
		end := c.now("run-1").Lease.End.BoottimeMS
		if got := h.guard.end("run-1"); got != (bound{end - 30_000, end}) {
			t.Errorf("the guard holds %+v", got)
		}
		c.is(t, "run-1", workspace.PhaseRunning, "running")
		pass(workspace.BeatEvery)
		if beat, _ := c.lastBeat("run-1"); beat.EndMS != end || beat.LivedMS != 2000 {
			t.Errorf("said after its start: %+v", beat)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestALeaseIsRenewedAndOnlyMovesLater(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.granting(true)
		d := h.start(t, leased(time.Hour))
		pass(10 * time.Hour)
		c.is(t, "run-1", workspace.PhaseRunning, "running")
		if beat, _ := c.lastBeat("run-1"); ms(beat.LivedMS) < 10*time.Hour-workspace.BeatEvery {
			t.Errorf("lived %s", ms(beat.LivedMS))
		}
		c.granting(false)
		held := h.guard.end("run-1")
		for name, change := range map[string]func(*workspace.Lease){
			"earlier":      func(l *workspace.Lease) { l.End.BoottimeMS -= 60_000 },
			"another boot": func(l *workspace.Lease) { l.End.BootID, l.End.BoottimeMS = "boot-0", held.Kill+60_000 },
			"not granted":  func(l *workspace.Lease) { l.End = workspace.Stamp{} },
			"again":        func(*workspace.Lease) {},
		} {
			before := *c.now("run-1").Lease
			next := before
			change(&next)
			c.edit("run-1", func(r *clusterRun) { r.Lease = &next })
			pass(time.Second)
			if got := h.guard.end("run-1"); got != held {
				t.Errorf("%s: the guard holds %+v, not %+v", name, got, held)
			}
			c.edit("run-1", func(r *clusterRun) { r.Lease = &before })
		}
		pass(2 * time.Hour)
		c.is(t, "run-1", workspace.PhaseStopped, "lease_expired")
		d.stop(t)
		c.check(t)
	})
}

// With all alive a run is asked once, and killed at the end of what is paid.
func TestALeaseThatIsOverEndsItsRun(t *testing.T) {
	for behaviour, lives := range map[string]time.Duration{"count": 30 * time.Second, "ignore-term": time.Minute} {
		inBubble(t, func(t *testing.T, h *host) {
			c := h.cluster
			d := h.startDaemon("")
			settle()
			c.place("run-1", both(command(behaviour), leased(time.Minute)), uuid(0))
			settle()
			c.grant("run-1", h.boottime().Milliseconds())
			settle()
			pass(30*time.Second - time.Millisecond)
			c.is(t, "run-1", workspace.PhaseRunning, "running")
			pass(time.Millisecond)
			if behaviour == "ignore-term" {
				c.is(t, "run-1", workspace.PhaseStopping, "lease_expired")
				c.grant("run-1", h.boottime().Milliseconds()) // too late: it was asked to end
			}
			pass(30 * time.Second)
			c.is(t, "run-1", workspace.PhaseStopped, "lease_expired")
			c.lived(t, "run-1", lives)
			r := c.now("run-1")
			if paid := "paid until 2000-01-01T00:01:00Z"; !strings.Contains(r.message, paid) && behaviour == "count" {
				t.Errorf("message: %s", r.message)
			}
			if r.end.ExitCode == nil || h.terminated() != 1 || r.listed() {
				t.Errorf("exit code %v, %d SIGTERMs, held %v", r.end.ExitCode, h.terminated(), r.held)
			}
			if got := h.guard.end("run-1"); got != (bound{}) {
				t.Errorf("the guard still holds %+v", got)
			}
			d.stop(t)
			c.check(t)
		})
	}
}

// While berthd is away the guard ends it, and the next one tells it so.
func TestALeaseEndsWithoutADaemon(t *testing.T) {
	for _, test := range []struct {
		name, behaviour string
		while           func(h *host)
		phase           workspace.Phase
		reason          string
		lives           time.Duration
	}{
		{"goes when asked", "count", nil, workspace.PhaseStopped, "lease_expired", 30 * time.Second},
		{"has to be killed", "ignore-term", nil, workspace.PhaseStopped, "lease_expired", time.Minute},
		{"its container is gone", "ignore-term", func(h *host) { h.remove("run-1") }, workspace.PhaseStopped, "lease_expired", time.Minute},
		{"had ended before", "exit-later", nil, workspace.PhaseFailed, "exited", 10 * time.Second},
		{"had been stopped", "ignore-term", func(h *host) { h.cluster.stop("run-1", "user_stop") }, workspace.PhaseStopped, "user_stop", time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				c := h.cluster
				c.granting(true)
				h.start(t, both(command(test.behaviour), leased(time.Minute))).stop(t)
				pass(10 * time.Second)
				if test.behaviour == "exit-later" {
					h.Exit("run-1", 3)
				}
				pass(time.Hour)
				if test.while != nil {
					test.while(h)
				}
				d := h.startDaemon("")
				pass(time.Minute)
				c.is(t, "run-1", test.phase, test.reason)
				c.lived(t, "run-1", test.lives)
				if r := c.now("run-1"); r.listed() || h.guard.end("run-1") != (bound{}) {
					t.Errorf("held %v; the guard holds %+v", r.held, h.guard.end("run-1"))
				}
				d.stop(t)
				c.check(t)
			})
		})
	}
}

// remove takes a container away, as somebody else may.
func (h *host) remove(run string) {
	if err := h.Delete(h.t.Context(), run); err != nil {
		h.t.Error(err)
	}
}

// An agent that comes back between TERM and KILL goes on with the end.
func TestAnAgentThatReturnsWhileItsRunEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.granting(true)
		h.start(t, both(command("ignore-term"), leased(time.Minute))).stop(t)
		pass(40 * time.Second)
		d := h.startDaemon("")
		pass(time.Second)
		c.is(t, "run-1", workspace.PhaseStopping, "lease_expired")
		pass(19 * time.Second)
		c.is(t, "run-1", workspace.PhaseStopped, "lease_expired")
		c.lived(t, "run-1", time.Minute)
		if h.terminated() != 1 {
			t.Errorf("%d SIGTERMs", h.terminated())
		}
		d.stop(t)
		c.check(t)
	})
}

func TestWithoutAGuardNothingLimitedStarts(t *testing.T) {
	for name, edit := range map[string]func(*workspace.Assignment){"lease": leased(time.Hour), "max duration": lasting(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				c := h.cluster
				c.granting(true)
				h.guard.set(func() { h.guard.down = true })
				d := h.start(t, edit)
				pass(time.Minute)
				c.is(t, "run-1", workspace.PhaseStarting, "guard_unavailable")
				h.guard.set(func() { h.guard.down = false })
				pass(2 * longestBackOff)
				c.is(t, "run-1", workspace.PhaseRunning, "running")
				h.guard.set(func() { h.guard.down = true })
				c.place("run-2", edit, uuid(1))
				pass(startPatience + longestBackOff)
				c.is(t, "run-2", workspace.PhaseFailed, "guard_unavailable")
				if r := c.now("run-2"); len(r.starts) != 0 || r.listed() {
					t.Errorf("%d starts, held %v", len(r.starts), r.held)
				}
				d.stop(t)
				c.check(t)
			})
		})
	}
}

func TestANodeThatHasNoGuardSaysSo(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.granting(true)
		h.conf = func(conf *Config) { conf.Guard = nil }
		d := h.start(t, leased(time.Hour))
		pass(time.Second)
		c.is(t, "run-1", workspace.PhaseFailed, "guard_unavailable")
		c.place("run-2", nil, uuid(1))
		pass(time.Second)
		c.is(t, "run-2", workspace.PhaseRunning, "running")
		c.stop("run-2", "user_stop")
		pass(time.Second)
		c.is(t, "run-2", workspace.PhaseStopped, "user_stop")
		d.stop(t)
		c.check(t)
	})
}

// A guard that doesn't answer goes on with what it holds, and so does the agent.
func TestALaterEndCountsOnceItIsStored(t *testing.T) {
	for name, returns := range map[string]bool{"in time": true, "too late": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				c := h.cluster
				c.granting(true)
				d := h.start(t, leased(10*time.Minute))
				h.guard.set(func() { h.guard.down = true })
				pass(9 * time.Minute)
				if returns {
					h.guard.set(func() { h.guard.down = false })
				}
				pass(2 * time.Minute)
				if returns {
					c.is(t, "run-1", workspace.PhaseRunning, "running")
				} else {
					c.is(t, "run-1", workspace.PhaseStopped, "lease_expired")
					c.lived(t, "run-1", 9*time.Minute+30*time.Second)
				}
				h.guard.set(func() { h.guard.down = false })
				d.stop(t)
				c.check(t)
			})
		})
	}
}

// What a guard has lost it gets again from the next agent.
func TestAGuardThatLostAnEndGetsItAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.granting(true)
		h.start(t, leased(time.Hour)).stop(t)
		held := h.guard.end("run-1")
		h.guard.set(func() { h.guard.forget("run-1") })
		c.granting(false)
		d := h.startDaemon("")
		settle()
		if got := h.guard.end("run-1"); got != held {
			t.Errorf("the guard holds %+v, not %+v", got, held)
		}
		h.guard.set(func() { h.guard.dead = true }) // then the agent ends it alone
		pass(time.Hour)
		c.is(t, "run-1", workspace.PhaseStopped, "lease_expired")
		d.stop(t)
		c.check(t)
	})
}

func TestABudgetThatIsTakenAwayEndsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.granting(true)
		d := h.start(t, leased(10*time.Minute))
		c.edit("run-1", func(r *clusterRun) { r.Lease = nil })
		settle()
		if got := h.guard.end("run-1"); got != (bound{}) {
			t.Errorf("the guard holds %+v", got)
		}
		pass(time.Hour)
		c.is(t, "run-1", workspace.PhaseRunning, "running")
		c.edit("run-1", func(r *clusterRun) { leased(10 * time.Minute)(&r.Assignment) }) // and set again
		pass(time.Minute)
		if h.guard.end("run-1").Kill == 0 {
			t.Error("the guard holds no end")
		}
		c.granting(false)
		pass(time.Hour)
		c.is(t, "run-1", workspace.PhaseStopped, "lease_expired")
		d.stop(t)
		c.check(t)
	})
}

func TestARunLastsAsLongAsItMay(t *testing.T) {
	for _, test := range []struct {
		name  string
		edit  func(*workspace.Assignment)
		while func(h *host, d *daemon) *daemon
		lives time.Duration
	}{
		{"asked before", command("count"), nil, 9*time.Minute + 30*time.Second},
		{"killed", command("ignore-term"), nil, 10 * time.Minute},
		{"with a lease", both(leased(3*time.Minute), command("ignore-term")), nil, 10 * time.Minute},
		{"over restarts", command("ignore-term"), func(h *host, d *daemon) *daemon {
			for range 3 {
				d.stop(h.t)
				pass(time.Minute)
				d = h.startDaemon("")
				settle()
			}
			return d
		}, 10 * time.Minute},
		{"without a daemon", command("ignore-term"), func(h *host, d *daemon) *daemon {
			d.stop(h.t)
			pass(time.Hour)
			return h.startDaemon("")
		}, 10 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				c := h.cluster
				c.granting(true)
				d := h.start(t, both(test.edit, lasting(10*time.Minute)))
				if test.while != nil {
					d = test.while(h, d)
				}
				pass(time.Hour)
				c.is(t, "run-1", workspace.PhaseFailed, "max_duration")
				c.lived(t, "run-1", test.lives)
				if r := c.now("run-1"); !strings.Contains(r.message, "max_duration is 10m0s") {
					t.Errorf("message: %s", r.message)
				}
				d.stop(t)
				c.check(t)
			})
		})
	}
}

// A short one has half of its time before it is asked to end.
func TestAShortRunIsAskedAtHalf(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, both(command("count"), lasting(20*time.Second)))
		pass(time.Minute)
		h.cluster.is(t, "run-1", workspace.PhaseFailed, "max_duration")
		h.cluster.lived(t, "run-1", 10*time.Second)
		d.stop(t)
		h.cluster.check(t)
	})
}

// A stop that berthd doesn't live to carry out is carried out.
func TestAStopIsCompletedWithoutADaemon(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		first := h.startDaemon(crashAfterTerm)
		settle()
		c.place("run-1", command("ignore-term"), uuid(0))
		settle()
		c.stop("run-1", "kill_switch")
		pass(30*time.Second + graceSlack)
		<-first.done
		if h.containers()["run-1"] != runtime.StateExited {
			t.Error("not killed at the end of its grace")
		}
		d := h.startDaemon("")
		pass(time.Minute)
		c.is(t, "run-1", workspace.PhaseStopped, "kill_switch")
		c.lived(t, "run-1", 30*time.Second+graceSlack)
		d.stop(t)
		c.check(t)
	})
}

// At each point the daemon dies; however long until the next: one start, with a
// stored end, and the time that the process lived, no more.
func TestACrashAtAnyPointOfALimitedRun(t *testing.T) {
	points := slices.DeleteFunc(append(CrashPoints(), crashAfterGuard, crashAfterGuardKept, crashBeforeExpiry), func(point string) bool {
		return point == crashBeforeKill || point == crashAfterKill // the guard does that
	})
	for _, point := range points {
		for _, away := range []time.Duration{0, 3 * time.Second, time.Hour} {
			t.Run(fmt.Sprintf("%s, away for %s", point, away), func(t *testing.T) {
				inBubble(t, func(t *testing.T, h *host) { crashLimited(t, h, point, away) })
			})
		}
	}
}

func crashLimited(t *testing.T, h *host, point string, away time.Duration) {
	c := h.cluster
	c.granting(true)
	first := h.startDaemon(point)
	settle()
	h.networks.Serve("run-1", 8888, answer(200))
	c.place("run-1", both(command("ignore-term"), complete, leased(2*time.Minute), lasting(10*time.Minute)), uuid(0))
	settle()
	pass(time.Minute)
	if !isClosed(first.crashed) {
		c.granting(false)
		pass(5 * time.Minute)
	}
	if !isClosed(first.crashed) {
		t.Fatal("the point was never met")
	}
	<-first.done
	pass(away)
	granted := c.set(nil).grants
	c.granting(granted && away < time.Hour)
	second := h.startDaemon("")
	pass(time.Minute)
	if granted && away == 0 {
		c.is(t, "run-1", workspace.PhaseRunning, c.now("run-1").reason)
	}
	c.granting(true) // one that waits for it starts, and has its time
	pass(time.Hour)
	r := c.now("run-1")
	if !r.Phase.Terminal() || r.listed() || len(r.starts) > 1 || len(h.containers())+len(h.left()) > 0 {
		t.Errorf("%s (%s: %s), %d starts, left %v, %v", r.Phase, r.reason, r.message, len(r.starts), h.containers(), h.left())
	}
	if reasons := map[string]bool{"lease_expired": true, "max_duration": true}; !reasons[r.reason] {
		t.Errorf("it ended for %s: %s", r.reason, r.message)
	}
	if lived := h.Lifetime("run-1"); ms(r.end.LivedMS) > lived || ms(r.end.LivedMS) < lived-2*time.Second && point != crashAfterStart {
		t.Errorf("it lived for %s, and %s was reported", lived, ms(r.end.LivedMS))
	}
	second.stop(t)
	c.check(t)
}

// An agent that died right after a start takes the process's life on from when
// it began.
func TestALifeIsKnownFromItsStart(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		first := h.startDaemon(crashAfterStart)
		settle()
		c.place("run-1", nil, uuid(0))
		settle()
		<-first.done
		pass(time.Hour)
		d := h.startDaemon("")
		pass(time.Second)
		h.Exit("run-1", 0)
		pass(time.Second)
		c.lived(t, "run-1", time.Hour+time.Second)
		d.stop(t)
		c.check(t)
	})
}

// Of a process whose end nobody saw no more is known than when it lived last.
func TestALifeWhoseEndNobodySaw(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, nil)
		pass(time.Minute)
		d.stop(t)
		pass(time.Minute)
		h.Vanish("run-1")
		pass(time.Hour)
		d = h.startDaemon("")
		pass(time.Second)
		c.is(t, "run-1", workspace.PhaseFailed, "exit_unknown")
		c.lived(t, "run-1", time.Minute)
		d.stop(t)
		c.check(t)
	})
}

func TestBeatsHangNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		var log strings.Builder
		h.log = &log
		d := h.start(t, nil)
		c.set(func() { c.beatless = true })
		pass(4 * time.Minute)
		if n := strings.Count(log.String(), "takes no sign of life"); n != 1 {
			t.Errorf("told %d times", n)
		}
		c.set(func() { c.beatless = false })
		pass(workspace.BeatEvery)
		if beat, _ := c.lastBeat("run-1"); ms(beat.LivedMS) < 4*time.Minute-workspace.BeatEvery {
			t.Errorf("lived %s", ms(beat.LivedMS))
		}
		d.stop(t)
		c.check(t)
	})
}

// The real guard's client is one, and its errors are those that are told apart.
var _ Guard = (*guard.Client)(nil)

func TestTheLedgerKeepsLives(t *testing.T) {
	path := t.TempDir() + "/agent.json"
	first, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	kept := life{BootID: "boot-1", Started: 5, Lived: 7, Lease: bound{8, 9}, Max: bound{10, 11}}
	if err := first.keepLife("run-1", kept); err != nil {
		t.Fatal(err)
	}
	if err := first.keepLived([]workspace.Livedness{{Run: "run-1", LivedMS: 6}, {Run: "other", LivedMS: 6}}); err != nil {
		t.Fatal(err)
	}
	second, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := second.life("run-1", "boot-1"); got != kept {
		t.Errorf("%+v", got)
	}
	if got := second.life("run-1", "boot-2"); got != (life{BootID: "boot-1", Started: 5, Lived: 7}) {
		t.Errorf("in the next boot: %+v", got)
	}
	second.forget(func(string) bool { return false })
	if got := second.life("run-1", "boot-1"); got != (life{BootID: "boot-1"}) || len(maps.Clone(second.kept.Lives)) != 0 {
		t.Errorf("forgotten: %+v", got)
	}
}
