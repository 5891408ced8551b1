package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testCluster applies commands to a real store at once: a cluster of one that
// never waits.
type testCluster struct {
	t     testing.TB
	store *state.Store

	mu       sync.Mutex
	index    uint64
	at       time.Time
	leader   string
	down     error // what Propose gives instead of proposing
	verified int   // calls of Consistent
	callers  []state.Caller
	agent    workspace.NodeService
}

const (
	nodeID  = "01980000-0000-7000-8000-00000000000a"
	gpuUUID = "GPU-00000000-0000-0000-0000-000000000001"
	digest  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	admin   = "root"
)

var adminPrincipal = Principal{User: admin, Role: workspace.RoleClusterAdmin}

func (c *testCluster) Propose(_ context.Context, cmd state.Command, by state.Caller) (state.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down != nil {
		return state.Result{}, c.down
	}
	c.index++
	c.at = c.at.Add(time.Second)
	c.callers = append(c.callers, by)
	// The leader fills the ids.
	switch cmd := cmd.(type) {
	case *state.CreateWorkspace:
		cmd.ID = c.id("b")
	case *state.CreateInstance:
		cmd.ID, cmd.Run = c.id("c"), c.id("d")
	case *state.StartInstance:
		cmd.Run = c.id("d")
	case *state.StartExternal:
		cmd.Run = c.id("d")
	case *state.RestartInstance:
		cmd.Run = c.id("d")
	}
	entry, err := state.Encode(cmd, by, c.at)
	if err != nil {
		return state.Result{}, err
	}
	return c.store.Apply(c.index, entry)
}

// id like a UUIDv7: later ones are greater.
func (c *testCluster) id(kind string) string {
	return fmt.Sprintf("01980000-0000-7000-800%s-%012d", kind, c.index)
}

func (c *testCluster) View() state.View { return c.store.View() }

func (c *testCluster) Consistent(context.Context) (state.View, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified++
	return c.store.View(), nil
}

func (c *testCluster) Seal(s workspace.Secret) (workspace.Sealed, error) {
	return workspace.Sealed{KeyID: "k", Nonce: []byte("n"), Sealed: []byte(strings.ToUpper(s.Reveal()))}, nil
}

func (c *testCluster) Open(s workspace.Sealed) (workspace.Secret, error) {
	return workspace.NewSecret(strings.ToLower(string(s.Sealed))), nil
}

func (c *testCluster) Node(id string) (workspace.NodeService, error) {
	if id != nodeID || c.agent == nil {
		return nil, workspace.Errorf(workspace.CodeUnavailable, "node %s can't be reached", id)
	}
	return c.agent, nil
}

func (c *testCluster) Status() ClusterStatus {
	return ClusterStatus{Leader: c.leader, Term: 3, Age: 7 * time.Millisecond, Warnings: []string{"the clock is unsynchronised"}}
}

// as proposes for one of the cluster's own parts.
func (c *testCluster) as(role workspace.Role, who string, cmd state.Command) state.Result {
	c.t.Helper()
	res, err := c.Propose(c.t.Context(), cmd, state.Caller{Principal: who, Role: role})
	if err != nil || res.Err != nil {
		c.t.Fatalf("%T: %v, %v", cmd, err, res.Err)
	}
	return res
}

func (c *testCluster) report(r workspace.Report) {
	c.t.Helper()
	r.Node, r.Stamp = nodeID, workspace.Stamp{BootID: "boot", BoottimeMS: int64(c.index)}
	c.as(workspace.RoleNode, nodeID, &state.Report{Report: r})
}

// place puts a pending run on the one node with its one GPU.
func (c *testCluster) place(run string) {
	c.t.Helper()
	want := []workspace.Allotment{}
	if c.View().Run(run).Resources.GPUCount == 1 {
		want = append(want, workspace.Allotment{UUID: gpuUUID, Milli: 1000})
	}
	c.as(workspace.RoleSystem, "leader", &state.PlaceRuns{Placements: []state.Placement{
		{Run: run, Suggestion: state.Suggestion{Node: nodeID, Devices: want}},
	}})
}

// phase lets the node report a phase of a run.
func (c *testCluster) phase(run string, p workspace.Phase, reason string) {
	c.t.Helper()
	c.report(workspace.Report{Runs: []workspace.RunReport{
		{Run: run, Epoch: c.View().Run(run).Epoch, Phase: p, Reason: reason, Message: "said the node"},
	}})
}

// rig is an API over a test cluster with one node, one GPU, one image and two
// templates.
type rig struct {
	*testCluster
	api *API
}

func newRig(t testing.TB) *rig {
	c := &testCluster{t: t, store: state.New(), at: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), leader: nodeID}
	a, err := New(Config{
		Cluster: c, Version: "1.2.3", NodeID: nodeID, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Explain: explainTest,
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "berth_up 1") }),
	})
	if err != nil {
		t.Fatal(err)
	}
	c.as(workspace.RoleSystem, "leader", &state.InitCluster{
		ID: "01980000-0000-7000-8000-000000000001", Name: "test", Workspace: "01980000-0000-7000-8000-000000000002",
		Templates: []workspace.Template{demoTemplate(), secretTemplate()},
	})
	c.report(workspace.Report{
		Facts: &workspace.NodeFacts{Name: "host1", BootID: "boot", CPUMilli: 8000, MemoryMiB: 16384, StorageMiB: 102400, GPUSource: "simulated"},
		Devices: &gpu.Inventory{Source: "simulated", Devices: []gpu.Info{
			{UUID: gpuUUID, Model: "NVIDIA A100-SXM4-80GB", Type: "A100-SXM4-80GB", Vendor: "NVIDIA", MemoryMiB: 81920, NUMANode: -1},
		}},
		Images: &[]workspace.NodeImage{{Reference: "docker.io/library/demo:latest", Digest: digest, Size: 1000}},
		Ready:  &workspace.Readiness{Ready: true},
	})
	return &rig{testCluster: c, api: a}
}

func explainTest(_ state.View, run *workspace.Run) workspace.Placement {
	if run.Resources.GPUCount > 1 {
		return workspace.Placement{Reason: "gpu_count_impossible", Message: "no node has 2 GPUs, the most on one node is 1", Final: true}
	}
	return workspace.Placement{Fits: true, Node: nodeID, Message: "it fits on host1"}
}

func demoTemplate() workspace.Template {
	return workspace.Template{
		Name: "demo", Description: "a demo", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 30,
		Variables: []workspace.Variable{{Name: "port", Type: workspace.VarInt, Default: "8888"}},
		Resources: workspace.Resources{GPUCount: 1, CPUMilli: 500, MemoryMiB: 512, StorageMiB: 100},
	}
}

func secretTemplate() workspace.Template {
	return workspace.Template{
		Name: "secretive", Image: "docker.io/library/demo", Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 30,
		Env:       []workspace.EnvVar{{Name: "PASSWORD", Value: "${password}"}},
		Variables: []workspace.Variable{{Name: "password", Type: workspace.VarSecret, Required: true}},
	}
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// ask sends a request as the cluster's admin. header holds pairs.
func (r *rig) ask(method, path, body string, header ...string) answer {
	return r.askAs(adminPrincipal, method, path, body, header...)
}

func (r *rig) askAs(p Principal, method, path, body string, header ...string) answer {
	r.t.Helper()
	if !strings.HasPrefix(path, "/") {
		path = base + "/" + path
	}
	req := httptest.NewRequestWithContext(WithPrincipal(r.t.Context(), p), method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.api.Socket().ServeHTTP(w, req)
	return answer{w.Code, w.Header(), w.Body.Bytes()}
}

// decode reads an answer that must have a status.
func decode[T any](t testing.TB, a answer, status int) T {
	t.Helper()
	var v T
	if a.status != status {
		t.Fatalf("status %d, want %d: %s", a.status, status, a.body)
	}
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
	return v
}

// refused checks a problem and gives it.
func refused(t testing.TB, a answer, status int, code workspace.Code, parts ...string) Problem {
	t.Helper()
	p := decode[Problem](t, a, status)
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type %q", ct)
	}
	if p.Code != code || p.Status != status || p.Type != "about:blank" || p.Title != http.StatusText(status) {
		t.Errorf("problem %+v, want code %s and status %d", p, code, status)
	}
	if p.RequestID == "" || p.RequestID != a.header.Get("X-Request-Id") {
		t.Errorf("request id %q in the body, %q in the header", p.RequestID, a.header.Get("X-Request-Id"))
	}
	for _, part := range parts {
		if !strings.Contains(p.Detail, part) {
			t.Errorf("detail %q lacks %q", p.Detail, part)
		}
	}
	return p
}

// instance makes one that is pending.
func (r *rig) instance(name string) workspace.Instance {
	r.t.Helper()
	return decode[workspace.Instance](r.t, r.ask("POST", "instances", `{"name":"`+name+`","template":{"name":"demo"}}`), 201)
}
