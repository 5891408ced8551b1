package agent

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/workspace"
)

// A driver that hangs: no new runs, and what runs isn't touched.
func TestAnUnresponsiveDriver(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, nil)
		inventory, _ := h.gpus.Inventory(t.Context())
		h.gpus.Fail(fmt.Errorf("nvmlDeviceGetUUID: %w", gpu.ErrUnresponsive))
		_, _ = d.Readings(t.Context()) // whoever asks first finds out
		pass(defaultReconcile)
		if ready := c.node().ready; ready.Ready || ready.Reason != "driver_unresponsive" {
			t.Errorf("readiness: %+v", ready)
		}
		if r := c.now("run-1"); r.Phase != workspace.PhaseRunning || len(h.containers()) != 1 {
			t.Errorf("run-1 is %s", r.Phase)
		}
		h.gpus.Set(inventory)
		pass(longestBackOff)
		if ready := c.node().ready; !ready.Ready {
			t.Errorf("readiness when it is back: %+v", ready)
		}
		d.stop(t)
		c.check(t)
	})
}

// A device is given back when the driver shows nothing of the run any more.
func TestADeviceIsReleasedWhenNothingUsesIt(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, nil)
		h.cgroups(7, "/berth/run-1")
		h.cgroups(8, "/user.slice") // somebody else's: no reason to withhold
		h.gpus.SetProcesses(processOn(uuid(0), 7), processOn(uuid(0), 8), processOn(uuid(0), 9))
		c.stop("run-1", "user_stop")
		pass(killPatience - time.Second)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopped || !r.held[uuid(0)] || r.stuck[uuid(0)] {
			t.Errorf("at first: %s, held %v, stuck %v", r.Phase, r.held, r.stuck)
		}
		pass(longestBackOff)
		if r := c.now("run-1"); !r.stuck[uuid(0)] || !strings.Contains(r.stuckBy, "process 7 (python)") {
			t.Errorf("then: stuck %v: %s", r.stuck, r.stuckBy)
		}
		h.cgroups(7, "")
		pass(longestBackOff)
		if got := c.phases("run-1"); got != "pulling, starting, running, stopping, stopped, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestAProcessOfNobodyHereKeepsADeviceFromRuns(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.cgroups(7, "/user.slice/session-1")
		h.cgroups(8, "/berth/run-1")
		d := h.start(t, nil)
		h.gpus.SetProcesses(processOn(uuid(1), 7), processOn(uuid(0), 8))
		pass(hardwareEvery + defaultReconcile)
		_, health := c.said()
		if len(health) != 1 || health[0].Device != uuid(1) || health[0].Reason != "held_by_other" || !strings.Contains(health[0].Message, "process 7 (python)") {
			t.Errorf("health: %+v", health)
		}
		d.stop(t)
		h.gpus.SetProcesses() // gone while nobody looked
		d = h.startDaemon("")
		pass(time.Second)
		want := workspace.DeviceHealth{Device: uuid(1), Health: gpu.Healthy}
		_, health = c.said()
		if diff := cmp.Diff(want, health[len(health)-1]); diff != "" || len(health) != 2 {
			t.Errorf("%d reports: %s", len(health), diff)
		}
		d.stop(t)
		c.check(t)
	})
}

// What the driver says of a device isn't hidden by another cause that ends.
func TestTheHealthOfDevices(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.startDaemon("")
		settle()
		last := func() string {
			_, health := c.said()
			if len(health) == 0 {
				return "nothing"
			}
			return fmt.Sprintf("%d: %s %s", len(health), health[len(health)-1].Health, health[len(health)-1].Reason)
		}
		for _, step := range []struct {
			what string
			do   func()
			want string
		}{
			{"an application's fault", func() { h.gpus.Emit(gpu.Event{UUID: uuid(0), Kind: gpu.EventXid, Code: 31}) }, "nothing"},
			{"off the bus", func() { h.gpus.Emit(gpu.Event{UUID: uuid(0), Kind: gpu.EventXid, Code: 79}) }, "1: unhealthy xid_79"},
			{"somebody uses it", func() { h.cgroups(7, "/user.slice"); h.gpus.SetProcesses(processOn(uuid(0), 7)) }, "1: unhealthy xid_79"},
			{"nobody does", func() { h.gpus.SetProcesses() }, "1: unhealthy xid_79"},
			{"rows wait", func() {
				h.gpus.SetReadings(gpu.Reading{UUID: uuid(1), Values: map[gpu.Quantity]float64{gpu.RemapPending: 1}})
			}, "2: unhealthy row_remap_pending"},
			{"no row waits", func() { h.gpus.SetReadings(gpu.Reading{UUID: uuid(1), Values: map[gpu.Quantity]float64{}}) }, "3: healthy "},
			{"it is back", func() { h.gpus.Emit(gpu.Event{UUID: uuid(0), Kind: gpu.EventBack}) }, "4: healthy "},
		} {
			step.do()
			pass(hardwareEvery + defaultReconcile)
			if got := last(); got != step.want {
				t.Errorf("%s: %s, want %s", step.what, got, step.want)
			}
		}
		d.stop(t)
		c.check(t)
	})
}

func TestProcSaysWhatAProcessIs(t *testing.T) {
	if p, ok := procProcess(os.Getpid()); !ok || p.Command == "" || p.Cgroup == "" {
		t.Errorf("this process: %+v, %v", p, ok)
	}
	if p, ok := procProcess(1 << 30); ok {
		t.Errorf("no process: %+v", p)
	}
}
