package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

func (r *rig) putTemplate(tmpl workspace.Template) {
	r.t.Helper()
	r.as(workspace.RoleClusterAdmin, admin, &state.PutTemplate{Template: tmpl})
}

func pullEvents(t *testing.T, a answer) []workspace.PullEvent {
	t.Helper()
	if a.status != 200 || a.header.Get("Content-Type") != ndjson {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	var events []workspace.PullEvent
	for lines := json.NewDecoder(bytes.NewReader(a.body)); lines.More(); {
		var e workspace.PullEvent
		if err := lines.Decode(&e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// In a bubble: no patience passes on a busy machine.
func TestPullImage(t *testing.T) {
	synctest.Test(t, testPullImage)
}

func testPullImage(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	half := workspace.PullProgress{Reference: "ghcr.io/a/b:1", DoneBytes: 5, TotalBytes: 10, Layers: 2, LayersDone: 1}
	var got []workspace.ImageSource
	agent.pull = func(_ context.Context, source workspace.ImageSource, progress func(workspace.PullProgress)) (workspace.NodeImage, error) {
		got = append(got, source)
		progress(half)
		progress(half) // too soon for another line
		agent.imported()
		return agent.images[0], nil
	}
	r.ask("PUT", "registries/ghcr.io", `{"username":"alice","password":"hunter2"}`)
	events := pullEvents(t, r.ask("POST", "images/pull", `{"reference":"ghcr.io/a/b:1","node":"host1"}`))
	if diff := cmp.Diff([]workspace.PullEvent{{Progress: &half}, {Image: &agent.images[0]}}, events); diff != "" {
		t.Error(diff)
	}
	pullEvents(t, r.ask("POST", "images/pull", `{"reference":"other.io/a/b:1"}`))
	if l := got[0].Login; l == nil || l.Host != "ghcr.io" || l.Username != "alice" || l.Password.Reveal() != "hunter2" {
		t.Errorf("login %+v", l)
	}
	if got[1].Login != nil {
		t.Errorf("another registry got the login %+v", got[1].Login)
	}

	wrong := workspace.Errorf(workspace.CodeDenied, "registry ghcr.io refuses alice")
	agent.pull = func(_ context.Context, _ workspace.ImageSource, progress func(workspace.PullProgress)) (workspace.NodeImage, error) {
		progress(half)
		return workspace.NodeImage{}, wrong
	}
	events = pullEvents(t, r.ask("POST", "images/pull", `{"reference":"ghcr.io/a/b:1"}`))
	if last := events[len(events)-1]; last.Error == nil || last.Error.Code != wrong.Code || last.Error.Message != wrong.Message {
		t.Errorf("events %+v", events)
	}
	// Before anything was said it is a problem like others.
	agent.pull = func(context.Context, workspace.ImageSource, func(workspace.PullProgress)) (workspace.NodeImage, error) {
		return workspace.NodeImage{}, wrong
	}
	refused(t, r.ask("POST", "images/pull", `{"reference":"ghcr.io/a/b:1"}`), 403, workspace.CodeDenied, "refuses alice")
	refused(t, r.ask("POST", "images/pull", `{}`), 422, workspace.CodeInvalid, "reference")
	refused(t, r.ask("POST", "images/pull", `{"reference":"x","node":"host2"}`), 404, workspace.CodeNotFound)
	refused(t, r.askAs(Principal{User: "eve", Role: workspace.RoleMember}, "POST", "images/pull", `{"reference":"x"}`), 403, workspace.CodeDenied)
}

// A name that no node has is the registry's to explain.
func TestPinByRegistry(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	newer := "sha256:" + strings.Repeat("2", 64)
	var asked []workspace.ImageSource
	answer, failure := newer, error(nil)
	agent.resolve = func(source workspace.ImageSource) (string, error) {
		asked = append(asked, source)
		return answer, failure
	}
	r.ask("PUT", "registries/registry.lab:5000", `{"username":"alice","password":"hunter2"}`)
	r.putTemplate(workspace.Template{Name: "far", Image: "registry.lab:5000/train:v1", Kind: workspace.KindInteractive, Stoppable: true})
	inst := decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"far","template":{"name":"far"}}`), 201)
	if run := r.View().Run(inst.Run); run.Spec.ImageDigest != newer {
		t.Errorf("pinned %s", run.Spec.ImageDigest)
	}
	if len(asked) != 1 || asked[0].Reference != "registry.lab:5000/train:v1" || asked[0].Login == nil || asked[0].Login.Password.Reveal() != "hunter2" {
		t.Errorf("asked for %+v", asked)
	}
	r.instance("near") // a node has its image: no registry is asked
	r.ask("POST", "instances/far/stop", "")
	answer = "sha256:" + strings.Repeat("3", 64)
	again := decode[workspace.Instance](t, r.ask("POST", "instances/far/start", ""), 200)
	if run := r.View().Run(again.Run); run.Spec.ImageDigest != answer || len(asked) != 2 {
		t.Errorf("started with %s after %d questions", run.Spec.ImageDigest, len(asked))
	}
	// What a node still has of it needs no registry.
	r.ask("POST", "instances/far/stop", "")
	r.report(workspace.Report{Images: &[]workspace.NodeImage{{Reference: "kept@" + answer, Digest: answer}}})
	decode[workspace.Instance](t, r.ask("POST", "instances/far/start", ""), 200)
	if len(asked) != 2 {
		t.Errorf("%d questions", len(asked))
	}
	for _, err := range []error{workspace.Errorf(workspace.CodeUnavailable, "it can't be reached"), errors.New("it can't be reached"), nil} {
		answer, failure = "", err
		says := "it can't be reached"
		if err == nil {
			says = "no such image"
		}
		p := refused(t, r.ask("POST", "instances", `{"name":"x","template":{"name":"far"}}`), 422, workspace.CodeInvalid,
			"on no node (looked among the images of host1)", "registry registry.lab:5000", says)
		if p.Fields["template.image"] == "" {
			t.Errorf("fields %v", p.Fields)
		}
	}
}

func TestPullProgressShows(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	inst := r.instance("one")
	r.place(inst.Run)
	r.phase(inst.Run, workspace.PhasePulling, "pulling_image")
	index := r.View().Index()
	for _, c := range []struct {
		p    workspace.PullProgress
		want string
	}{
		{workspace.PullProgress{Reference: "demo", DoneBytes: 43 << 20, TotalBytes: 100 << 20, Layers: 5, LayersDone: 2}, "43 % of demo, 43 of 100 MiB, 2 of 5 layers"},
		{workspace.PullProgress{Reference: "demo"}, "0 % of demo, its size isn't known yet"},
		{workspace.PullProgress{Reference: "demo", DoneBytes: 5, TotalBytes: 5, Unpacking: true}, "100 % of demo, unpacking"},
	} {
		agent.pulling = map[string]workspace.PullProgress{inst.Run: c.p}
		got := decode[workspace.Instance](t, r.ask("GET", "instances/one", ""), 200)
		list := decode[page[workspace.Instance]](t, r.ask("GET", "instances", ""), 200)
		waited := decode[workspace.Instance](t, r.ask("GET", "instances/one/wait?timeout=0s", ""), 200)
		why := decode[workspace.Explanation](t, r.ask("GET", "instances/one/explain", ""), 200)
		for _, message := range []string{got.Message, list.Items[0].Message, waited.Message, why.Message} {
			if message != c.want || got.Reason != "pulling_image" {
				t.Errorf("%s: %q, want %q", got.Reason, message, c.want)
			}
		}
	}
	if r.View().Index() != index || r.View().Instance(inst.ID).Message != "said the node" {
		t.Error("progress is in the state")
	}
	r.phase(inst.Run, workspace.PhaseRunning, "running")
	if got := decode[workspace.Instance](t, r.ask("GET", "instances/one", ""), 200); got.Message != "said the node" {
		t.Errorf("a running one: %q", got.Message)
	}
}

func TestRegistries(t *testing.T) {
	r := newRig(t)
	a := r.ask("PUT", "registries/GHCR.io", `{"username":"alice","password":"hunter2"}`)
	if x := decode[workspace.Registry](t, a, 200); x.Host != "ghcr.io" || x.Username != "alice" {
		t.Errorf("%+v", x)
	}
	if got := string(r.View().Registry("ghcr.io").Password.Sealed); got != "HUNTER2" {
		t.Errorf("sealed as %q", got)
	}
	for _, path := range []string{"registries", "registries/ghcr.io"} {
		got := r.ask("GET", path, "")
		if got.status != 200 || strings.Contains(strings.ToLower(string(got.body)+string(a.body)), "hunter2") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	refused(t, r.ask("PUT", "registries/ghcr.io", `{"username":"alice"}`), 422, workspace.CodeInvalid, "password")
	refused(t, r.ask("PUT", "registries/ghcr.io", `{"username":"alice","password":""}`), 422, workspace.CodeInvalid, "password")
	refused(t, r.ask("PUT", "registries/no%20host", `{"username":"a","password":"b"}`), 422, workspace.CodeInvalid, "host")
	eve := Principal{User: "eve", Role: workspace.RoleMember}
	refused(t, r.askAs(eve, "GET", "registries", ""), 403, workspace.CodeDenied)
	refused(t, r.askAs(eve, "GET", "registries/ghcr.io", ""), 403, workspace.CodeDenied)
	refused(t, r.askAs(eve, "PUT", "registries/ghcr.io", `{"username":"a","password":"b"}`), 403, workspace.CodeDenied)
	if a := r.ask("DELETE", "registries/ghcr.io", ""); a.status != 204 {
		t.Errorf("%d %s", a.status, a.body)
	}
	refused(t, r.ask("GET", "registries/ghcr.io", ""), 404, workspace.CodeNotFound)
	refused(t, r.ask("DELETE", "registries/ghcr.io", ""), 404, workspace.CodeNotFound)
}

func TestReadings(t *testing.T) {
	r := newRig(t)
	refused(t, r.ask("GET", "devices/readings?node=host1", ""), 503, workspace.CodeUnavailable)
	if got := decode[page[gpu.Reading]](t, r.ask("GET", "devices/readings", ""), 200); len(got.Items) != 0 {
		t.Errorf("%+v", got)
	}
	agent := r.withAgent()
	agent.readings = func(context.Context) ([]gpu.Reading, error) {
		return []gpu.Reading{{UUID: "b"}, {UUID: "a", Values: map[gpu.Quantity]float64{gpu.Temperature: 41}}}, nil
	}
	for _, query := range []string{"", "?node=host1"} {
		got := decode[page[gpu.Reading]](t, r.ask("GET", "devices/readings"+query, ""), 200)
		if len(got.Items) != 2 || got.Items[0].UUID != "a" || got.Items[0].Values[gpu.Temperature] != 41 {
			t.Errorf("%s: %+v", query, got.Items)
		}
	}
	refused(t, r.ask("GET", "devices/readings?node=none", ""), 404, workspace.CodeNotFound)
}
