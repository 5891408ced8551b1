package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/workspace"
)

func TestWorkspaces(t *testing.T) {
	r := newRig(t)
	w := decode[workspace.Workspace](t, r.ask("POST", "workspaces", `{"name":"Team A","settings":{"x":1}}`), 201)
	if w.Slug != "team-a" || w.Plan != workspace.PlanScale || *w.Name != "Team A" || string(w.Settings) != `{"x":1}` {
		t.Fatalf("made %+v", w)
	}
	refused(t, r.ask("POST", "workspaces", `{"slug":"team-a"}`), 409, workspace.CodeExists)
	refused(t, r.ask("POST", "workspaces", `{"plan":"gold"}`), 422, workspace.CodeInvalid, "plan")
	refused(t, r.ask("POST", "workspaces", `{"data_retention":{"unit":"days","value":15}}`), 422, workspace.CodeInvalid, "1 to 14 days")

	patch := func(body string, header ...string) answer {
		return r.ask("PATCH", "workspaces/team-a", body, header...)
	}
	got := decode[workspace.Workspace](t, patch(`{"description":"d","max_concurrent_runs":4}`), 200)
	if *got.Name != "Team A" || got.Description != "d" || got.Limits.MaxConcurrentRuns != 4 {
		t.Errorf("absent name: %+v", got)
	}
	if got = decode[workspace.Workspace](t, patch(`{"name":null}`), 200); got.Name != nil || got.Description != "d" {
		t.Errorf("null name: %+v", got)
	}
	if got = decode[workspace.Workspace](t, patch(`{"name":"B"}`), 200); *got.Name != "B" || got.Slug != "team-a" {
		t.Errorf("name B: %+v", got)
	}
	p := refused(t, patch(`{"name":7}`), 422, workspace.CodeInvalid)
	if p.Fields["name"] == "" {
		t.Errorf("fields %v", p.Fields)
	}
	refused(t, patch(`{"slug":"b"}`), 422, workspace.CodeInvalid, "slug: unexpected property")

	archived := decode[workspace.Workspace](t, r.ask("POST", "workspaces/team-a/archive", ""), 200)
	if !archived.Archived() {
		t.Errorf("archived %+v", archived)
	}
	refused(t, r.ask("POST", "instances", `{"name":"a","workspace":"team-a","template":{"name":"demo"}}`), 409, workspace.CodeWorkspaceArchived)
	refused(t, r.ask("POST", "workspaces/default/archive", ""), 409, workspace.CodeConflict)
	if all := decode[page[workspace.Workspace]](t, r.ask("GET", "workspaces", ""), 200); len(all.Items) != 2 || all.Items[1].ID != w.ID {
		t.Errorf("all %+v", all)
	}
}

func TestIfMatch(t *testing.T) {
	r := newRig(t)
	tag := r.ask("GET", "workspaces/default", "").header.Get("ETag")
	patch := func(tag string) answer {
		return r.ask("PATCH", "workspaces/default", `{"description":"d"}`, "If-Match", tag)
	}
	changed := patch(tag)
	decode[workspace.Workspace](t, changed, 200)
	refused(t, patch(tag), 412, workspace.CodeTooOld, "read it again")
	decode[workspace.Workspace](t, patch(changed.header.Get("ETag")), 200)
	decode[workspace.Workspace](t, patch("*"), 200)
	for _, bad := range []string{`"x"`, `"0"`, `"1", "2"`} {
		refused(t, patch(bad), 400, workspace.CodeMalformed, "If-Match")
	}
}

func TestTemplates(t *testing.T) {
	r := newRig(t)
	const body = `{"name":"mine","image":"demo","kind":"job","variables":[{"name":"x","type":"int"}],"command":["run","${x}"]}`
	made := decode[workspace.Template](t, r.ask("POST", "templates", body), 201)
	if made.CreatedAt.IsZero() || made.BuiltIn {
		t.Errorf("made %+v", made)
	}
	decode[workspace.Template](t, r.ask("POST", "templates", body), 201) // the very same again
	refused(t, r.ask("POST", "templates", strings.Replace(body, "job", "interactive", 1)), 409, workspace.CodeExists, "PUT")
	put := decode[workspace.Template](t, r.ask("PUT", "templates/mine", `{"image":"demo","kind":"interactive"}`), 200)
	if put.Name != "mine" || put.Kind != workspace.KindInteractive || len(put.Variables) != 0 {
		t.Errorf("put %+v", put)
	}
	put = decode[workspace.Template](t, r.ask("PUT", "templates/mine", `{"image":"demo"}`), 200)
	if put.Kind != workspace.KindInteractive || !put.Stoppable || put.StopGrace != 30 {
		t.Errorf("what is absent: %+v", put)
	}
	put = decode[workspace.Template](t, r.ask("PUT", "templates/mine", `{"image":"demo","stoppable":false,"stop_grace_seconds":0}`), 200)
	if put.Stoppable || put.StopGrace != 0 {
		t.Errorf("what is there: %+v", put)
	}
	refused(t, r.ask("PUT", "templates/mine", `{"image":"demo","kind":"service"}`), 422, workspace.CodeInvalid, "kind")
	refused(t, r.ask("PUT", "templates/mine", `{"image":"demo","imgae":"demo"}`), 422, workspace.CodeInvalid, "imgae: unexpected property")
	refused(t, r.ask("PUT", "templates/mine", body[:8]+`"other`+body[13:]), 422, workspace.CodeInvalid, "in the path")
	refused(t, r.ask("PUT", "templates/demo", `{"image":"demo","kind":"job"}`), 409, workspace.CodeConflict, "comes with berth")
	refused(t, r.ask("POST", "templates", `{"name":"x","image":"demo","kind":"job","command":["${y}"]}`), 422, workspace.CodeInvalid, "${y}")
	got := decode[workspace.Template](t, r.ask("GET", "templates/mine", ""), 200)
	if diff := cmp.Diff(put, got); diff != "" {
		t.Error(diff)
	}
	if all := decode[page[workspace.Template]](t, r.ask("GET", "templates", ""), 200); len(all.Items) != 3 {
		t.Errorf("all %+v", all)
	}
	if a := r.ask("DELETE", "templates/mine", ""); a.status != 204 || len(a.body) != 0 {
		t.Errorf("delete: %d %s", a.status, a.body)
	}
	refused(t, r.ask("DELETE", "templates/mine", ""), 404, workspace.CodeNotFound)
	refused(t, r.ask("GET", "templates/mine", ""), 404, workspace.CodeNotFound, "berth template ls")
}

func TestNodesAndDevices(t *testing.T) {
	r := newRig(t)
	nodes := decode[page[workspace.Node]](t, r.ask("GET", "nodes", ""), 200)
	if len(nodes.Items) != 1 || nodes.Items[0].Facts.Name != "host1" {
		t.Fatalf("nodes %+v", nodes)
	}
	for _, ref := range []string{nodeID, "host1"} {
		if n := decode[workspace.Node](t, r.ask("GET", "nodes/"+ref, ""), 200); n.ID != nodeID {
			t.Errorf("%s: %+v", ref, n)
		}
	}
	refused(t, r.ask("GET", "nodes/host2", ""), 404, workspace.CodeNotFound, "berth node ls")
	inst := r.instance("one")
	r.place(inst.Run)
	for query, want := range map[string]int{"": 1, "?state=held": 1, "?state=free": 0, "?node=host1": 1} {
		if got := decode[page[gpu.Device]](t, r.ask("GET", "devices"+query, ""), 200); len(got.Items) != want {
			t.Errorf("%s: %d, want %d", query, len(got.Items), want)
		}
	}
	d := decode[gpu.Device](t, r.ask("GET", "devices/"+gpuUUID, ""), 200)
	if len(d.Holders) != 1 || d.Holders[0].Run != inst.Run {
		t.Errorf("device %+v", d)
	}
	refused(t, r.ask("GET", "devices/GPU-2", ""), 404, workspace.CodeNotFound)
}

func TestExplainAndDryRun(t *testing.T) {
	r := newRig(t)
	inst := r.instance("one")
	why := decode[workspace.Explanation](t, r.ask("GET", "instances/one/explain", ""), 200)
	want := workspace.Explanation{
		Instance: inst.ID, Name: "one", Status: workspace.StatusPending, Reason: inst.Reason, Message: inst.Message, Since: inst.Since,
		Run: inst.Run, Phase: workspace.PhasePending, Placement: &workspace.Placement{Fits: true, Node: nodeID, Message: "it fits on host1"},
	}
	if diff := cmp.Diff(want, why); diff != "" {
		t.Error(diff)
	}
	r.place(inst.Run)
	if why = decode[workspace.Explanation](t, r.ask("GET", "instances/one/explain", ""), 200); why.Placement != nil || why.Phase != workspace.PhaseAssigned {
		t.Errorf("of a placed run: %+v", why)
	}
	dry := func(body string) answer { return r.ask("POST", "placements:dry-run", body) }
	if p := decode[workspace.Placement](t, dry(`{"template":"demo"}`), 200); !p.Fits {
		t.Errorf("demo: %+v", p)
	}
	if p := decode[workspace.Placement](t, dry(`{"template":"demo","resources":{"gpu_count":2}}`), 200); p.Fits || !p.Final || p.Reason != "gpu_count_impossible" {
		t.Errorf("2 GPUs: %+v", p)
	}
	refused(t, dry(`{"template":"nope"}`), 422, workspace.CodeInvalid, "berth template ls")
	refused(t, dry(`{"resources":{"cpu_milli":1}}`), 422, workspace.CodeInvalid, "cpu_milli")
}

func TestStatus(t *testing.T) {
	r := newRig(t)
	inst := r.instance("one")
	r.instance("two")
	r.place(inst.Run)
	r.report(workspace.Report{Health: []workspace.DeviceHealth{{Device: gpuUUID, Health: gpu.Unhealthy, Reason: "xid_79", Message: "fell off the bus"}}})
	s := decode[workspace.Overview](t, r.ask("GET", "status", ""), 200)
	want := workspace.Overview{
		Cluster: s.Cluster, Server: nodeID, Version: "1.2.3", Leader: nodeID, Term: 3, Index: r.index,
		Nodes: workspace.NodeCounts{Total: 1, Ready: 1}, Devices: map[string]int{"held": 1, "unhealthy": 1},
		Runs: map[string]int{"pending": 1, "assigned": 1}, Instances: map[string]int{"PENDING": 2}, Workspaces: 1,
		Warnings: []string{"the clock is unsynchronised", "node host1: its GPUs are SIMULATED, there is no hardware behind them",
			"GPU " + gpuUUID + " is not usable (xid_79): fell off the bus"},
	}
	if diff := cmp.Diff(want, s); diff != "" {
		t.Error(diff)
	}
	facts := r.View().Node(nodeID).Facts
	facts.GPUMessage = "[gpu] exclude names GPU-x"
	r.report(workspace.Report{Facts: &facts})
	s = decode[workspace.Overview](t, r.ask("GET", "status", ""), 200)
	if !strings.Contains(strings.Join(s.Warnings, "\n"), "node host1: [gpu] exclude names GPU-x") {
		t.Errorf("warnings %q", s.Warnings)
	}
	r.report(workspace.Report{Ready: &workspace.Readiness{Reason: "runtime_unavailable", Message: "containerd is gone"}})
	s = decode[workspace.Overview](t, r.ask("GET", "status", ""), 200)
	if s.Nodes.Ready != 0 || !strings.Contains(strings.Join(s.Warnings, "\n"), "host1 is not ready (runtime_unavailable): containerd is gone") {
		t.Errorf("status %+v", s)
	}
}
