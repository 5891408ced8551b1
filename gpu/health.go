package gpu

import "fmt"

// Verdict is what an event or a reading says about a device's health. The zero
// value says nothing.
type Verdict struct {
	Health  Health
	Reason  string // a word for programs, such as "lost"
	Message string // for people: what it is, and what to do about it
	Clears  bool   // it ends what any earlier verdict said
}

// What people do about a device. berth does none of it by itself; it keeps
// devices open for reading, which a reset doesn't bear.
const (
	doReset      = "stop what runs on it, and berthd, and reset it (nvidia-smi -r -i INDEX)"
	doReboot     = "reboot this host; if it comes back, call the hardware's vendor"
	doResetLater = "reset it when that is convenient: stop what runs on it, and berthd, then nvidia-smi -r -i INDEX"
	doReplace    = "reset it; if it comes back, have it replaced"
	doLinks      = "look at its links (nvidia-smi nvlink -s -e) and at the devices at their other ends, then reset it"
	doPower      = "check that its auxiliary power is connected"
)

// badXids are the Xids after which a device isn't trusted, with what to do. They
// are those whose immediate action is a reset, a restart of the machine or a
// look at the hardware in NVIDIA's Xid catalogue
// (docs.nvidia.com/deploy/xid-errors, Ampere and newer), and two that it lets
// applications go on with but wants a reset for: 63 and 94. A driver that knows
// better says so by RecoveryAction, which ends them.
//
// All others don't count, above all those that applications cause (13, 31, 43,
// 45, 68, 69). 109, a context switch that takes too long, is among these: heavy
// load does it, and where a reset is needed RecoveryAction says so. So does 154,
// which only tells that RecoveryAction has changed.
var badXids = map[uint64]struct{ what, do string }{
	48:  {"a double-bit memory error", doReset},
	54:  {"its auxiliary power isn't connected", doPower},
	62:  {"its micro-controller has halted", doReset},
	63:  {"a row of its memory waits to be replaced", doResetLater},
	64:  {"a row of its memory couldn't be replaced", doReplace},
	74:  {"an NVLink error", doLinks},
	79:  {"it has fallen off the bus", doReboot},
	94:  {"a contained memory error: the application that met it was ended", doResetLater},
	95:  {"an uncontained memory error", doReset},
	110: {"a security fault", doReboot},
	119: {"its system processor (GSP) doesn't answer", doReset},
	120: {"its system processor (GSP) reported an error", doReset},
	136: {"the training of a link failed", doReset},
	140: {"an unrecovered memory error", doReplace},
	143: {"it couldn't be initialised", doReset},
	144: {"an NVLink error (SAW)", doLinks},
	145: {"an NVLink error (RLW)", doLinks},
	146: {"an NVLink error (TLW)", doLinks},
	147: {"an NVLink error (TREX)", doLinks},
	148: {"an NVLink error (NVLPW)", doLinks},
	149: {"an NVLink error (NETIR)", doLinks},
	150: {"an NVLink error (MSE)", doLinks},
	156: {"a part of it was retired", doReset},
	158: {"a fatal timeout", doReset},
	171: {"an uncorrectable error in its memory", doReset},
	172: {"an uncorrectable error in its SRAM", doReset},
}

// recoveryActions are NVML's, by number (NVML_GPU_RECOVERY_ACTION_…).
var recoveryActions = map[int]string{
	1: doReset,
	2: "reboot this host",
	3: "stop what runs on the devices that are linked with it",
	4: "stop what runs on the devices that are linked with it, too; then " + doReset,
	5: "recover its IMEX domain",
	6: "reset its PCIe bus",
	7: "reboot this host's system",
}

// JudgeEvent says what an event means for its device.
func JudgeEvent(e Event) Verdict {
	switch e.Kind {
	case EventLost:
		return unhealthy("lost", "the driver has lost it", doReset+", or reboot this host")
	case EventBack:
		return Verdict{Health: Healthy, Clears: true}
	case EventDoubleBitECC:
		return unhealthy("ecc_double_bit", "a double-bit memory error", doReset)
	case EventXid:
		if bad, ok := badXids[e.Code]; ok {
			return unhealthy(fmt.Sprintf("xid_%d", e.Code), fmt.Sprintf("Xid %d: %s", e.Code, bad.what), bad.do)
		}
	}
	return Verdict{}
}

// JudgeReading says what a reading means for its device: where the driver
// recommends an action, or none, that decides, as long as no row of memory is
// beyond repair.
func JudgeReading(r Reading) Verdict {
	if r.Values[RemapFailed] == 1 {
		return unhealthy("row_remap_failed", "a row of its memory couldn't be replaced", doReplace)
	}
	action, known := r.Values[RecoveryAction]
	switch {
	case known && action == 0:
		return Verdict{Health: Healthy, Clears: true}
	case known:
		do, ok := recoveryActions[int(action)]
		if !ok {
			do = "look up the action in NVIDIA's documentation"
		}
		return unhealthy("recovery_action", fmt.Sprintf("the driver recommends action %d", int(action)), do)
	case r.Values[RemapPending] == 1:
		return unhealthy("row_remap_pending", "a row of its memory waits to be replaced", doResetLater)
	}
	return Verdict{}
}

func unhealthy(reason, what, do string) Verdict {
	return Verdict{Health: Unhealthy, Reason: reason, Message: what + ": " + do}
}
