package agent

import (
	"fmt"
	"syscall"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// Reasons an agent gives for phases and ends, besides a stop's own.
const (
	reasonPulling      = "pulling_image"
	reasonStarting     = "starting"
	reasonRunning      = "running"
	reasonStopped      = "stopped"
	reasonExited       = "exited"
	reasonOOM          = "oom_killed"       // the main process
	reasonChildOOM     = "child_oom_killed" // another one, and it took the run along
	reasonUnknown      = "exit_unknown"
	reasonWaiting      = "waiting_for_probe"
	reasonNotReady     = "not_ready"
	reasonInUse        = "in_use"
	reasonPortMoved    = "port_moved"
	reasonDenied       = "registry_denied"
	reasonRegistry     = "registry_unavailable"
	reasonPullFailed   = "pull_failed"
	reasonImageInvalid = "image_invalid"
	reasonPlatform     = "wrong_platform"
	reasonNoSpace      = "no_space"
	reasonVolume       = "volume_failed"
	reasonVolumeBad    = "volume_corrupt"
	reasonNetwork      = "network_failed"
	reasonNoPort       = "no_port"
	reasonNoAddress    = "no_address"
	reasonHeldByOther  = "held_by_other"
	reasonUnresponsive = "driver_unresponsive"
	reasonImageMissing = "image_missing"
	reasonCreateFailed = "create_failed"
	reasonStartFailed  = "start_failed"
	reasonStaleEpoch   = "stale_epoch"
	reasonDeviceBusy   = "device_busy"
	reasonRuntimeDown  = "runtime_unavailable"
	reasonGPUDown      = "gpu_unavailable"
	reasonUnkillable   = "unkillable"
	reasonTermFailed   = "term_failed"
	reasonKilled       = "killed"
	reasonUndeleted    = "container_left"
	reasonLeaseExpired = workspace.ReasonLeaseExpired
	reasonMaxDuration  = workspace.ReasonMaxDuration
	reasonNoLease      = "waiting_for_lease"
	reasonNoGuard      = "guard_unavailable"
)

// killedCode is the exit code of a process that SIGKILL ended.
const killedCode = 128 + int(syscall.SIGKILL)

// endOf says how the run ended, nil when that isn't this agent's to say: the
// cluster has recorded an end, or the container never ran and is made anew.
func endOf(in input) *workspace.RunReport {
	decided := decidedEnd(in)
	if decided == nil {
		return nil
	}
	end := *decided
	if end.LivedMS == 0 {
		end.LivedMS = in.livedMS()
	}
	if c := in.container; end.ExitCode == nil && c != nil && c.State == runtime.StateExited && c.Exit.Known {
		end.ExitCode, end.OOM = &c.Exit.Code, c.Exit.OOM
	}
	return &end
}

func decidedEnd(in input) *workspace.RunReport {
	a := in.assignment
	switch {
	case in.progress.end != nil:
		return in.progress.end
	case a == nil || a.Phase.Terminal() || in.endedUnstarted():
		return nil
	case in.container != nil && in.container.State == runtime.StateExited:
		return exitOf(&in, in.container.Exit)
	case a.Desired == workspace.RunStopping:
		return endWith(a, workspace.PhaseStopped, stopReason(a), "stopped")
	case in.over() && in.endedByGuard():
		return in.expiry()
	case in.over():
		return endWith(a, workspace.PhaseFailed, reasonUnknown,
			"its container is gone from the node, and nobody saw how it ended")
	}
	return nil
}

// exitOf judges a process that has ended.
func exitOf(in *input, exit runtime.Exit) *workspace.RunReport {
	a, lasted := in.assignment, ms(in.livedMS())
	var end *workspace.RunReport
	switch {
	case a.Desired == workspace.RunStopping:
		end = endWith(a, workspace.PhaseStopped, stopReason(a), "stopped")
		if exit.Known {
			end.Message = fmt.Sprintf("stopped; exit code %d", exit.Code)
		}
	case in.endedByGuard():
		end = in.expiry()
	case exit.OOM && exit.Known && exit.Code != killedCode && exit.Code != 0:
		end = endWith(a, workspace.PhaseFailed, reasonChildOOM, fmt.Sprintf(
			"one of its processes was killed when all together used more than the memory limit of %d MiB, and its main process ended "+
				"with exit code %d after %s; give it more memory", a.Resources.MemoryMiB, exit.Code, seconds(lasted)))
	case exit.OOM && (exit.Code != 0 || !exit.Known):
		end = endWith(a, workspace.PhaseFailed, reasonOOM, fmt.Sprintf(
			"used more than its memory limit of %d MiB after %s; give it more memory", a.Resources.MemoryMiB, seconds(lasted)))
	case !exit.Known:
		end = endWith(a, workspace.PhaseFailed, reasonUnknown,
			"its process has ended, and nobody saw how (the host or its container runtime was restarted?)")
	case exit.Code == 0:
		end = endWith(a, workspace.PhaseSucceeded, reasonExited, fmt.Sprintf("exit code 0 after %s", seconds(lasted)))
		if exit.OOM {
			end.Message += fmt.Sprintf("; one of its processes was killed for the memory limit of %d MiB on the way", a.Resources.MemoryMiB)
		}
	default:
		end = endWith(a, workspace.PhaseFailed, reasonExited, fmt.Sprintf(
			"exit code %d after %s; its output is in logs/%s.log of the node's data directory", exit.Code, seconds(lasted), a.Run))
	}
	end.OOM = exit.OOM
	return end
}

func endWith(a *workspace.Assignment, phase workspace.Phase, reason, message string) *workspace.RunReport {
	return &workspace.RunReport{Run: a.Run, Epoch: a.Epoch, Phase: phase, Reason: reason, Message: message}
}

// endWithRemains is the decided end of a run whose container can't be deleted.
func endWithRemains(p *progress) *workspace.RunReport {
	end := *p.end
	end.Message = fmt.Sprintf("%s; its container can't be removed, which is tried again, and its devices stay held until it is: %s",
		end.Message, p.obstacle)
	return &end
}

func stopReason(a *workspace.Assignment) string {
	if a.StopReason == "" {
		return reasonStopped
	}
	return a.StopReason
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
