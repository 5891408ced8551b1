package agent

import (
	"context"
	"fmt"
	"reflect"
	"time"

	"berth/gpu"
	"berth/runtime"
	"berth/workspace"
)

// node is what the survey last reported of this host; nil: not yet.
type node struct {
	facts     *workspace.NodeFacts
	inventory *gpu.Inventory
	readiness *workspace.Readiness
	hardware  time.Duration // when devices and images were last read well; 0: never
}

// survey looks at the runtime and the hardware again and again, reports what
// changed, and lets workers look again where the runtime lists something else
// than they know. A runtime that is down is asked more often.
func (a *Agent) survey(ctx context.Context) error {
	var last node
	for failures := 0; ctx.Err() == nil; {
		readiness := a.look(ctx, &last)
		if ctx.Err() != nil {
			return nil
		}
		a.reconcile(ctx)
		if last.readiness == nil || *last.readiness != readiness {
			last.readiness = &readiness
			a.reports.add(workspace.Report{Ready: &readiness})
			a.cfg.Log.Info("readiness to take work changed", "ready", readiness.Ready, "reason", readiness.Reason, "message", readiness.Message)
		}
		wait := a.cfg.ReconcileEvery
		if readiness.Ready {
			failures = 0
		} else {
			failures++
			wait = min(wait, backOff(failures))
		}
		sleep(ctx, wait, a.lookNow)
	}
	return nil
}

// look makes one round and says whether this node can take work.
func (a *Agent) look(ctx context.Context, last *node) workspace.Readiness {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	info, err := a.cfg.Runtime.Info(ctx)
	if err != nil {
		return runtimeDown(err)
	}
	ready := workspace.Readiness{Ready: true}
	if now := a.cfg.Boottime(); last.hardware == 0 || now >= last.hardware+hardwareEvery || a.cfg.GPU.Status().Unresponsive {
		if err := a.lookAtHardware(ctx, info, last); err != nil {
			ready = unreadable(err)
		}
		if _, err := a.readImages(ctx); err != nil {
			return runtimeDown(err)
		}
		if ready.Ready {
			last.hardware = now
		}
	}
	list, err := a.cfg.Runtime.List(ctx)
	if err != nil {
		return runtimeDown(err)
	}
	a.noteContainers(list)
	return ready
}

func runtimeDown(err error) workspace.Readiness {
	return workspace.Readiness{
		Reason:  reasonRuntimeDown,
		Message: fmt.Sprintf("the container runtime doesn't answer: %v; containers go on, and new ones start when it is back", err),
	}
}

// lookAtHardware reads the devices, hands them to the runtime, and reports what
// isn't as it was.
func (a *Agent) lookAtHardware(ctx context.Context, info runtime.Info, last *node) error {
	inventory, err := a.cfg.GPU.Inventory(ctx)
	if err != nil {
		return fmt.Errorf("the GPUs can't be read: %w", err)
	}
	if last.inventory == nil || !reflect.DeepEqual(*last.inventory, inventory) {
		devices := make([]runtime.Device, len(inventory.Devices))
		for i, d := range inventory.Devices {
			devices[i] = a.cfg.DeviceOf(d)
		}
		if err := a.cfg.Runtime.SetDevices(ctx, devices); err != nil {
			return fmt.Errorf("the runtime can't be told of the GPUs: %w", err)
		}
		a.equipped.Store(true)
		last.inventory = &inventory
		a.reports.add(workspace.Report{Devices: &inventory})
	}
	facts := a.cfg.Facts
	facts.BootID, facts.PublishAddress = a.cfg.BootID, a.cfg.Publish.Address
	facts.Runtime = info.Name + " " + info.Version
	facts.GPUSource, facts.GPUMessage = inventory.Source, inventory.Message
	facts.DriverVersion, facts.CUDAVersion = inventory.DriverVersion, inventory.CUDAVersion
	if last.facts == nil || *last.facts != facts {
		last.facts = &facts
		a.reports.add(workspace.Report{Facts: &facts})
	}
	if err := a.judgeReadings(ctx); err != nil {
		return err
	}
	return a.lookForOthers(ctx, &inventory)
}
