package api

import (
	"strings"
	"testing"
	"time"

	"berth/state"
	"berth/workspace"
)

func TestMaxDuration(t *testing.T) {
	r := newRig(t)
	bounded := `{"name":"bounded","image":"demo","kind":"job","max_duration_seconds":60}`
	decode[workspace.Template](t, r.ask("POST", "templates", bounded), 201)
	of := func(body string) int64 {
		t.Helper()
		inst := decode[workspace.Instance](t, r.ask("POST", "instances", body), 201)
		return decode[workspace.Run](t, r.ask("GET", "runs/"+inst.Run, ""), 200).Spec.MaxDuration
	}
	for body, want := range map[string]int64{
		`{"name":"a","template":{"name":"bounded"}}`:                                60,
		`{"name":"b","template":{"name":"bounded"},"max_duration_seconds":7200}`:    7200,
		`{"name":"c","template":{"name":"bounded"},"max_duration_seconds":0}`:       0,
		`{"name":"d","template":{"name":"bounded"},"max_duration_seconds":2592000}`: 2592000,
	} {
		if got := of(body); got != want {
			t.Errorf("%s: %d seconds, want %d", body, got, want)
		}
	}
}

// Each body is refused with the field that is wrong, and the rule.
func TestBadLifetimes(t *testing.T) {
	r := newRig(t)
	inst := r.instance("one")
	of := func(fields string) string { return `{"name":"x","template":{"name":"demo"},` + fields + `}` }
	for name, c := range map[string]struct{ method, path, body, field, says string }{
		"negative":          {"POST", "instances", of(`"max_duration_seconds":-1`), "max_duration_seconds", ">= 0"},
		"31 days":           {"POST", "instances", of(`"max_duration_seconds":2678400`), "max_duration_seconds", "(30 days)"},
		"fraction":          {"POST", "instances", of(`"max_duration_seconds":1.5`), "max_duration_seconds", "integer"},
		"template":          {"POST", "templates", `{"name":"t","image":"demo","max_duration_seconds":-5}`, "max_duration_seconds", ">= 0"},
		"retries":           {"POST", "instances", of(`"restart_policy":{"max_restarts":-1}`), "restart_policy.max_restarts", ">= 0"},
		"zone":              {"POST", "instances", of(`"to_be_deleted_at":"2030-01-02T15:04:05+02:00"`), "to_be_deleted_at", "2030-01-02T13:04:05Z"},
		"zone of no offset": {"POST", "instances", of(`"to_be_deleted_at":"2030-01-02T15:04:05+00:00"`), "to_be_deleted_at", "end in Z"},
		"no time":           {"POST", "instances", of(`"to_be_deleted_at":"tomorrow"`), "to_be_deleted_at", "date-time"},
		"extend, zone":      {"POST", "instances/" + inst.ID + "/extend", `{"to_be_deleted_at":"2030-01-02T15:04:05-08:00"}`, "to_be_deleted_at", "2030-01-02T23:04:05Z"},
		"extend, nothing":   {"POST", "instances/" + inst.ID + "/extend", `{}`, "", "to_be_deleted_at"},
		"kind":              {"GET", "instances?kind=external", "", "query.kind", "interactive, job"},
	} {
		t.Run(name, func(t *testing.T) {
			p := refused(t, r.ask(c.method, c.path, c.body), 422, workspace.CodeInvalid, c.says)
			if p.Fields[c.field] == "" && c.field != "" {
				t.Errorf("fields %v lack %q", p.Fields, c.field)
			}
		})
	}
}

func TestKinds(t *testing.T) {
	r := newRig(t)
	decode[workspace.Template](t, r.ask("POST", "templates", `{"name":"batch","image":"demo","kind":"job"}`), 201)
	r.instance("one")
	job := decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"two","template":{"name":"batch"}}`), 201)
	only := decode[page[workspace.Instance]](t, r.ask("GET", "instances?kind=job", ""), 200)
	if len(only.Items) != 1 || only.Items[0].ID != job.ID || only.Items[0].Kind != workspace.KindJob {
		t.Errorf("jobs %+v", only.Items)
	}
	r.ask("POST", "instances/two/stop", "")
	again := decode[workspace.Instance](t, r.ask("POST", "instances/two/start", ""), 200)
	for query, want := range map[string]int{"kind=job": 2, "kind=job&latest=true": 1, "kind=external": 0, "latest=true": 2} {
		runs := decode[page[workspace.Run]](t, r.ask("GET", "runs?"+query, ""), 200)
		if len(runs.Items) != want {
			t.Errorf("%s: %d runs, want %d", query, len(runs.Items), want)
		}
		if query == "kind=job&latest=true" && runs.Items[0].ID != again.Run {
			t.Errorf("the latest run of the job is %s, not %s", runs.Items[0].ID, again.Run)
		}
	}
}

func TestRetentionText(t *testing.T) {
	for hours, want := range map[int]string{1: "1 hour", 23: "23 hours", 24: "1 day", 36: "36 hours", 168: "7 days"} {
		if got := retentionText(hours); got != want {
			t.Errorf("%d hours are %q, want %q", hours, got, want)
		}
	}
}

func TestKeptOutput(t *testing.T) {
	run := &workspace.Run{ID: "r", Results: workspace.ResultsKept, ResultsUntil: time.Date(2026, 1, 9, 3, 0, 0, 0, time.UTC),
		Spec: workspace.RunSpec{RetentionHours: 168}}
	if err := keptOutput(run); err != nil {
		t.Error(err)
	}
	run.Results = workspace.ResultsDeleted
	err := keptOutput(run)
	if workspace.CodeOf(err) != workspace.CodeConflict || err.Error() != "conflict: the output of run r was deleted on 2026-01-09 03:00 UTC (data_retention 7 days): what is kept elsewhere, such as on its volume, stays" {
		t.Error(err)
	}
}

func TestExtend(t *testing.T) {
	r := newRig(t)
	inst := decode[workspace.Instance](t, r.ask("POST", "instances",
		`{"name":"one","template":{"name":"demo"},"to_be_deleted_at":"2026-01-02T03:30:00.123456789Z"}`), 201)
	if got := inst.ToBeDeletedAt.Format(time.RFC3339Nano); got != "2026-01-02T03:30:00.123456Z" {
		t.Errorf("it is deleted at %s", got)
	}
	r.as(workspace.RoleSystem, "leader", &state.Sweep{})
	warned := decode[workspace.Instance](t, r.ask("GET", "instances/one", ""), 200)
	if len(warned.Warnings) != 1 || warned.Warnings[0].Reason != "lifetime" || warned.Warning == nil {
		t.Fatalf("warnings %+v", warned.Warnings)
	}
	for _, a := range []answer{r.ask("GET", "instances", ""), r.ask("GET", "instances/one/wait?timeout=0s", ""), r.ask("POST", "instances/one/start", "")} {
		if !strings.Contains(string(a.body), `"warnings":[{"reason":"lifetime"`) {
			t.Errorf("without its warnings: %s", a.body)
		}
	}
	ending := decode[workspace.Overview](t, r.ask("GET", "status", ""), 200).Ending
	if len(ending) != 1 || ending[0].Name != "one" || ending[0].Reason != "lifetime" || ending[0].Run != inst.Run {
		t.Errorf("ending %+v", ending)
	}
	refused(t, r.ask("POST", "instances/one/extend", `{"to_be_deleted_at":"2026-01-02T03:04:00Z"}`), 422, workspace.CodeInvalid, "has passed")
	later := decode[workspace.Instance](t, r.ask("POST", "instances/one/extend", `{"to_be_deleted_at":"2026-01-03T03:30:00Z"}`), 200)
	if later.ToBeDeletedAt.Day() != 3 || later.Warnings != nil {
		t.Errorf("extended %+v", later)
	}
	never := decode[workspace.Instance](t, r.ask("POST", "instances/one/extend", `{"to_be_deleted_at":null}`), 200)
	if !never.ToBeDeletedAt.IsZero() {
		t.Errorf("never is %s", never.ToBeDeletedAt)
	}
	eve := Principal{User: "eve", Role: workspace.RoleMember}
	refused(t, r.askAs(eve, "POST", "instances/"+inst.ID+"/extend", `{"to_be_deleted_at":null}`), 404, workspace.CodeNotFound)
	refused(t, r.ask("POST", "instances", `{"name":"two","template":{"name":"demo"},"to_be_deleted_at":"2025-01-02T03:04:05Z"}`),
		422, workspace.CodeInvalid, "has passed")
}

// A run that the budget doesn't pay for longer says so on its instance and on
// itself, with its lease and what it has cost.
func TestBudgetWarning(t *testing.T) {
	r := newRig(t)
	r.as(workspace.RoleClusterAdmin, admin, &state.SetPrice{Resource: "gpu", GPUType: "*", Amount: 3_600_000})
	budget, w := int64(1_000_000), r.View().DefaultWorkspace().ID
	r.as(workspace.RoleClusterAdmin, admin, &state.UpdateWorkspace{ID: w, DailyBudget: workspace.Optional[int64]{Set: true, Value: &budget}})
	inst := r.instance("one")
	r.place(inst.Run)
	r.phase(inst.Run, workspace.PhaseRunning, "started")
	stamp := func(ms int64) workspace.Stamp { return workspace.Stamp{BootID: "boot", BoottimeMS: 1000 + ms} }
	for _, lived := range []int64{1, 500_000} {
		r.as(workspace.RoleSystem, "leader", &state.RenewLeases{Node: nodeID, Stamp: stamp(lived),
			Runs: []workspace.Livedness{{Run: inst.Run, LivedMS: lived}}})
	}
	run := decode[workspace.Run](t, r.ask("GET", "runs/"+inst.Run, ""), 200)
	if run.Lease == nil || !run.Lease.Hard || run.Cost != 500_000 || run.ChargedMS != 500_000 || run.Warning == nil {
		t.Fatalf("run %+v", run)
	}
	got := decode[workspace.Instance](t, r.ask("GET", "instances/one", ""), 200)
	if got.Warning != nil || len(got.Warnings) != 1 || got.Warnings[0].Reason != string(workspace.CodeWorkspaceBudget) {
		t.Errorf("warnings %+v", got.Warnings)
	}
	listed := decode[page[workspace.Run]](t, r.ask("GET", "instances/one/runs", ""), 200)
	if len(listed.Items) != 1 || listed.Items[0].Cost != 500_000 {
		t.Errorf("listed %+v", listed.Items)
	}
}

// Output is there as long as it is kept; then the answer says when it went.
func TestOutputAfterRetention(t *testing.T) {
	r := newRig(t)
	r.agent = &testAgent{}
	inst := r.instance("one")
	r.place(inst.Run)
	r.phase(inst.Run, workspace.PhaseRunning, "started")
	r.phase(inst.Run, workspace.PhaseFailed, "exited")
	run := decode[workspace.Run](t, r.ask("GET", "runs/"+inst.Run, ""), 200)
	if run.Results != workspace.ResultsKept || run.ResultsUntil.Sub(run.Times.Ended) != 7*24*time.Hour {
		t.Fatalf("results %s until %s", run.Results, run.ResultsUntil)
	}
	r.at = r.at.Add(8 * 24 * time.Hour)
	r.as(workspace.RoleSystem, "leader", &state.Sweep{})
	for _, want := range []workspace.Results{workspace.ResultsDeleting, workspace.ResultsDeleted} {
		if got := decode[workspace.Run](t, r.ask("GET", "runs/"+inst.Run, ""), 200).Results; got != want {
			t.Errorf("results %s, want %s", got, want)
		}
		refused(t, r.ask("GET", "instances/one/logs", ""), 409, workspace.CodeConflict, "was deleted on 2026-01-09 03:04 UTC (data_retention 7 days)")
		r.report(workspace.Report{Expired: []string{inst.Run}})
	}
}

func TestDeleteWorkspace(t *testing.T) {
	r := newRig(t)
	w := decode[workspace.Workspace](t, r.ask("POST", "workspaces", `{"slug":"team"}`), 201)
	inst := decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"one","workspace":"team","template":{"name":"demo"}}`), 201)
	eve := Principal{User: "eve", Role: workspace.RoleMember}
	refused(t, r.askAs(eve, "DELETE", "workspaces/team", ""), 404, workspace.CodeNotFound)
	for range 2 { // the second is the first, sent again
		if a := r.ask("DELETE", "workspaces/team", "", "Idempotency-Key", "k"); a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	refused(t, r.ask("DELETE", "workspaces/team", ""), 404, workspace.CodeNotFound)
	refused(t, r.ask("GET", "workspaces/"+w.ID, ""), 404, workspace.CodeNotFound)
	for _, listed := range decode[page[workspace.Workspace]](t, r.ask("GET", "workspaces", ""), 200).Items {
		if listed.Slug == "team" {
			t.Error("it is listed")
		}
	}
	if run := r.View().Run(inst.Run); run.Phase != workspace.PhaseStopped {
		t.Errorf("its run is %s", run.Phase)
	}
	refused(t, r.ask("DELETE", "workspaces/default", ""), 409, workspace.CodeConflict, "default workspace")
	refused(t, r.ask("POST", "workspaces", `{"slug":"team"}`), 409, workspace.CodeExists, "taken")
}
