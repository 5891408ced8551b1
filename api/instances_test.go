package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

func TestInstanceLife(t *testing.T) {
	r := newRig(t)
	made := r.instance("one")
	if made.Status != workspace.StatusPending || made.Run == "" || made.Owner != admin || made.Resources.GPUCount != 1 {
		t.Fatalf("made %+v", made)
	}
	run := decode[workspace.Run](t, r.ask("GET", "runs/"+made.Run, ""), 200)
	if run.Spec.ImageDigest != digest {
		t.Errorf("the image isn't pinned: %+v", run.Spec)
	}
	r.place(made.Run)
	r.phase(made.Run, workspace.PhaseRunning, "started")
	got := decode[workspace.Instance](t, r.ask("GET", "instances/one", ""), 200)
	if got.Status != workspace.StatusRunning {
		t.Fatalf("got %+v", got)
	}
	byID := r.ask("GET", "instances/"+got.ID, "")
	if diff := cmp.Diff(got, decode[workspace.Instance](t, byID, 200)); diff != "" {
		t.Error(diff)
	}
	if byID.header.Get("ETag") != etag(got.ModifyIndex) || byID.header.Get("X-Berth-Index") == "" {
		t.Errorf("headers %v", byID.header)
	}

	again := decode[workspace.Instance](t, r.ask("POST", "instances/one/restart", ""), 200)
	if again.NextRun == "" || again.Status != workspace.StatusPending {
		t.Errorf("restarted %+v", again)
	}
	stopped := decode[workspace.Instance](t, r.ask("POST", "instances/one/stop", ""), 200)
	if stopped.Desired != workspace.DesiredStopped || stopped.NextRun != "" {
		t.Errorf("stopped %+v", stopped)
	}
	r.phase(made.Run, workspace.PhaseStopped, "stopped")
	started := decode[workspace.Instance](t, r.ask("POST", "instances/one/start", ""), 200)
	if started.Run == made.Run || started.Status != workspace.StatusPending {
		t.Errorf("started %+v", started)
	}
	runs := decode[page[workspace.Run]](t, r.ask("GET", "instances/one/runs", ""), 200)
	if len(runs.Items) != 2 || runs.Items[0].ID != made.Run || runs.Items[1].Replaces != made.Run {
		t.Errorf("runs %+v", runs)
	}

	// Its pending run ends at once, and so it is gone at once.
	gone := decode[workspace.Instance](t, r.ask("DELETE", "instances/one", ""), 200)
	if gone.ID != made.ID || gone.Status != workspace.StatusDeleted || gone.Desired != workspace.DesiredDeleted {
		t.Errorf("deleted %+v", gone)
	}
	refused(t, r.ask("GET", "instances/"+made.ID, ""), 404, workspace.CodeNotFound, "berth instance ls")
}

func TestCreateInstance(t *testing.T) {
	r := newRig(t)
	cases := []struct {
		name, body string
		status     int
		code       workspace.Code
		field      string
		says       string
	}{
		{"unknown field", `{"name":"a","template":{"name":"demo"},"gpus":1}`, 422, workspace.CodeInvalid, "gpus", "unexpected property"},
		{"unknown nested field", `{"name":"a","template":{"name":"demo"},"resources":{"gpu":1}}`, 422, workspace.CodeInvalid, "resources.gpu", "unexpected"},
		{"wrong type", `{"name":"a","template":{"name":"demo"},"resources":{"gpu_count":"1"}}`, 422, workspace.CodeInvalid, "resources.gpu_count", "integer"},
		{"no name", `{"template":{"name":"demo"}}`, 422, workspace.CodeInvalid, "", "name"},
		{"bad name", `{"name":"A_b","template":{"name":"demo"}}`, 422, workspace.CodeInvalid, "name", "a-z"},
		{"no template", `{"name":"a","template":{"name":"nope"}}`, 422, workspace.CodeInvalid, "template.name", "berth template ls"},
		{"unknown variable", `{"name":"a","template":{"name":"demo","variables":{"prot":"1"}}}`, 422, workspace.CodeInvalid, "template.variables.prot", "it has port"},
		{"missing variable", `{"name":"a","template":{"name":"secretive"}}`, 422, workspace.CodeInvalid, "template.variables.password", "is required"},
		{"too many GPUs", `{"name":"a","template":{"name":"demo"},"resources":{"gpu_count":65}}`, 422, workspace.CodeInvalid, "resources.gpu_count", "65"},
		{"unknown workspace", `{"name":"a","workspace":"nope","template":{"name":"demo"}}`, 404, workspace.CodeNotFound, "", "berth workspace ls"},
		{"no JSON", `{"name":`, 400, workspace.CodeMalformed, "", "JSON"},
		{"no body", ``, 400, workspace.CodeMalformed, "", "required"},
		{"no object", `[]`, 422, workspace.CodeInvalid, "", "object"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := refused(t, r.ask("POST", "instances", c.body), c.status, c.code, c.says)
			if _, ok := p.Fields[c.field]; c.field != "" && !ok {
				t.Errorf("fields %v lack %q", p.Fields, c.field)
			}
		})
	}
	if n := len(decode[page[workspace.Instance]](t, r.ask("GET", "instances", ""), 200).Items); n != 0 {
		t.Errorf("%d instances were stored", n)
	}
	r.instance("a")
	refused(t, r.ask("POST", "instances", `{"name":"a","template":{"name":"demo"}}`), 409, workspace.CodeExists, "exists in workspace default")
	stopped := decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"b","template":{"name":"demo"},"start":false}`), 201)
	if stopped.Status != workspace.StatusStopped || stopped.Run != "" {
		t.Errorf("start: false made %+v", stopped)
	}
}

func TestImageOnNoNode(t *testing.T) {
	r := newRig(t)
	r.ask("POST", "templates", `{"name":"other","image":"lost:v1","kind":"interactive"}`)
	p := refused(t, r.ask("POST", "instances", `{"name":"a","template":{"name":"other"}}`), 422, workspace.CodeInvalid,
		`"lost:v1"`, "host1", "berth image import FILE")
	if p.Fields["template.image"] == "" {
		t.Errorf("fields %v", p.Fields)
	}
}

func TestStartFindsTheImageAgain(t *testing.T) {
	r := newRig(t)
	inst := r.instance("one")
	r.ask("POST", "instances/one/stop", "")
	newer := strings.Replace(digest, "1", "2", 1)
	r.report(workspace.Report{Images: &[]workspace.NodeImage{{Reference: "docker.io/library/demo:latest", Digest: newer}}})
	started := decode[workspace.Instance](t, r.ask("POST", "instances/one/start", ""), 200)
	if run := r.View().Run(started.Run); run.Spec.ImageDigest != newer {
		t.Errorf("start runs %s, want what the name means now, %s", run.Spec.ImageDigest, newer)
	}
	r.report(workspace.Report{Images: &[]workspace.NodeImage{}})
	if a := r.ask("POST", "instances/one/start", ""); a.status != 200 {
		t.Errorf("start of a started instance: %s", a.body)
	}
	r.ask("POST", "instances/one/stop", "")
	refused(t, r.ask("POST", "instances/"+inst.ID+"/start", ""), 422, workspace.CodeInvalid, "berth image import FILE")
}

func TestReferences(t *testing.T) {
	r := newRig(t)
	for _, image := range []string{"demo", "demo:latest", "library/demo", "docker.io/library/demo", "docker.io/library/demo:latest", "docker.io/demo", "demo@" + digest} {
		if got := (&reader{View: r.View()}).pinned(image); got != digest {
			t.Errorf("%s: %q", image, got)
		}
	}
	for _, image := range []string{"demo:v1", "example.org/demo", "localhost:5000/demo", "demos", "other/demo", ""} {
		if got := (&reader{View: r.View()}).pinned(image); got != "" {
			t.Errorf("%s was found: %s", image, got)
		}
	}
}

func TestSecretsStaySealed(t *testing.T) {
	r := newRig(t)
	a := r.ask("POST", "instances", `{"name":"s","template":{"name":"secretive","variables":{"password":"hunter2"}}}`)
	inst := decode[workspace.Instance](t, a, 201)
	if strings.Contains(string(a.body), "hunter2") {
		t.Errorf("the secret is in the answer: %s", a.body)
	}
	if got := string(r.View().Instance(inst.ID).Secrets["password"].Sealed); got != "HUNTER2" {
		t.Errorf("sealed as %q", got)
	}
	// A refusal doesn't repeat it either.
	a = r.ask("POST", "instances", `{"name":"s2","template":{"name":"secretive","variables":{"password":["hunter2"]}}}`)
	if refused(t, a, 422, workspace.CodeInvalid); strings.Contains(string(a.body), "hunter2") {
		t.Errorf("the secret is in the refusal: %s", a.body)
	}
}

func TestInstanceFiltersAndWorkspaces(t *testing.T) {
	r := newRig(t)
	w := decode[workspace.Workspace](t, r.ask("POST", "workspaces", `{"name":"Team A"}`), 201)
	r.instance("one")
	two := r.instance("two")
	r.ask("POST", "instances/two/stop", "")
	other := decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"one","workspace":"team-a","template":{"name":"demo"}}`), 201)
	headed := decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"three","template":{"name":"demo"}}`, "X-Berth-Workspace", w.ID), 201)
	if other.Workspace != w.ID || headed.Workspace != w.ID {
		t.Errorf("%s and %s aren't in %s", other.Workspace, headed.Workspace, w.ID)
	}
	for query, want := range map[string]string{
		"": "one two", "?status=STOPPED": "two", "?name=one": "one", "?workspace=team-a": "one three",
		"?workspace=" + w.ID + "&name=three": "three", "?workspace=*": "one two one three",
	} {
		a := r.ask("GET", "instances"+query, "")
		var names []string
		for _, i := range decode[page[workspace.Instance]](t, a, 200).Items {
			names = append(names, i.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	if got := decode[workspace.Instance](t, r.ask("GET", "instances/one?workspace=team-a", ""), 200); got.ID != other.ID {
		t.Errorf("one in team-a is %s", got.ID)
	}
	refused(t, r.ask("GET", "instances?status=running", ""), 422, workspace.CodeInvalid, "query.status")
	refused(t, r.ask("GET", "instances?state=free", ""), 422, workspace.CodeInvalid, "query.state", "unknown")
	refused(t, r.ask("GET", "instances/three", ""), 404, workspace.CodeNotFound, "in workspace default")
	if runs := decode[page[workspace.Run]](t, r.ask("GET", "runs?instance="+two.ID+"&phase=stopped", ""), 200); len(runs.Items) != 1 {
		t.Errorf("runs of two: %+v", runs)
	}
	if runs := decode[page[workspace.Run]](t, r.ask("GET", "runs?node=host1", ""), 200); len(runs.Items) != 0 {
		t.Errorf("runs of host1: %+v", runs)
	}
}

func TestOnlyMembersSee(t *testing.T) {
	r := newRig(t)
	inst := r.instance("one")
	stranger := Principal{User: "eve", Role: workspace.RoleMember}
	for _, path := range []string{"instances/" + inst.ID, "runs/" + inst.Run, "workspaces/default", "instances", "instances/one/wait"} {
		refused(t, r.askAs(stranger, "GET", path, ""), 404, workspace.CodeNotFound)
	}
	for _, path := range []string{"workspaces", "instances?workspace=*", "runs?workspace=*"} {
		if a := r.askAs(stranger, "GET", path, ""); a.header.Get("X-Total-Count") != "0" {
			t.Errorf("%s shows %s", path, a.body)
		}
	}
	for _, e := range decode[page[workspace.Event]](t, r.askAs(stranger, "GET", "events?limit=500", ""), 200).Items {
		if e.Workspace != "" {
			t.Errorf("a stranger sees %+v", e)
		}
	}
	refused(t, r.askAs(stranger, "DELETE", "instances/"+inst.ID, ""), 404, workspace.CodeNotFound)
	refused(t, r.askAs(stranger, "POST", "images", "x", "Content-Type", "application/x-tar"), 403, workspace.CodeDenied)
	refused(t, r.askAs(stranger, "POST", "workspaces", `{}`), 403, workspace.CodeDenied)
	refused(t, r.askAs(Principal{}, "GET", "workspaces", ""), 401, workspace.CodeUnauthorized)
}
