package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	"berth/gpu"
	"berth/workspace"
)

// deviceHealth is what is wrong with a device, by who said so; the zero value is
// nothing.
type deviceHealth struct {
	Event   trouble `json:"event,omitzero"`
	Reading trouble `json:"reading,omitzero"`
	Other   trouble `json:"other,omitzero"` // a process of nobody here uses it
}

// trouble is one thing that is wrong with a device.
type trouble struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// health keeps what is known of devices over restarts, so that one cause that
// ends doesn't hide another. It is safe for concurrent use.
type health struct {
	ledger *ledger
	mu     sync.Mutex
}

// change changes what is known of a device and gives what to report, if that is
// something else than before. Its error is one of the disk.
func (h *health) change(device string, change func(*deviceHealth)) (*workspace.DeviceHealth, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.ledger.health(device)
	after := before
	change(&after)
	if after == before {
		return nil, nil
	}
	is := after.report(device)
	if err := h.ledger.keepHealth(device, after); err != nil || is == before.report(device) {
		return nil, err
	}
	return &is, nil
}

func (d deviceHealth) report(device string) workspace.DeviceHealth {
	for _, wrong := range []trouble{d.Event, d.Reading, d.Other} {
		if wrong != (trouble{}) {
			return workspace.DeviceHealth{Device: device, Health: gpu.Unhealthy, Reason: wrong.Reason, Message: wrong.Message}
		}
	}
	return workspace.DeviceHealth{Device: device, Health: gpu.Healthy}
}

func (l *ledger) health(device string) deviceHealth {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept.Health[device]
}

func (l *ledger) keepHealth(device string, d deviceHealth) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.kept
	next.Health = map[string]deviceHealth{}
	maps.Copy(next.Health, l.kept.Health)
	if next.Health[device] = d; d == (deviceHealth{}) {
		delete(next.Health, device)
	}
	return l.write(next)
}

// hearDevices turns what happens to devices into their health, until ctx ends.
func (a *Agent) hearDevices(ctx context.Context) error {
	for failures := 1; ctx.Err() == nil; failures++ {
		err := a.cfg.GPU.Events(ctx, func(event gpu.Event) {
			failures = 0
			a.judge(event.UUID, gpu.JudgeEvent(event), func(d *deviceHealth) *trouble { return &d.Event })
		})
		if ctx.Err() != nil {
			return nil
		}
		a.warn("the driver's events aren't heard any more; it is tried again", err)
		sleep(ctx, backOff(failures), nil)
	}
	return nil
}

// judge notes a verdict, in the place of who gave it. One that clears ends all
// that the driver has said.
func (a *Agent) judge(device string, v gpu.Verdict, place func(*deviceHealth) *trouble) {
	a.noteHealth(device, func(d *deviceHealth) {
		if v.Clears {
			d.Event, d.Reading = trouble{}, trouble{}
		}
		if v.Health == gpu.Unhealthy {
			*place(d) = trouble{v.Reason, v.Message}
		}
	})
}

// judgeReadings looks for what the devices themselves say is wrong.
func (a *Agent) judgeReadings(ctx context.Context) error {
	readings, err := a.cfg.GPU.Readings(ctx)
	if err != nil {
		return fmt.Errorf("the GPUs can't be measured: %w", err)
	}
	for _, r := range readings {
		v := gpu.JudgeReading(r)
		a.judge(r.UUID, v, func(d *deviceHealth) *trouble { return &d.Reading })
		if v == (gpu.Verdict{}) { // what an earlier reading showed isn't there any more
			a.noteHealth(r.UUID, func(d *deviceHealth) { d.Reading = trouble{} })
		}
	}
	return nil
}

func (a *Agent) noteHealth(device string, change func(*deviceHealth)) {
	report, err := a.health.change(device, change)
	if err != nil {
		a.warn("the health of a device can't be kept on disk", err, "device", device)
	}
	if report != nil {
		a.cfg.Log.Warn("the health of a device changed", "device", device, "health", report.Health, "reason", report.Reason, "message", report.Message)
		a.reports.add(workspace.Report{Health: []workspace.DeviceHealth{*report}})
	}
}

// lookForOthers finds processes of nobody here on devices that no run has: such
// a device isn't given out until they are gone. They are left alone.
func (a *Agent) lookForOthers(ctx context.Context, inventory *gpu.Inventory) error {
	if len(inventory.Devices) == 0 {
		return nil
	}
	processes, err := a.cfg.GPU.Processes(ctx)
	if err != nil {
		return fmt.Errorf("the processes on the GPUs can't be listed: %w", err)
	}
	others := map[string]trouble{}
	for _, p := range processes {
		if is, ok := a.cfg.ProcessOf(p.PID); ok && !a.isOurs(is.Cgroup) {
			others[p.UUID] = trouble{reasonHeldByOther, fmt.Sprintf(
				"process %d (%s) uses it, which is of no run here; the device is offered again when it has ended", p.PID, is.Command)}
		}
	}
	for _, d := range inventory.Devices {
		if a.ledger.isHeld(d.UUID) {
			continue
		}
		a.noteHealth(d.UUID, func(h *deviceHealth) { h.Other = others[d.UUID] })
	}
	return nil
}

// isOurs: a cgroup is of a container here.
func (a *Agent) isOurs(cgroup string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.containers {
		if strings.Contains(cgroup, id) {
			return true
		}
	}
	for id := range a.workers {
		if strings.Contains(cgroup, id) {
			return true
		}
	}
	return false
}

func (l *ledger) isHeld(device string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.held[device]) > 0
}

// unreadable says why the devices can't be read.
func unreadable(err error) workspace.Readiness {
	if errors.Is(err, gpu.ErrUnresponsive) {
		return workspace.Readiness{Reason: reasonUnresponsive, Message: err.Error() +
			"; what runs goes on, and new runs start when it answers again"}
	}
	return workspace.Readiness{Reason: reasonGPUDown, Message: err.Error()}
}
