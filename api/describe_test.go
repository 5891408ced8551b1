package api

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"berth/state"
	"berth/workspace"
)

func TestOpenAPI(t *testing.T) {
	r := newRig(t)
	a := r.ask("GET", "/openapi.json", "")
	if strings.Contains(string(a.body), "$schema") {
		t.Error("the description has $schema")
	}
	var doc struct {
		OpenAPI    string
		Paths      map[string]map[string]json.RawMessage
		Components struct {
			Schemas map[string]struct {
				Required             []string
				Properties           map[string]json.RawMessage
				AdditionalProperties any
			}
		}
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("openapi %q", doc.OpenAPI)
	}
	var got []string
	for path, methods := range doc.Paths {
		for method, op := range methods {
			got = append(got, strings.ToUpper(method)+" "+strings.TrimPrefix(path, base))
			if !strings.Contains(string(op), "application/problem+json") || strings.Contains(string(op), "ErrorModel") {
				t.Errorf("%s %s doesn't describe its problems: %s", method, path, op)
			}
		}
	}
	want := []string{
		"POST /workspaces", "GET /workspaces", "GET /workspaces/{id}", "PATCH /workspaces/{id}", "POST /workspaces/{id}/archive", "DELETE /workspaces/{id}",
		"POST /templates", "GET /templates", "PUT /templates/{name}", "GET /templates/{name}", "DELETE /templates/{name}",
		"POST /instances", "GET /instances", "GET /instances/{id}", "DELETE /instances/{id}", "POST /instances/{id}/start", "POST /instances/{id}/extend", "POST /external-runs", "POST /external-runs/{id}/renew", "POST /external-runs/{id}/end",
		"POST /instances/{id}/stop", "POST /instances/{id}/restart", "GET /instances/{id}/wait", "GET /instances/{id}/explain",
		"GET /instances/{id}/runs", "GET /runs", "GET /runs/{id}", "GET /nodes", "GET /nodes/{id}", "GET /devices", "GET /devices/{uuid}",
		"GET /instances/{id}/exec", "GET /instances/{id}/forward", "GET /instances/{id}/logs", "GET /instances/{id}/files",
		"GET /volumes", "GET /volumes/{id}", "POST /volumes/{id}/keep", "DELETE /volumes/{id}",
		"GET /registries", "GET /registries/{host}", "PUT /registries/{host}", "DELETE /registries/{host}", "GET /devices/readings",
		"PUT /instances/{id}/files", "GET /instances/{id}/access", "POST /images/pull",
		"GET /workspaces/{id}/usage", "GET /workspaces/{id}/kill-switch", "POST /workspaces/{id}/kill-switch",
		"POST /workspaces/{id}/members/{user}/block", "POST /workspaces/{id}/members/{user}/unblock",
		"GET /cluster", "PATCH /cluster", "GET /cluster/kill-switch", "POST /cluster/kill-switch",
		"GET /prices", "PUT /prices", "DELETE /prices", "GET /usage", "GET /ledger",
		"GET /images", "POST /images", "DELETE /images", "GET /events", "GET /events/stream", "GET /status", "POST /placements:dry-run",
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("described:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	body := doc.Components.Schemas["NewInstance"]
	if !slices.Equal(body.Required, []string{"name", "template"}) || body.AdditionalProperties != false {
		t.Errorf("NewInstance %+v", body)
	}
	if string(doc.Components.Schemas["WorkspaceChange"].Properties["name"]) == "" ||
		!strings.Contains(string(doc.Components.Schemas["WorkspaceChange"].Properties["name"]), "null") {
		t.Errorf("WorkspaceChange.name %s", doc.Components.Schemas["WorkspaceChange"].Properties["name"])
	}
	if _, twice := doc.Components.Schemas["TemplateBody"]; twice {
		t.Error("a template is described twice")
	}
	if strings.Contains(string(r.ask("GET", "status", "").body), "$schema") {
		t.Error("answers have $schema")
	}
}

func TestHealth(t *testing.T) {
	r := newRig(t)
	get := func(h http.Handler, path string) answer {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return answer{w.Code, w.Header(), w.Body.Bytes()}
	}
	for name, h := range map[string]http.Handler{"socket": r.api.Socket(), "public": r.api.Public()} {
		for path, want := range map[string]string{
			"/livez": `{"status":"alive"}`, "/readyz": `{"status":"ready"}`, "/version": `"version":"1.2.3"`, "/metrics": "berth_up 1",
		} {
			if a := get(h, path); a.status != 200 || !strings.Contains(string(a.body), want) {
				t.Errorf("%s %s: %d %s", name, path, a.status, a.body)
			}
		}
	}
	for _, path := range []string{"/berth/v1/status", "/openapi.json", "/", "/metrics/x"} {
		refused(t, get(r.api.Public(), path), 404, workspace.CodeNotFound, "control socket")
	}
	r.report(workspace.Report{Ready: &workspace.Readiness{Reason: "runtime_unavailable", Message: "containerd is gone"}})
	refused(t, get(r.api.Public(), "/readyz"), 503, workspace.CodeUnavailable, "containerd is gone")
	r.leader = ""
	refused(t, get(r.api.Public(), "/readyz"), 503, workspace.CodeUnavailable, "no leader")
	if a := get(r.api.Public(), "/livez"); a.status != 200 {
		t.Errorf("livez without a leader: %d", a.status)
	}
}

// A panic becomes an answer, and the next request is served.
func TestPanic(t *testing.T) {
	r := newRig(t)
	r.api.explain = func(state.View, *workspace.Run) workspace.Placement { panic("boom") }
	refused(t, r.ask("POST", "placements:dry-run", `{}`), 500, workspace.CodeInternal, "its log says more")
	decode[workspace.Overview](t, r.ask("GET", "status", ""), 200)
}

func TestEveryCodeHasAStatus(t *testing.T) {
	for code, want := range map[workspace.Code]int{
		workspace.CodeInvalid: 422, workspace.CodeMalformed: 400, workspace.CodeNotFound: 404, workspace.CodeExists: 409,
		workspace.CodeConflict: 409, workspace.CodeDenied: 403, workspace.CodeUnauthorized: 401, workspace.CodeUnavailable: 503,
		workspace.CodeKeyReused: 422, workspace.CodeTooOld: 412, workspace.CodeInternal: 500, workspace.CodeWorkspaceArchived: 409,
		workspace.CodeKillSwitch: 409, workspace.CodeUserBlocked: 409, workspace.CodeWorkspaceBudget: 409, workspace.CodeUserBudget: 409,
		workspace.CodeSpendingLimit: 409, workspace.CodeMonthlyRuns: 409, workspace.CodeConcurrency: 409, workspace.CodeUnpriced: 409,
	} {
		if got := statusOf(code); got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
}
