package state

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/workspace"
)

var sampleTime = time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)

var sampleCaller = Caller{RequestID: "q1", Principal: "alice", Key: "k1", Role: workspace.RoleClusterAdmin,
	Idem: &IdempotencyKey{Scope: "scope", Body: "body"}}

// sampleCommands has one command of each type, with every field set that can be.
func sampleCommands() []Command {
	spec := workspace.RunSpec{Image: "demo:latest", ImageDigest: "sha256:1", Command: []string{"run", "${port}"},
		Env: []workspace.EnvVar{{Name: "TOKEN", Value: "${token}"}}, Ports: []workspace.Port{{Name: "web", Number: "8888", Protocol: "HTTP"}},
		VolumePath: "/home", Probe: &workspace.Probe{HTTPPath: "/", Port: "web", Timeout: 5}, StopGrace: 30, Stoppable: true}
	template := workspace.Template{Name: "demo", Description: "d", Image: "demo:latest", Command: []string{"run", "${port}"},
		Env: []workspace.EnvVar{{Name: "A", Value: "b"}}, Ports: spec.Ports, VolumePath: "/home", Probe: spec.Probe,
		Variables: []workspace.Variable{{Name: "port", Type: workspace.VarInt, Description: "d", Default: "8888", Options: []string{"8888"}}},
		Resources: workspace.Resources{GPUCount: 1, GPUType: "a100", CPUMilli: 1000, MemoryMiB: 1024, StorageMiB: 10},
		Kind:      workspace.KindInteractive, Stoppable: true, StoragePolicy: "retain", StopGrace: 30}
	suggestion := &Suggestion{Node: "n1", Devices: []workspace.Allotment{{UUID: "GPU-0", Milli: 1000}}, Reason: "r", Message: "m", Impossible: true}
	epoch := gpu.Epoch{Incarnation: 1, Index: 7}
	retention := &workspace.Retention{Unit: "hours", Value: 12}
	return []Command{
		&InitCluster{ID: "c1", Name: "berth", Workspace: "w0", Templates: []workspace.Template{template}},
		&RaiseVersion{To: 2},
		&CreateWorkspace{ID: "w1", Name: ptr("Team"), Slug: "team", Description: "d", Settings: []byte(`{"a":1}`), Plan: workspace.PlanPro, Retention: retention},
		&UpdateWorkspace{ID: "w1", Name: ptr("Team"), ClearName: true, Description: ptr(""), Settings: []byte(`{}`), Retention: retention,
			MaxConcurrentRuns: ptr(4), IfIndex: 9},
		&ArchiveWorkspace{ID: "w1"},
		&PutTemplate{Template: template},
		&DeleteTemplate{Name: "demo"},
		&CreateInstance{ID: "i1", Workspace: "w1", Project: "p", Name: "dev", Description: "d",
			Template:  workspace.TemplateRef{Name: "demo", Variables: map[string]string{"port": "8888", "a": "b"}, Description: "d"},
			Secrets:   map[string]workspace.Sealed{"token": {KeyID: "k", Nonce: []byte{1}, Sealed: []byte{2}}},
			Resources: template.Resources, Kind: workspace.KindJob, Spec: spec, StoragePolicy: "retain:3", ToBeDeletedAt: sampleTime,
			FailoverAfter: 60, Start: true, Run: "r1", Suggestion: suggestion},
		&StartInstance{ID: "i1", Run: "r2", ImageDigest: "sha256:2", Suggestion: suggestion},
		&StopInstance{ID: "i1"},
		&RestartInstance{ID: "i1", Run: "r3", ImageDigest: "sha256:3", Suggestion: suggestion},
		&DeleteInstance{ID: "i1"},
		&PlaceRuns{Placements: []Placement{{Run: "r1", Suggestion: *suggestion}}},
		&Report{workspace.Report{Node: "n1", Stamp: workspace.Stamp{BootID: "b", BoottimeMS: 5},
			Facts: &workspace.NodeFacts{Name: "host", BootID: "b", Version: "1", Kernel: "6.1", Arch: "amd64", Runtime: "containerd 1.6.20",
				CPUMilli: 1, MemoryMiB: 2, StorageMiB: 3, CapacityNote: "n", GPUSource: "simulated", GPUMessage: "m",
				DriverVersion: "550", CUDAVersion: "12.4", PublishAddress: "127.0.0.1"},
			Devices: &gpu.Inventory{Source: "simulated", Devices: []gpu.Info{{UUID: "GPU-0", Model: "NVIDIA A100", Type: "A100", NUMANode: -1}},
				Links: []gpu.Link{{A: "GPU-0", B: "GPU-1", NVLink: 12, PCIe: gpu.LinkSwitch}}},
			Images: &[]workspace.NodeImage{{Reference: "demo:latest", Digest: "sha256:1", Size: 5}},
			Ready:  &workspace.Readiness{Ready: true, Reason: "r", Message: "m"},
			Runs: []workspace.RunReport{{Run: "r1", Epoch: epoch, Phase: workspace.PhaseFailed, Reason: "r", Message: "m", ExitCode: ptr(0), OOM: true,
				Access: []workspace.AccessInfo{{Type: "NODE_PORT", Protocol: "HTTP", Host: "h", Port: 1, Name: "web"}}, LivedMS: 6}},
			Released: []workspace.Release{{Device: "GPU-0", Run: "r1", Epoch: epoch, Stuck: true, Message: "m"}},
			Orphans:  &[]workspace.Orphan{{Container: "c", Cluster: "c0", Epoch: epoch, Devices: []string{"GPU-0"}, Reason: "r"}},
			Health:   []workspace.DeviceHealth{{Device: "GPU-0", Health: gpu.Unhealthy, Reason: "r", Message: "m"}},
		}},
		// Fields that came later are in samples of their own: the lines above stay.
		&CreateInstance{ID: "i1", Workspace: "w1", Name: "dev", Template: workspace.TemplateRef{Name: "demo"}, Resources: template.Resources,
			Kind: workspace.KindJob, Spec: spec, RestartPolicy: workspace.RestartPolicy{Mode: workspace.RestartAlways, MaxRestarts: 3}, Volume: "r0"},
		&StartInstance{ID: "i1", Run: "r2", FreshVolume: true},
		&Report{workspace.Report{Node: "n1", Stamp: workspace.Stamp{BootID: "b", BoottimeMS: 5},
			Facts:   &workspace.NodeFacts{Name: "host", BootID: "b", Sharing: "mps"},
			Devices: &gpu.Inventory{Source: "nvml", Devices: []gpu.Info{{UUID: "GPU-0", Unusable: "MIG is on", Capability: "8.0"}}},
			Volumes: []workspace.VolumeReport{{ID: "r1", Made: true, Gone: true, Message: "m"}}}},
		&Sweep{},
		&InstallTemplates{Templates: []workspace.Template{template}},
		&RemoveVolume{ID: "r1"},
		&KeepVolume{ID: "r1", Policy: "retain:30"},
		&SetRegistry{Host: "ghcr.io", Username: "me", Password: workspace.Sealed{KeyID: "k", Nonce: []byte{1}, Sealed: []byte{2}}},
		&RemoveRegistry{Host: "ghcr.io"},
		&UpdateWorkspace{ID: "w1", DailyBudget: workspace.Optional[int64]{Set: true}, UserDailyBudget: some(int64(5)),
			SpendingLimit: some(workspace.MaxMoney), MonthlyRuns: some(int64(0)), Ceilings: some(workspace.Ceilings{DailyBudget: ptr(int64(7))}),
			Plan: ptr(workspace.PlanPro), KillSwitch: ptr(true), MakeDefault: true},
		&CreateInstance{ID: "i1", Workspace: "w1", Suggestion: &Suggestion{Node: "n1", Stamp: &workspace.Stamp{BootID: "b", BoottimeMS: 5}},
			Spec: workspace.RunSpec{MaxDuration: 60, RetentionHours: 24}},
		&Report{workspace.Report{Node: "n1", Expired: []string{"r1"}}},
		&UpdateCluster{Name: ptr("lab"), KillSwitch: ptr(false), DailyBudget: some(int64(9)), MaxConcurrentRuns: ptr(4), IfIndex: 3,
			Defaults: &workspace.WorkspaceDefaults{Plan: workspace.PlanPro, UserDailyBudget: ptr(int64(1)), MaxConcurrentRuns: 2}},
		&FoldHistory{Before: 7, Runs: []string{"r1"}},
		&DeleteWorkspace{ID: "w1"},
		&BlockUser{Workspace: "w1", User: "bob", Blocked: true},
		&ExtendInstance{ID: "i1", ToBeDeletedAt: some(sampleTime)},
		&StartExternal{Run: "r1", Workspace: "w1", User: "bob", Name: "n", Rate: 5, Lease: time.Hour},
		&RenewExternal{Run: "r1"},
		&EndExternal{Run: "r1", Phase: workspace.PhaseFailed, Message: "m", ExitCode: ptr(3)},
		&RenewLeases{Node: "n1", Stamp: workspace.Stamp{BootID: "b", BoottimeMS: 5}, Runs: []workspace.Livedness{{Run: "r1", LivedMS: 6}}},
		&ExpireLeases{Term: 2, Runs: []Expired{{Run: "r1", Grant: 3}}},
		&SetReachable{Node: "n1", Reachable: true},
		&SetPrice{Resource: "gpu", GPUType: "A100", Node: "n1", Amount: 8},
		&RemovePrice{Resource: "cpu"},
	}
}

func some[T any](v T) workspace.Optional[T] { return workspace.Optional[T]{Set: true, Value: &v} }

func sampleEntry(t testing.TB, cmd Command) []byte {
	t.Helper()
	entry, err := Encode(cmd, sampleCaller, sampleTime)
	if err != nil {
		t.Fatal(err)
	}
	return entry
}

// TestGoldenEntries keeps logs readable: what an earlier binary wrote must read
// as what was meant then. A command that gets a field keeps its golden line; the
// line is only ever written anew before a release has used it.
func TestGoldenEntries(t *testing.T) {
	const file = "testdata/golden/entries.txt"
	var now strings.Builder
	samples, known := sampleCommands(), map[Type]bool{}
	for _, cmd := range samples {
		known[cmd.Type()] = true
		fmt.Fprintf(&now, "%d %T %x\n", cmd.Type(), cmd, sampleEntry(t, cmd))
	}
	for n := range 1 << 16 {
		if (newCommand(Type(n)) != nil) != known[Type(n)] {
			t.Errorf("command type %d has no sample", n)
		}
	}
	golden := goldenFile(t, file, []byte(now.String()))
	if got := strings.Count(string(golden), "\n"); got != len(samples) {
		t.Fatalf("%s has %d entries for %d samples", file, got, len(samples))
	}
	for i, line := range slices.Collect(strings.Lines(string(golden))) {
		fields := strings.Fields(line)
		entry, err := hex.DecodeString(fields[2])
		if err != nil {
			t.Fatal(err)
		}
		env, cmd, err := decode(entry)
		if err != nil {
			t.Errorf("%s: %v", fields[1], err)
			continue
		}
		if diff := cmp.Diff(samples[i], cmd); diff != "" {
			t.Errorf("%s reads otherwise than it was meant (-want +got):\n%s", fields[1], diff)
		}
		body := env.Body
		env.Body = nil
		want := Envelope{Type: cmd.Type(), At: sampleTime.UnixMicro(), RequestID: "q1", Principal: "alice", Key: "k1",
			Role: workspace.RoleClusterAdmin, Idem: sampleCaller.Idem}
		if diff := cmp.Diff(want, env); diff != "" {
			t.Errorf("the envelope of %s (-want +got):\n%s", fields[1], diff)
		}
		if again := must(encoder.Marshal(cmd)); !bytes.Equal(again, body) {
			t.Errorf("%s is now written as %x, it was %x", fields[1], again, body)
		}
	}
}

func goldenFile(t *testing.T, file string, now []byte) []byte {
	t.Helper()
	if *rewrite {
		if err := os.WriteFile(file, now, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return golden
}

// TestDamagedEntry: any bit that flips is noticed, as is any missing end.
func TestDamagedEntry(t *testing.T) {
	for _, cmd := range sampleCommands() {
		entry := sampleEntry(t, cmd)
		s := New()
		for i := range entry {
			for bit := range 8 {
				entry[i] ^= 1 << bit
				if _, err := s.Apply(1, entry); err == nil {
					t.Errorf("%T with bit %d of byte %d flipped was applied", cmd, bit, i)
				}
				entry[i] ^= 1 << bit
			}
			if _, err := s.Apply(1, entry[:i]); err == nil {
				t.Errorf("%T cut to %d bytes was applied", cmd, i)
			}
		}
		if s.View().Index() != 0 {
			t.Errorf("%T: a damaged entry moved the state to index %d", cmd, s.View().Index())
		}
	}
}

// TestUnreadableEntry: what this binary can't follow stops it, and the message
// says what to do.
func TestUnreadableEntry(t *testing.T) {
	type m = map[int]any
	envelope := func(typ int, body any) []byte {
		return seal(must(encoder.Marshal(m{1: typ, 2: 0, 6: "system", 8: cbor.RawMessage(must(encoder.Marshal(body)))})))
	}
	newer := sampleEntry(t, &RaiseVersion{To: 2})
	newer[0]++
	damaged := sampleEntry(t, &RaiseVersion{To: 2})
	damaged[len(damaged)-1] ^= 1
	for name, c := range map[string]struct {
		entry []byte
		want  string
	}{
		"unknown command":   {envelope(999, m{}), "apply index 7: log entry has command type 999, which this binary doesn't know: use a newer berthd"},
		"newer frame":       {newer, "apply index 7: log entry has frame version 2, this binary knows 1: use a newer berthd"},
		"damaged":           {damaged, "the log is damaged"},
		"short":             {[]byte{1, 2}, "log entry of 2 bytes is shorter than its frame"},
		"unknown field":     {envelope(int(TypeRaiseVersion), m{1: 2, 9: 1}), "log entry's *state.RaiseVersion: cbor: found unknown field"},
		"wrong kind":        {envelope(int(TypeRaiseVersion), m{1: "two"}), "log entry's *state.RaiseVersion: cbor: cannot unmarshal"},
		"unknown envelope":  {seal(must(encoder.Marshal(m{1: 2, 99: 1}))), "log entry's envelope: cbor: found unknown field"},
		"duplicate key":     {seal([]byte{0xa2, 1, 2, 1, 2}), "log entry's envelope: cbor: found duplicate map key"},
		"duplicate in body": {seal([]byte{0xa4, 1, 2, 2, 0, 6, 0x60, 8, 0xa2, 1, 2, 1, 3}), "log entry's *state.RaiseVersion: cbor: found duplicate map key"},
		"more follows":      {seal(append(must(encoder.Marshal(m{1: 2})), 0)), "log entry's envelope: cbor: 1 bytes of extraneous data"},
		"not a map":         {seal([]byte{0x01}), "log entry's envelope"},
	} {
		s := New()
		if _, err := s.Apply(7, c.entry); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// unreadable is a command whose body isn't what its type says.
type unreadable struct {
	Field int `cbor:"99,keyasint"`
}

func (*unreadable) Type() Type      { return TypeStopInstance }
func (*unreadable) apply(*tx) error { return nil }

// TestUnreadableIsNotWritten: what no replica could follow doesn't get into the
// log.
func TestUnreadableIsNotWritten(t *testing.T) {
	_, err := Encode(&unreadable{1}, sampleCaller, sampleTime)
	if workspace.CodeOf(err) != workspace.CodeInvalid || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("%v, want that it is refused", err)
	}
}

// TestLargeEntry: whatever fits in a request of 1 MiB is followed, and judged by
// the rules, not by the codec.
func TestLargeEntry(t *testing.T) {
	w := newWorld(t)
	w.play("init")
	many := map[string]string{}
	for n := range 200_000 {
		many[fmt.Sprint(n)] = ""
	}
	spec := workspace.RunSpec{Image: "demo"}
	resources := workspace.Resources{CPUMilli: 1000, MemoryMiB: 1000}
	for field, cmd := range map[string]Command{
		"command": &PutTemplate{Template: workspace.Template{Name: "a", Image: "demo", Kind: workspace.KindJob, Command: make([]string, 200_000)}},
		"template.variables": &CreateInstance{ID: "i", Workspace: "w0", Name: "a", Kind: workspace.KindJob, Spec: spec, Resources: resources,
			Template: workspace.TemplateRef{Variables: many}},
	} {
		if res := w.apply(cmd, Caller{Principal: "root", Role: workspace.RoleClusterAdmin}); res.Err == nil || res.Err.Fields[field] == "" {
			t.Errorf("%T: %v, want it to be about %s", cmd, res.Err, field)
		}
	}
}

// TestText: what containers say may be any bytes; they come back as they were,
// also through a snapshot.
func TestText(t *testing.T) {
	w := newWorld(t)
	w.play("init\nreport n1 facts ready\ncreate i1 run=r1 on=n1")
	message := "\xff\xfe broken \x00"
	w.apply(&Report{workspace.Report{Node: "n1", Stamp: w.boots["n1"], Runs: []workspace.RunReport{{Run: "r1",
		Epoch: w.store.View().Run("r1").Epoch, Phase: workspace.PhaseFailed, Message: message}}}},
		Caller{Role: workspace.RoleNode, Principal: "n1"})
	if got := restored(t, w.store).View().Run("r1").Message; got != message {
		t.Errorf("message %q came back as %q", message, got)
	}
}

// TestChecksum: the checksum is CRC-32C over all but the frame.
func TestChecksum(t *testing.T) {
	entry := sampleEntry(t, &StopInstance{ID: "i"})
	if got, want := binary.BigEndian.Uint32(entry[1:5]), crc32.Checksum(entry[5:], crc32.MakeTable(crc32.Castagnoli)); got != want {
		t.Errorf("checksum %08x, want %08x", got, want)
	}
}
