package agent

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/workspace"
)

func TestARunFromStartToRelease(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.startDaemon("")
		settle()
		c.place("run-1", func(a *workspace.Assignment) {
			a.Spec.Command = []string{"/bin/workload", "count"}
			a.Spec.Env = []workspace.EnvVar{{Name: "TOKEN", Value: "x-${token}-${HOME}"}, {Name: "BERTH_RUN", Value: "forged"}, {Name: "NVIDIA_VISIBLE_DEVICES", Value: "all"}, {Name: "NVIDIA_DRIVER_CAPABILITIES", Value: "all"}}
			a.Secrets = map[string]workspace.Secret{"token": workspace.NewSecret("s3cret-${token}")}
		}, uuid(0))
		settle()

		network, err := h.networks.Attach(t.Context(), runtime.NetworkSpec{ID: "run-1", Hostname: "env"}) // it is there
		if err != nil {
			t.Fatal(err)
		}
		want := []runtime.Spec{{
			ID: "run-1", Image: testImage, Digest: h.digest(testImage), Hostname: "env",
			Args: []string{"/bin/workload", "count"},
			Env: []string{
				"BERTH_GPU_COUNT=1", "BERTH_GPU_UUIDS=" + uuid(0), "BERTH_INSTANCE=instance-of-run-1",
				"BERTH_INSTANCE_NAME=env", "BERTH_NOTICE=/run/berth/notice.json", "BERTH_RUN=run-1", "BERTH_WORKSPACE=workspace-1",
				"NVIDIA_VISIBLE_DEVICES=void", "TOKEN=x-s3cret-${token}-${HOME}",
			},
			Labels: map[string]string{
				ClusterLabel: "cluster-1", labelRun: "run-1", labelInstance: "instance-of-run-1", labelWorkspace: "workspace-1",
				labelIncarnation: "1", labelIndex: itoa(c.now("run-1").Epoch.Index), labelDevices: uuid(0),
			},
			Devices: []string{uuid(0)},
			Limits:  runtime.Limits{CPUMilli: 1000, MemoryMiB: 512},
			LogPath: d.LogPath("run-1"),
			NetNS:   network.NetNS,
			Mounts: []runtime.Mount{
				{Source: network.ResolvConf, Target: "/etc/resolv.conf", ReadOnly: true},
				{Source: network.Hosts, Target: "/etc/hosts", ReadOnly: true},
				{Source: filepath.Join(h.dir, "notices", "run-1"), Target: "/run/berth", ReadOnly: true},
			},
		}}
		if diff := cmp.Diff(want, h.created()); diff != "" {
			t.Error(diff)
		}
		if got := c.phases("run-1"); got != "pulling, starting, running" {
			t.Errorf("phases: %s", got)
		}

		c.stop("run-1", "user_stop")
		pass(time.Second)
		if got := c.phases("run-1"); got != "pulling, starting, running, stopping, stopped, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		end := c.now("run-1").end
		if end.Reason != "user_stop" || end.ExitCode == nil || *end.ExitCode != 0 {
			t.Errorf("end: %+v", end)
		}
		if left := h.containers(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		if s := d.Stats(); s.Starts != 1 || s.Ends != 1 || s.Runs != 0 || s.Kills != 0 {
			t.Errorf("stats: %+v", s)
		}
		d.stop(t)
		c.check(t)
	})
}

// start runs an agent with one run on device 0, and returns when it runs.
func (h *host) start(t *testing.T, edit func(*workspace.Assignment)) *daemon {
	t.Helper()
	d := h.startDaemon("")
	settle()
	h.cluster.place("run-1", edit, uuid(0))
	settle()
	return d
}

func command(args ...string) func(*workspace.Assignment) {
	return func(a *workspace.Assignment) { a.Spec.Command = append([]string{"/bin/workload"}, args...) }
}

func TestARunEndsByItself(t *testing.T) {
	for _, test := range []struct {
		name   string
		end    func(*host)
		phase  workspace.Phase
		reason string
	}{
		{"exit 0", func(h *host) { h.Exit("run-1", 0) }, workspace.PhaseSucceeded, "exited"},
		{"exit 3", func(h *host) { h.Exit("run-1", 3) }, workspace.PhaseFailed, "exited"},
		{"out of memory", func(h *host) { h.OOMKill("run-1") }, workspace.PhaseFailed, "oom_killed"},
		{"unseen", func(h *host) { h.Vanish("run-1") }, workspace.PhaseFailed, "exit_unknown"},
		{"deleted by others", func(h *host) {
			h.Exit("run-1", 0)
			if err := h.Delete(context.Background(), "run-1"); err != nil {
				h.t.Error(err)
			}
		}, workspace.PhaseSucceeded, "exited"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				d := h.start(t, nil)
				test.end(h)
				pass(time.Second)
				if r := h.cluster.now("run-1"); r.Phase != test.phase || r.reason != test.reason || r.listed() {
					t.Errorf("ended as %s (%s: %s)", r.Phase, r.reason, r.message)
				}
				d.stop(t)
				h.cluster.check(t)
			})
		})
	}
}

func TestAContainerThatExitsAtOnceSaysWhereToLook(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, command("exit", "3"))
		if got := h.cluster.phases("run-1"); got != "pulling, starting, running, failed, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		if r := h.cluster.now("run-1"); r.message != "exit code 3 after 0.0 s; its output is in logs/run-1.log of the node's data directory" {
			t.Errorf("message: %s", r.message)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

func TestKillComesAtTheEndOfGrace(t *testing.T) {
	for _, grace := range []int{0, 45} {
		inBubble(t, func(t *testing.T, h *host) {
			d := h.start(t, func(a *workspace.Assignment) {
				command("ignore-term")(a)
				a.Spec.StopGrace = grace
			})
			h.cluster.stop("run-1", "user_stop")
			if grace > 0 {
				pass(time.Duration(grace)*time.Second - time.Millisecond)
				if r := h.cluster.now("run-1"); r.Phase != workspace.PhaseStopping || len(h.containers()) != 1 {
					t.Errorf("grace %d s: %s before its end", grace, r.Phase)
				}
				pass(time.Millisecond)
			}
			settle()
			if r := h.cluster.now("run-1"); r.Phase != workspace.PhaseStopped || r.listed() || *r.end.ExitCode != 137 {
				t.Errorf("grace %d s: %s after its end", grace, r.Phase)
			}
			d.stop(t)
			h.cluster.check(t)
		})
	}
}

// A container whose processes live, and for which nobody takes signals.
func TestKillEndsWhatCannotBeAsked(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, nil)
		h.FailNext("Signal", runtime.ErrNotRunning)
		h.cluster.stop("run-1", "user_stop")
		pass(30 * time.Second)
		if r := h.cluster.now("run-1"); r.Phase != workspace.PhaseStopped || r.listed() || *r.end.ExitCode != 137 {
			t.Errorf("%s (%s)", r.Phase, r.message)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// A process that SIGKILL doesn't end: its run ends, its device stays held until
// it is gone.
func TestAnUnkillableRunKeepsItsDevice(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, func(a *workspace.Assignment) { a.Spec.StopGrace = 5 })
		h.Stick("run-1", true)
		c.stop("run-1", "user_stop")
		pass(15*time.Second - time.Millisecond)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopping {
			t.Errorf("%s before the patience ended", r.Phase)
		}
		pass(time.Second)
		if r := c.now("run-1"); r.Phase != workspace.PhaseFailed || r.reason != "unkillable" || !r.stuck[uuid(0)] || !r.held[uuid(0)] {
			t.Errorf("after it: %s (%s), held %v, stuck %v", r.Phase, r.reason, r.held, r.stuck)
		}
		pass(time.Minute)
		h.Stick("run-1", false)
		pass(time.Minute)
		if got := c.phases("run-1"); got != "pulling, starting, running, stopping, failed, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		c.check(t)
	})
}

// A go-ahead is worth two seconds from its question: an answer that takes
// longer starts nothing, and neither does a start that gets late after it.
func TestALateGoAheadStartsNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.delay = 3 * time.Second
		d := h.start(t, nil)
		pass(20 * time.Second)
		if n := len(h.created()); n != 0 {
			t.Errorf("%d containers after answers of 3 s", n)
		}
		c.set(func() { c.delay = time.Second })
		release := h.Block("Create")
		pass(10 * time.Second)
		c.stop("run-1", "kill_switch") // answered: from here on nothing starts
		release()
		pass(time.Second)
		r := c.now("run-1")
		if len(h.created()) != 1 || len(r.starts) != 0 || r.Phase != workspace.PhaseStopped || r.listed() {
			t.Errorf("created %d, started %d times, %s", len(h.created()), len(r.starts), r.Phase)
		}
		d.stop(t)
		c.check(t)
	})
}

// The window counts from the question, not from its answer.
func TestAStartThatGotLateAsksAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.cluster.delay = workspace.GoAheadWindow * 3 / 4
		release := h.Block("Create")
		d := h.start(t, nil)
		pass(workspace.GoAheadWindow + time.Second)
		release()
		pass(workspace.GoAheadWindow)
		r := h.cluster.now("run-1")
		if len(r.starts) != 1 || len(r.asked) != 2 || len(h.created()) != 1 {
			t.Errorf("%d starts, %d questions, %d containers", len(r.starts), len(r.asked), len(h.created()))
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

func TestWithoutALeaderNothingStarts(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.startDaemon("")
		settle()
		c.place("run-1", nil, uuid(0))
		c.set(func() { c.deaf = true })
		pass(time.Minute)
		if len(h.created()) != 0 {
			t.Error("a container was made without a go-ahead")
		}
		c.entry(func() { c.deaf = false })
		pass(2 * longestBackOff)
		if got := c.phases("run-1"); got != "pulling, starting, running" {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestStartsThatCannotWork(t *testing.T) {
	odd := errors.New("shim: odd failure")
	for _, test := range []struct {
		name    string
		prepare func(*host)
		edit    func(*workspace.Assignment)
		reason  string
	}{
		{"no such image", func(h *host) { h.Offer(runtimetest.Remote{Reference: "absent/other:latest"}) }, func(a *workspace.Assignment) { a.Spec.Image, a.Spec.ImageDigest = "absent/image:1", "sha256:00" }, "image_missing"},
		{"another digest", func(h *host) { h.Offer(runtimetest.Remote{Reference: testImage + "/other"}) }, func(a *workspace.Assignment) { a.Spec.ImageDigest = "sha256:00" }, "image_missing"},
		{"image gone meanwhile", func(h *host) { times(3, func() { h.FailNext("Create", runtime.ErrNotFound) }) }, nil, "image_missing"},
		{"invalid spec", func(h *host) { h.FailNext("Create", runtime.ErrInvalid) }, nil, "create_failed"},
		{"leftovers of its id", func(h *host) { times(3, func() { h.FailNext("Create", runtime.ErrExists) }) }, nil, "create_failed"},
		{"fails thrice", func(h *host) { times(3, func() { h.FailNext("Create", odd) }) }, nil, "create_failed"},
		{"command can't start", func(h *host) { h.FailNext("Start", odd) }, nil, "start_failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				if test.prepare != nil {
					test.prepare(h)
				}
				d := h.start(t, test.edit)
				pass(10 * time.Second)
				r := h.cluster.now("run-1")
				if r.Phase != workspace.PhaseFailed || r.reason != test.reason || r.listed() || len(h.containers()) != 0 {
					t.Errorf("%s (%s: %s), containers %v", r.Phase, r.reason, r.message, h.containers())
				}
				d.stop(t)
				h.cluster.check(t)
			})
		})
	}
}

func TestFailuresThatPassAreTriedAgain(t *testing.T) {
	odd := errors.New("shim: odd failure")
	for name, prepare := range map[string]func(*host){
		"two odd creates": func(h *host) { times(2, func() { h.FailNext("Create", odd) }) },
		"runtime away":    func(h *host) { times(7, func() { h.FailNext("Create", runtime.ErrUnavailable) }) },
		"start away":      func(h *host) { times(3, func() { h.FailNext("Start", runtime.ErrUnavailable) }) },
		"term away": func(h *host) {
			times(3, func() { h.FailNext("Signal", runtime.ErrUnavailable) })
			times(3, func() { h.FailNext("Delete", runtime.ErrUnavailable) })
			times(3, func() { h.FailNext("Inspect", runtime.ErrUnavailable) })
		},
		"wait away": func(h *host) { times(9, func() { h.FailNext("Wait", runtime.ErrUnavailable) }) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				prepare(h)
				d := h.start(t, nil)
				pass(time.Minute)
				if got := h.cluster.phases("run-1"); got != "pulling, starting, running" {
					t.Errorf("phases: %s", got)
				}
				h.cluster.stop("run-1", "user_stop")
				pass(20 * time.Second)
				if got := h.cluster.phases("run-1"); got != "pulling, starting, running, stopping, stopped, release "+uuid(0) {
					t.Errorf("phases: %s", got)
				}
				d.stop(t)
				h.cluster.check(t)
			})
		})
	}
}

func times(n int, do func()) {
	for range n {
		do()
	}
}

func TestStopBeforeStart(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.delay = time.Second
		d := h.start(t, nil)
		c.stop("run-1", "user_stop")
		pass(time.Minute)
		if got := c.phases("run-1"); got != "pulling, stopped, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		if len(h.created()) != 0 {
			t.Error("a container was made")
		}
		d.stop(t)
		c.check(t)
	})
}
