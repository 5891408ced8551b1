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

// deviceHealth is what is wrong with a device; the zero value is nothing.
type deviceHealth struct {
	Judged *workspace.DeviceHealth `json:"judged,omitempty"` // from events
	Other  string                  `json:"other,omitempty"`  // a process of nobody here that uses it
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
	was, is := before.report(device), after.report(device)
	if was == is {
		return nil, nil
	}
	return &is, h.ledger.keepHealth(device, after)
}

func (d deviceHealth) report(device string) workspace.DeviceHealth {
	switch {
	case d.Judged != nil:
		return *d.Judged
	case d.Other != "":
		return workspace.DeviceHealth{Device: device, Health: gpu.Unhealthy, Reason: reasonHeldByOther, Message: d.Other}
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
			if judged, ok := a.cfg.Judge(event); ok {
				a.judge(judged)
			}
		})
		if ctx.Err() != nil {
			return nil
		}
		a.warn("the driver's events can't be heard; it is tried again", fmt.Errorf("events of the devices: %w", err))
		sleep(ctx, backOff(failures), nil)
	}
	return nil
}

func (a *Agent) judge(judged workspace.DeviceHealth) {
	a.noteHealth(judged.Device, func(d *deviceHealth) {
		d.Judged = &judged
		if judged.Health == gpu.Healthy {
			d.Judged = nil
		}
	})
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
	others := map[string]string{}
	for _, p := range processes {
		if is, ok := a.cfg.ProcessOf(p.PID); ok && !a.isOurs(is.Cgroup) {
			others[p.UUID] = fmt.Sprintf("process %d (%s) uses it, which is of no run here; the device is offered again when it has ended", p.PID, is.Command)
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
