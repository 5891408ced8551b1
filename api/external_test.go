package api

import (
	"testing"

	"berth/workspace"
)

func (r *rig) external(body string) workspace.Run {
	r.t.Helper()
	return decode[workspace.Run](r.t, r.ask("POST", "external-runs", body), 201)
}

func TestExternalRun(t *testing.T) {
	r := newRig(t)
	run := r.external(`{"name":"eval","rate_micro_usd_per_hour":3600000000,"lease_seconds":7200}`)
	if run.Kind != workspace.KindExternal || run.Phase != workspace.PhaseRunning || run.User != admin || run.Name != "eval" || run.Lease == nil {
		t.Fatalf("started %+v", run)
	}
	if wants := r.at.Add(7200e9); !run.ExpiresAt.Equal(wants) {
		t.Errorf("its lease ends at %s, want %s", run.ExpiresAt, wants)
	}

	// A look shows what it has cost by now, and renews nothing.
	before := r.index
	seen := decode[workspace.Run](t, r.ask("GET", "runs/"+run.ID, ""), 200)
	if r.index != before || !seen.ExpiresAt.Equal(run.ExpiresAt) {
		t.Error("a GET has written something")
	}
	renewed := decode[workspace.Run](t, r.ask("POST", "external-runs/"+run.ID+"/renew", ""), 200)
	if !renewed.ExpiresAt.After(run.ExpiresAt) || renewed.Cost != 1_000_000 {
		t.Errorf("renewed %+v", renewed)
	}
	if listed := decode[page[workspace.Run]](t, r.ask("GET", "runs?kind=external", ""), 200); len(listed.Items) != 1 || listed.Items[0].Cost != 1_000_000 {
		t.Errorf("listed %+v", listed.Items)
	}
	ended := decode[workspace.Run](t, r.ask("POST", "external-runs/"+run.ID+"/end", `{"phase":"failed","message":"out of disk","exit_code":4}`), 200)
	if ended.Phase != workspace.PhaseFailed || ended.Message != "out of disk" || *ended.ExitCode != 4 || ended.Cost != 2_000_000 {
		t.Errorf("ended %+v", ended)
	}
}

// A denied one has the code of the rule that denies, and the id of what is kept.
func TestDeniedExternalRun(t *testing.T) {
	r := newRig(t)
	r.ask("PATCH", "workspaces/default", `{"max_concurrent_runs":1}`)
	r.external(`{}`)
	p := refused(t, r.ask("POST", "external-runs", `{"name":"second"}`), 409, workspace.CodeConcurrency, "its limit is 1")
	kept := decode[workspace.Run](t, r.ask("GET", "runs/"+p.Run, ""), 200)
	if kept.Phase != workspace.PhaseFailed || kept.Reason != string(workspace.CodeConcurrency) || kept.Name != "second" {
		t.Errorf("kept %+v", kept)
	}
}

func TestBadExternalRuns(t *testing.T) {
	r := newRig(t)
	run := r.external(`{}`)
	over := r.external(`{}`)
	decode[workspace.Run](t, r.ask("POST", "external-runs/"+over.ID+"/end", `{}`), 200)
	inside := r.instance("one")
	for name, c := range map[string]struct {
		path, body string
		status     int
		code       workspace.Code
		says       string
	}{
		"rate":            {"external-runs", `{"rate_micro_usd_per_hour":-1}`, 422, workspace.CodeInvalid, "rate_micro_usd_per_hour"},
		"rate too high":   {"external-runs", `{"rate_micro_usd_per_hour":9007199254740992}`, 422, workspace.CodeInvalid, "rate_micro_usd_per_hour"},
		"lease":           {"external-runs", `{"lease_seconds":-5}`, 422, workspace.CodeInvalid, "lease_seconds"},
		"short lease":     {"external-runs", `{"lease_seconds":5}`, 422, workspace.CodeInvalid, "5 is outside 60"},
		"long lease":      {"external-runs", `{"lease_seconds":9223372036854775807}`, 422, workspace.CodeInvalid, "(30 days)"},
		"workspace":       {"external-runs", `{"workspace":"nope"}`, 404, workspace.CodeNotFound, "berth workspace ls"},
		"unknown field":   {"external-runs", `{"gpus":1}`, 422, workspace.CodeInvalid, "unexpected property"},
		"phase":           {"external-runs/" + run.ID + "/end", `{"phase":"done"}`, 422, workspace.CodeInvalid, "succeeded, failed, stopped"},
		"lost":            {"external-runs/" + run.ID + "/end", `{"phase":"lost"}`, 422, workspace.CodeInvalid, "succeeded, failed, stopped"},
		"end twice":       {"external-runs/" + over.ID + "/end", `{}`, 409, workspace.CodeConflict, "has ended: it is succeeded"},
		"renew ended":     {"external-runs/" + over.ID + "/renew", ``, 409, workspace.CodeConflict, "has ended"},
		"not external":    {"external-runs/" + inside.Run + "/end", `{}`, 409, workspace.CodeConflict, "is no external one"},
		"renew what runs": {"external-runs/" + inside.Run + "/renew", ``, 409, workspace.CodeConflict, "is no external one"},
		"unknown":         {"external-runs/nope/renew", ``, 404, workspace.CodeNotFound, "berth run ls"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, r.ask("POST", c.path, c.body), c.status, c.code, c.says) })
	}
	// Who isn't in the workspace sees none of it.
	eve := Principal{User: "eve", Role: workspace.RoleMember}
	for _, path := range []string{"external-runs/" + run.ID + "/renew", "external-runs/" + run.ID + "/end"} {
		body := ""
		if path[len(path)-3:] == "end" {
			body = `{}`
		}
		refused(t, r.askAs(eve, "POST", path, body), 404, workspace.CodeNotFound)
	}
	refused(t, r.askAs(eve, "POST", "external-runs", `{}`), 404, workspace.CodeNotFound)
}

// A request that is sent again starts no second run; a denial is judged anew.
func TestExternalRunAgain(t *testing.T) {
	r := newRig(t)
	r.ask("PATCH", "workspaces/default", `{"max_concurrent_runs":1}`)
	first := r.externalAs("k1")
	if again := r.externalAs("k1"); again.status != 201 || decode[workspace.Run](t, again, 201).ID != decode[workspace.Run](t, first, 201).ID {
		t.Errorf("again: %d %s", again.status, again.body)
	}
	refused(t, r.externalAs("k2"), 409, workspace.CodeConcurrency)
	r.ask("PATCH", "workspaces/default", `{"max_concurrent_runs":2}`)
	run := decode[workspace.Run](t, r.externalAs("k2"), 201)
	if again := decode[workspace.Run](t, r.externalAs("k2"), 201); again.ID != run.ID || run.Phase != workspace.PhaseRunning {
		t.Errorf("the limit was raised: run %s is %s, again run %s", run.ID, run.Phase, again.ID)
	}
}

func (r *rig) externalAs(key string) answer {
	return r.ask("POST", "external-runs", `{}`, "Idempotency-Key", key)
}
