package gpu

import (
	"fmt"
	"strings"
	"testing"
)

func TestJudgeEvent(t *testing.T) {
	for _, test := range []struct {
		event  Event
		health Health
		reason string
		say    string
	}{
		{Event{Kind: EventLost}, Unhealthy, "lost", "reset it"},
		{Event{Kind: EventBack}, Healthy, "", ""},
		{Event{Kind: EventDoubleBitECC}, Unhealthy, "ecc_double_bit", "reset it"},
		{Event{Kind: EventSingleBitECC}, "", "", ""},
		{Event{Kind: EventXid, Code: 48}, Unhealthy, "xid_48", "double-bit"},
		{Event{Kind: EventXid, Code: 63}, Unhealthy, "xid_63", "when that is convenient"},
		{Event{Kind: EventXid, Code: 64}, Unhealthy, "xid_64", "replaced"},
		{Event{Kind: EventXid, Code: 74}, Unhealthy, "xid_74", "nvidia-smi nvlink"},
		{Event{Kind: EventXid, Code: 79}, Unhealthy, "xid_79", "fallen off the bus: reboot this host"},
		{Event{Kind: EventXid, Code: 94}, Unhealthy, "xid_94", "when that is convenient"},
		{Event{Kind: EventXid, Code: 95}, Unhealthy, "xid_95", "uncontained"},
		{Event{Kind: EventXid, Code: 119}, Unhealthy, "xid_119", "GSP"},
		{Event{Kind: EventXid, Code: 120}, Unhealthy, "xid_120", "GSP"},
		{Event{Kind: EventXid, Code: 140}, Unhealthy, "xid_140", "memory"},
		{Event{Kind: "news"}, "", "", ""},
	} {
		checkVerdict(t, fmt.Sprintf("%+v", test.event), JudgeEvent(test.event), test.health, test.reason, test.say)
	}
}

// What a program on the device does wrong isn't the device's fault.
func TestXidsOfApplicationsDontCount(t *testing.T) {
	for _, code := range []uint64{0, 8, 13, 31, 32, 43, 45, 66, 68, 69, 92, 109, 137, 154, 1000} {
		if v := JudgeEvent(Event{Kind: EventXid, Code: code}); v != (Verdict{}) {
			t.Errorf("Xid %d: %+v", code, v)
		}
	}
}

func TestJudgeReading(t *testing.T) {
	for _, test := range []struct {
		name   string
		values map[Quantity]float64
		health Health
		reason string
		say    string
	}{
		{"nothing known", nil, "", "", ""},
		{"rows are fine, no recommendation", map[Quantity]float64{RemapFailed: 0, RemapPending: 0}, "", "", ""},
		{"row failed", map[Quantity]float64{RemapFailed: 1}, Unhealthy, "row_remap_failed", "replaced"},
		{"row failed, whatever is recommended", map[Quantity]float64{RemapFailed: 1, RecoveryAction: 0}, Unhealthy, "row_remap_failed", "replaced"},
		{"row pending", map[Quantity]float64{RemapPending: 1}, Unhealthy, "row_remap_pending", "convenient"},
		{"row pending, nothing recommended", map[Quantity]float64{RemapPending: 1, RecoveryAction: 0}, Healthy, "", ""},
		{"nothing recommended", map[Quantity]float64{RecoveryAction: 0}, Healthy, "", ""},
		{"reset", map[Quantity]float64{RecoveryAction: 1}, Unhealthy, "recovery_action", "nvidia-smi -r"},
		{"reboot", map[Quantity]float64{RecoveryAction: 2}, Unhealthy, "recovery_action", "reboot this host"},
		{"a new action", map[Quantity]float64{RecoveryAction: 42}, Unhealthy, "recovery_action", "action 42"},
	} {
		checkVerdict(t, test.name, JudgeReading(Reading{Values: test.values}), test.health, test.reason, test.say)
	}
}

func checkVerdict(t *testing.T, name string, got Verdict, health Health, reason, say string) {
	t.Helper()
	if got.Health != health || got.Reason != reason || !strings.Contains(got.Message, say) {
		t.Errorf("%s: %+v; want %q, %q, a message with %q", name, got, health, reason, say)
	}
	if got.Clears != (health == Healthy) {
		t.Errorf("%s: clears is %v", name, got.Clears)
	}
	if health == Unhealthy && !strings.Contains(got.Message, ": ") {
		t.Errorf("%s: message %q has no recommended action", name, got.Message)
	}
}
