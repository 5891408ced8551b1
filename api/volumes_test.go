package api

import (
	"fmt"
	"testing"
	"time"

	"berth/workspace"
)

// detached makes a volume whose instance is gone.
func (r *rig) detached(name string) workspace.Volume {
	r.t.Helper()
	inst := decode[workspace.Instance](r.t, r.ask("POST", "instances", fmt.Sprintf(`{"name":%q,"template":{"name":"kept"}}`, name)), 201)
	r.place(inst.Run)
	r.phase(inst.Run, workspace.PhaseRunning, "running")
	volumes := decode[page[workspace.Volume]](r.t, r.ask("GET", "volumes", ""), 200)
	if len(volumes.Items) == 0 {
		r.t.Fatal("there is no volume")
	}
	v := volumes.Items[len(volumes.Items)-1]
	r.report(workspace.Report{Volumes: []workspace.VolumeReport{{ID: v.ID, Made: true}}})
	refused(r.t, r.ask("DELETE", "volumes/"+v.ID, ""), 409, workspace.CodeConflict, "belongs to instance "+name)
	refused(r.t, r.ask("POST", "volumes/"+v.ID+"/keep", `{}`), 409, workspace.CodeConflict)
	r.ask("DELETE", "instances/"+name, "")
	r.phase(inst.Run, workspace.PhaseStopped, "stop_requested")
	return decode[workspace.Volume](r.t, r.ask("GET", "volumes/"+v.ID, ""), 200)
}

func TestVolumes(t *testing.T) {
	r := newRig(t)
	r.putTemplate(workspace.Template{Name: "kept", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, VolumePath: "/data", StoragePolicy: "retain:7"})
	v := r.detached("one")
	if !v.Detached || !v.Made || v.Name != "one" || v.PurgeAt.IsZero() || v.Policy != "retain:7" {
		t.Fatalf("%+v", v)
	}
	kept := decode[workspace.Volume](t, r.ask("POST", "volumes/"+v.ID+"/keep", `{}`), 200)
	if !kept.PurgeAt.IsZero() || kept.Policy != "retain" {
		t.Errorf("kept %+v", kept)
	}
	longer := decode[workspace.Volume](t, r.ask("POST", "volumes/"+v.ID+"/keep", `{"storage_policy":"retain:30"}`), 200)
	if d := longer.PurgeAt.Sub(longer.UpdatedAt); d != 30*24*time.Hour {
		t.Errorf("kept for %s", d)
	}
	refused(t, r.ask("POST", "volumes/"+v.ID+"/keep", `{"storage_policy":"for ever"}`), 422, workspace.CodeInvalid, "storage_policy")

	// An instance goes on with it.
	again := decode[workspace.Instance](t, r.ask("POST", "instances",
		`{"name":"two","template":{"name":"kept"},"volume":"`+v.ID+`","restart_policy":{"mode":"on-failure","max_restarts":5}}`), 201)
	if got := r.View().Instance(again.ID); got.Volume != v.ID || got.RestartPolicy != (workspace.RestartPolicy{Mode: workspace.RestartOnFailure, MaxRestarts: 5}) {
		t.Errorf("made with volume %q, %+v", got.Volume, got.RestartPolicy)
	}
	if now := decode[workspace.Volume](t, r.ask("GET", "volumes/"+v.ID, ""), 200); now.Detached {
		t.Errorf("it is detached still: %+v", now)
	}
	refused(t, r.ask("POST", "instances", `{"name":"three","template":{"name":"kept"},"volume":"`+v.ID+`"}`), 409, workspace.CodeConflict)

	// Strangers know of none.
	eve := Principal{User: "eve", Role: workspace.RoleMember}
	refused(t, r.askAs(eve, "GET", "volumes/"+v.ID, ""), 404, workspace.CodeNotFound)
	refused(t, r.askAs(eve, "DELETE", "volumes/"+v.ID, ""), 404, workspace.CodeNotFound)
	refused(t, r.askAs(eve, "GET", "volumes", ""), 404, workspace.CodeNotFound)
	if a := r.askAs(eve, "GET", "volumes?workspace=*", ""); a.header.Get("X-Total-Count") != "0" {
		t.Errorf("a stranger sees %s", a.body)
	}
}

func TestRemoveVolume(t *testing.T) {
	r := newRig(t)
	r.putTemplate(workspace.Template{Name: "kept", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, VolumePath: "/data"})
	v := r.detached("one")
	for range 2 { // a repeated order is no error
		if a := r.ask("DELETE", "volumes/"+v.ID, ""); a.status != 204 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if now := decode[workspace.Volume](t, r.ask("GET", "volumes/"+v.ID, ""), 200); !now.Purging {
		t.Errorf("%+v", now)
	}
	refused(t, r.ask("POST", "volumes/"+v.ID+"/keep", `{}`), 409, workspace.CodeConflict, "being deleted")
	r.report(workspace.Report{Volumes: []workspace.VolumeReport{{ID: v.ID, Gone: true}}})
	refused(t, r.ask("GET", "volumes/"+v.ID, ""), 404, workspace.CodeNotFound, "berth volume ls")
	refused(t, r.ask("DELETE", "volumes/"+v.ID, ""), 404, workspace.CodeNotFound)
}
