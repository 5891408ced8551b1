package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		writeUntilKilled(dir)
	}
	goleak.VerifyTestMain(m)
}

const testNode = "node-1"

var (
	system = state.Caller{Role: workspace.RoleSystem, Principal: "system"}
	admin  = state.Caller{Role: workspace.RoleClusterAdmin, Principal: "alice"}
)

// running is a Cluster with its Run going on.
type running struct {
	*Cluster
	t      testing.TB
	cancel context.CancelFunc
	ended  chan error
}

// start opens a cluster whose election takes no time worth waiting for.
func start(t testing.TB, cfg Config) *running {
	t.Helper()
	cfg.Timers = Timers{Heartbeat: 20 * time.Millisecond, Election: 20 * time.Millisecond, Lease: 15 * time.Millisecond}
	return startAsIs(t, cfg)
}

func startAsIs(t testing.TB, cfg Config) *running {
	t.Helper()
	if cfg.NodeID == "" {
		cfg.NodeID = testNode
	}
	if cfg.Store == nil {
		cfg.Store = state.New()
	}
	c, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Cluster: c, t: t, cancel: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-c.closed
	})
	return r
}

// stop ends Run, which must be without an error.
func (r *running) stop() {
	r.t.Helper()
	r.cancel()
	if err := <-r.ended; err != nil {
		r.t.Fatalf("Run: %v", err)
	}
}

func (r *running) propose(cmd state.Command, by state.Caller) state.Result {
	r.t.Helper()
	res, err := r.Propose(context.Background(), cmd, by)
	if err != nil {
		r.t.Fatalf("propose %T: %v", cmd, err)
	}
	return res
}

func initCluster() *state.InitCluster {
	return &state.InitCluster{ID: "cluster-1", Name: "test", Workspace: "ws-default"}
}

func createWorkspace(id string) *state.CreateWorkspace {
	return &state.CreateWorkspace{ID: id, Plan: workspace.PlanScale}
}

// bytesOf is the state as a snapshot has it: equal states have equal bytes.
func bytesOf(t testing.TB, s *state.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Snapshot().Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// withNode gives a cluster that has one ready node with GPUs and no run.
func (r *running) withNode(gpus int) {
	r.t.Helper()
	r.propose(initCluster(), system)
	inventory := &gpu.Inventory{Source: "simulated"}
	for i := range gpus {
		inventory.Devices = append(inventory.Devices, gpu.Info{
			UUID: fmt.Sprintf("GPU-%d", i), Index: i, Model: "NVIDIA A100", Type: "A100", Vendor: "NVIDIA", MemoryMiB: 81920,
		})
	}
	err := r.Local(testNode).Report(context.Background(), workspace.Report{
		Node: testNode, Stamp: workspace.Stamp{BootID: "boot-1", BoottimeMS: 1},
		Facts:   &workspace.NodeFacts{Name: "host-1", BootID: "boot-1", CPUMilli: 64000, MemoryMiB: 1 << 20, StorageMiB: 1 << 20},
		Devices: inventory, Ready: &workspace.Readiness{Ready: true},
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// createInstance makes a command that starts an instance on testNode's GPU.
func createInstance(id string, secrets map[string]workspace.Sealed) *state.CreateInstance {
	return &state.CreateInstance{
		ID: id, Workspace: "ws-default", Name: id, Template: workspace.TemplateRef{Name: "plain"}, Secrets: secrets,
		Resources: workspace.Resources{GPUCount: 1, CPUMilli: 1000, MemoryMiB: 512},
		Kind:      workspace.KindInteractive, Start: true, Run: "run-" + id,
		Spec: workspace.RunSpec{Image: "demo:latest", ImageDigest: "sha256:0", Stoppable: true},
		Suggestion: &state.Suggestion{Node: testNode,
			Devices: []workspace.Allotment{{UUID: "GPU-" + id[len(id)-1:], Milli: 1000}}},
	}
}

func wantCode(t testing.TB, err error, code workspace.Code) {
	t.Helper()
	var e *workspace.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got error %v, want code %s", err, code)
	}
}

func waitReady(t testing.TB, c *Cluster) {
	t.Helper()
	select {
	case <-c.Ready():
	case <-time.After(30 * time.Second):
		t.Fatal("no leader in 30 s")
	}
}
