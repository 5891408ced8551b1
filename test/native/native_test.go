// Package native_test drives the typed client against the API over a socket:
// what one sends, the other takes.
package native_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/api"
	"berth/client"
	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const node = "01980000-0000-7000-8000-00000000000a"

// cluster applies commands at once and lets every started run run.
type cluster struct {
	mu    sync.Mutex
	store *state.Store
	index uint64
}

func (c *cluster) Propose(_ context.Context, cmd state.Command, by state.Caller) (state.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := c.index + 1
	switch cmd := cmd.(type) {
	case *state.CreateWorkspace:
		cmd.ID = id('b', next)
	case *state.CreateInstance:
		cmd.ID, cmd.Run, cmd.Suggestion = id('c', next), id('d', next), &state.Suggestion{Node: node}
	case *state.StartInstance:
		cmd.Run, cmd.Suggestion = id('d', next), &state.Suggestion{Node: node}
	}
	return c.apply(cmd, by)
}

func id(kind rune, n uint64) string { return fmt.Sprintf("01980000-0000-7000-800%c-%012d", kind, n) }

func (c *cluster) apply(cmd state.Command, by state.Caller) (state.Result, error) {
	c.index++
	entry, err := state.Encode(cmd, by, time.Unix(int64(1_700_000_000+c.index), 0))
	if err != nil {
		return state.Result{}, err
	}
	return c.store.Apply(c.index, entry)
}

func (c *cluster) report(t *testing.T, r workspace.Report) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Node = node
	if _, err := c.apply(&state.Report{Report: r}, state.Caller{Principal: node, Role: workspace.RoleNode}); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) View() state.View                                { return c.store.View() }
func (c *cluster) Consistent(context.Context) (state.View, error)  { return c.store.View(), nil }
func (c *cluster) Open(workspace.Sealed) (workspace.Secret, error) { return workspace.Secret{}, nil }

func (c *cluster) Seal(workspace.Secret) (workspace.Sealed, error) { return workspace.Sealed{}, nil }
func (c *cluster) Node(string) (workspace.NodeService, error)      { return agent{}, nil }
func (c *cluster) Status() api.ClusterStatus                       { return api.ClusterStatus{Leader: node} }
func explain(state.View, *workspace.Run) workspace.Placement {
	return workspace.Placement{Fits: true, Node: node, Message: "it fits"}
}

type agent struct{ workspace.NodeService }

func (agent) ImportImage(_ context.Context, r io.Reader, _ string) ([]workspace.NodeImage, error) {
	n, err := io.Copy(io.Discard, r)
	return []workspace.NodeImage{{Reference: "demo:latest", Digest: "sha256:1", Size: n}}, err
}
func (agent) RemoveImage(context.Context, string) error { return nil }

func start(t *testing.T) (*cluster, *client.Client) {
	t.Helper()
	c := &cluster{store: state.New()}
	system := state.Caller{Principal: "leader", Role: workspace.RoleSystem}
	tmpl := workspace.Template{Name: "demo", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true}
	if _, err := c.apply(&state.InitCluster{ID: id('0', 1), Name: "t", Workspace: id('0', 2), Templates: []workspace.Template{tmpl}}, system); err != nil {
		t.Fatal(err)
	}
	c.report(t, workspace.Report{
		Facts:   &workspace.NodeFacts{Name: "host1", CPUMilli: 8000, MemoryMiB: 16384, StorageMiB: 102400},
		Devices: &gpu.Inventory{Devices: []gpu.Info{{UUID: "GPU-1", Type: "A100"}}},
		Images:  &[]workspace.NodeImage{{Reference: "demo:latest", Digest: "sha256:1", Size: 5}},
		Ready:   &workspace.Readiness{Ready: true},
	})
	a, err := api.New(api.Config{Cluster: c, Version: "1", NodeID: node, Log: slog.New(slog.DiscardHandler), Explain: explain})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := a.Server(a.Socket())
	server.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return api.WithPrincipal(ctx, api.Principal{User: "root", Role: workspace.RoleClusterAdmin})
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	cl, err := client.New(client.Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cl.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-served
	})
	return c, cl
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestClientAndAPI(t *testing.T) {
	c, cl := start(t)
	ctx := t.Context()
	name := "Team A"
	w := must[*workspace.Workspace](t)(cl.CreateWorkspace(ctx, workspace.NewWorkspace{Name: &name}))
	w = must[*workspace.Workspace](t)(cl.UpdateWorkspace(ctx, w.Slug, workspace.WorkspaceChange{Name: workspace.Optional[string]{Set: true}}, w.ModifyIndex))
	if w.Name != nil {
		t.Errorf("workspace %+v", w)
	}
	if _, err := cl.UpdateWorkspace(ctx, w.ID, workspace.WorkspaceChange{}, 1); workspace.CodeOf(err) != workspace.CodeTooOld {
		t.Errorf("old index: %v", err)
	}
	job := workspace.Template{Name: "job", Image: "demo", Kind: workspace.KindJob}
	must[*workspace.Template](t)(cl.CreateTemplate(ctx, job))
	must[*workspace.Template](t)(cl.PutTemplate(ctx, job))
	cpu := int64(500)
	inst := must[*workspace.Instance](t)(cl.CreateInstance(ctx, workspace.NewInstance{
		Name: "one", Workspace: "team-a", Template: workspace.TemplateChoice{Name: "demo"}, Resources: workspace.ResourceRequest{CPUMilli: &cpu},
	}))
	if inst.Resources.CPUMilli != 500 || inst.Workspace != w.ID {
		t.Errorf("made %+v", inst)
	}
	images := must[[]workspace.NodeImage](t)(cl.ImportImage(ctx, strings.NewReader("12345"), client.ImportOptions{Node: "host1"}, nil))
	if len(images) != 1 || images[0].Size != 5 {
		t.Errorf("images %+v", images)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := cl.Wait(ctx, inst.ID, "running", 30*time.Second, nil)
		waited <- err
	}()
	run := must[*workspace.Run](t)(cl.Run(ctx, inst.Run))
	c.report(t, workspace.Report{Runs: []workspace.RunReport{{Run: run.ID, Epoch: run.Epoch, Phase: workspace.PhaseRunning}}})
	if err := <-waited; err != nil {
		t.Error(err)
	}
	why := must[*workspace.Explanation](t)(cl.Explain(ctx, inst.ID))
	if why.Status != workspace.StatusRunning {
		t.Errorf("why %+v", why)
	}
	must[*workspace.Placement](t)(cl.DryRun(ctx, workspace.DryRun{Template: "demo"}))
	if s := must[*workspace.Overview](t)(cl.Status(ctx)); s.Nodes.Ready != 1 || s.Runs["running"] != 1 || s.Devices["free"] != 1 {
		t.Errorf("status %+v", s)
	}
	if v := must[*workspace.VersionInfo](t)(cl.Version(ctx)); v.Version != "1" {
		t.Errorf("version %+v", v)
	}
	must[*workspace.Instance](t)(cl.DeleteInstance(ctx, inst.ID))
	c.report(t, workspace.Report{Runs: []workspace.RunReport{{Run: run.ID, Epoch: run.Epoch, Phase: workspace.PhaseStopped}}})
	if _, err := cl.Wait(ctx, inst.ID, "deleted", 10*time.Second, nil); err != nil {
		t.Error(err)
	}
	for e, err := range cl.Events(ctx, client.EventFilter{Object: inst.ID}) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Type == "instance.gone" {
			break
		}
	}
	must[*workspace.Workspace](t)(cl.ArchiveWorkspace(ctx, w.ID))
	if err := cl.RemoveImage(ctx, "demo:latest", ""); err != nil {
		t.Error(err)
	}
	if err := cl.DeleteTemplate(ctx, "job"); err != nil {
		t.Error(err)
	}
}

// Every list takes the filters that the client offers for it.
func TestClientAndAPILists(t *testing.T) {
	_, cl := start(t)
	ctx := t.Context()
	for i := range 120 {
		no := false
		must[*workspace.Instance](t)(cl.CreateInstance(ctx, workspace.NewInstance{Name: fmt.Sprint("i", i), Template: workspace.TemplateChoice{Name: "demo"}, Start: &no}))
	}
	n := 0
	for _, err := range client.All(ctx, cl.Instances, client.ListOptions{Workspace: "*", Status: "STOPPED", Limit: 50}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 120 {
		t.Errorf("%d instances", n)
	}
	lists := map[string]error{}
	_, lists["runs"] = cl.Runs(ctx, client.ListOptions{Workspace: "default", Instance: "x", Phase: "pending", Node: "host1"})
	_, lists["devices"] = cl.Devices(ctx, client.ListOptions{Node: "host1", State: "free"})
	_, lists["images"] = cl.Images(ctx, client.ListOptions{Node: "host1"})
	_, lists["events"] = cl.ListEvents(ctx, client.ListOptions{Object: "x", After: "1.0", Consistency: "stale"})
	_, lists["nodes"] = cl.Nodes(ctx, client.ListOptions{Limit: 1})
	_, lists["templates"] = cl.Templates(ctx, client.ListOptions{})
	_, lists["workspaces"] = cl.Workspaces(ctx, client.ListOptions{Consistency: "consistent"})
	_, lists["instance runs"] = cl.InstanceRuns(ctx, "i1", client.ListOptions{})
	for name, err := range lists {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
