package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"berth/workspace"
)

func TestIdempotencyKey(t *testing.T) {
	r := newRig(t)
	const body = `{"name":"one","template":{"name":"demo"}}`
	ask := func(body, key string) answer { return r.ask("POST", "instances", body, "Idempotency-Key", key) }
	first := decode[workspace.Instance](t, ask(body, "k1"), 201)
	again := decode[workspace.Instance](t, ask(` { "template":{"name":"demo"}, "name":"one" } `, "k1"), 201)
	if again.ID != first.ID || again.Run != first.Run {
		t.Errorf("the retry made %s, want %s", again.ID, first.ID)
	}
	refused(t, ask(`{"name":"two","template":{"name":"demo"}}`, "k1"), 422, workspace.CodeKeyReused, "new key")
	refused(t, r.ask("POST", "instances", body, "Idempotency-Key", "k1", "X-Berth-Workspace", "default"), 422, workspace.CodeKeyReused)
	refused(t, ask(body, "k2"), 409, workspace.CodeExists)
	// The same key of another caller, or on another path, is another key.
	other := r.askAs(Principal{User: "bob", Role: workspace.RoleClusterAdmin}, "POST", "instances", `{"name":"bobs","template":{"name":"demo"}}`, "Idempotency-Key", "k1")
	if i := decode[workspace.Instance](t, other, 201); i.ID == first.ID {
		t.Error("bob got root's answer")
	}
	// A replay about an instance that is gone still names it.
	r.ask("DELETE", "instances/one", "")
	late := decode[workspace.Instance](t, ask(body, "k1"), 201)
	if late.ID != first.ID || late.Run != first.Run || late.Status != workspace.StatusDeleted {
		t.Errorf("late %+v", late)
	}
	for _, by := range r.callers {
		if by.Idem != nil && (len(by.Idem.Scope) != 64 || len(by.Idem.Body) != 64 || strings.Contains(by.Idem.Scope, "k1")) {
			t.Errorf("the log would hold %+v", by.Idem)
		}
	}
}

// A denial is no outcome: the same request may succeed later.
func TestIdempotencyJudgesDenialsAnew(t *testing.T) {
	r := newRig(t)
	r.instance("one")
	const body = `{"name":"one","template":{"name":"demo"}}`
	refused(t, r.ask("POST", "instances", body, "Idempotency-Key", "k"), 409, workspace.CodeExists)
	r.ask("DELETE", "instances/one", "")
	decode[workspace.Instance](t, r.ask("POST", "instances", body, "Idempotency-Key", "k"), 201)
}

func TestRequestIDs(t *testing.T) {
	r := newRig(t)
	if id := r.ask("GET", "status", "", "X-Request-Id", "mine-1").header.Get("X-Request-Id"); id != "mine-1" {
		t.Errorf("given id became %q", id)
	}
	for _, bad := range []string{"", "a b", "a\x7f", strings.Repeat("x", 129)} {
		if id := r.ask("GET", "status", "", "X-Request-Id", bad).header.Get("X-Request-Id"); len(id) != 36 {
			t.Errorf("%q became %q", bad, id)
		}
	}
	// What the log takes for the same request is never the caller's to choose.
	r.ask("POST", "workspaces", `{}`, "X-Request-Id", "mine-2")
	r.ask("POST", "workspaces", `{}`, "X-Request-Id", "mine-2")
	a, b := r.callers[len(r.callers)-2], r.callers[len(r.callers)-1]
	if a.RequestID == b.RequestID || a.RequestID == "mine-2" || len(a.RequestID) != 36 {
		t.Errorf("request ids in the log: %q, %q", a.RequestID, b.RequestID)
	}
	if a.Principal != admin || a.Role != workspace.RoleClusterAdmin {
		t.Errorf("caller %+v", a)
	}
}

// Who is known and may not learns why, on every path that needs a caller.
func TestRefusal(t *testing.T) {
	r := newRig(t)
	why := workspace.Errorf(workspace.CodeDenied, "join group berth")
	for _, path := range []string{"/status", "/workspaces", "/events/stream"} {
		req := httptest.NewRequestWithContext(WithRefusal(WithPrincipal(t.Context(), adminPrincipal), why), "GET", base+path, nil)
		w := httptest.NewRecorder()
		r.api.Socket().ServeHTTP(w, req)
		refused(t, answer{w.Code, w.Header(), w.Body.Bytes()}, 403, workspace.CodeDenied, "join group berth")
	}
}

func TestUnknownPathsAndMethods(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/", "/berth/v1", "/berth/v1/nope", "/berth/v1/instances/", "/nope"} {
		refused(t, r.ask("GET", path, ""), 404, workspace.CodeNotFound, path)
	}
	a := r.ask("PUT", "workspaces", `{}`)
	refused(t, a, 405, workspace.CodeMalformed, "only GET, HEAD, POST")
	if a.header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("Allow %q", a.header.Get("Allow"))
	}
}

func TestBodiesAreBounded(t *testing.T) {
	r := newRig(t)
	big := `{"name":"a","description":"` + strings.Repeat("x", maxBody) + `"}`
	refused(t, r.ask("POST", "workspaces", big), 413, workspace.CodeMalformed, "1 MiB")
	refused(t, r.ask("POST", "workspaces", `{}`, "Content-Type", "text/plain"), 415, workspace.CodeMalformed)
	fits := `{"description":"` + strings.Repeat("x", maxBody-18) + `"}`
	if len(fits) != maxBody {
		t.Fatalf("%d bytes", len(fits))
	}
	refused(t, r.ask("POST", "workspaces", fits), 422, workspace.CodeInvalid, "at most 4096")
}

func TestNoLeader(t *testing.T) {
	r := newRig(t)
	r.down = workspace.Errorf(workspace.CodeUnavailable, "no leader is known")
	a := r.ask("POST", "workspaces", `{}`)
	refused(t, a, 503, workspace.CodeUnavailable, "no leader")
	if a.header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	r.down = io.ErrUnexpectedEOF
	refused(t, r.ask("POST", "workspaces", `{}`), 500, workspace.CodeInternal)
}

func TestConsistency(t *testing.T) {
	r := newRig(t)
	for _, how := range []string{"", "default", "stale", "consistent"} {
		a := r.ask("GET", "workspaces?consistency="+how, "")
		if age := a.header.Get("X-Berth-Age-Ms"); a.status != 200 || (age == "7") != (how == "stale") {
			t.Errorf("%s: %d, age %q", how, a.status, age)
		}
	}
	if r.verified != 1 {
		t.Errorf("leadership was verified %d times, want once", r.verified)
	}
	refused(t, r.ask("GET", "workspaces?consistency=maybe", ""), 422, workspace.CodeInvalid, "query.consistency")
}

// Over a real connection: the server's own limits, and its end.
func TestServer(t *testing.T) {
	r := newRig(t)
	s := r.serve(t)
	req, _ := http.NewRequest("GET", s.url+"/livez", nil)
	req.Header.Set("X-Long", strings.Repeat("x", 80<<10))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("headers of 80 KiB: %s", res.Status)
	}
	if s.server.ReadHeaderTimeout != 10*time.Second || s.server.WriteTimeout != 0 {
		t.Errorf("timeouts %v, %v", s.server.ReadHeaderTimeout, s.server.WriteTimeout)
	}
	// A stream doesn't keep the server from ending.
	stream := s.events(t, "/events/stream?after=now")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.server.Shutdown(ctx); err != nil {
		t.Fatalf("shutdown with an open stream: %v", err)
	}
	for range stream {
		t.Error("an event came, though nothing happened")
	}
}

func FuzzBodies(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"name":null}`, `{"name":"a","template":{"name":"demo"}}`, `{"name":"a","template":{"name":"demo","variables":{"port":"1"}},"resources":{"gpu_count":1}}`,
		`{"settings":{"a":[1,2]},"data_retention":{"unit":"days","value":3}}`, `{"template":"demo"}`, `[`, "\x00", `{"name":"t","image":"demo","kind":"job"}`,
	} {
		f.Add([]byte(seed))
	}
	r := newRig(f)
	id := r.View().DefaultWorkspace().ID
	routes := [][2]string{{"POST", "workspaces"}, {"PATCH", "workspaces/" + id}, {"POST", "templates"}, {"POST", "instances"}, {"POST", "placements:dry-run"}}
	f.Fuzz(func(t *testing.T, body []byte) {
		r.t = t
		for _, route := range routes {
			a := r.ask(route[0], route[1], string(body))
			if a.status >= 500 {
				t.Errorf("%s %s %q: %d %s", route[0], route[1], body, a.status, a.body)
			}
			if a.status >= 300 {
				refused(t, a, a.status, decode[Problem](t, a, a.status).Code)
			}
		}
	})
}

// A retry gets its first answer's status and ids, whatever became since of what
// it names.
func TestIdempotencyOutlivesItsObjects(t *testing.T) {
	r := newRig(t)
	r.ask("POST", "templates", `{"name":"mine","image":"demo"}`)
	ask := func(method, path, body string) answer {
		return r.ask(method, path, body, "Idempotency-Key", "k")
	}
	const one = `{"name":"one","template":{"name":"mine"}}`
	created := decode[workspace.Instance](t, ask("POST", "instances", one), 201)
	decode[workspace.Instance](t, ask("POST", "instances/one/stop", ""), 200)
	started := decode[workspace.Instance](t, ask("POST", "instances/one/start", ""), 200)
	decode[workspace.Instance](t, ask("POST", "instances/one/restart", ""), 200)
	deleted := decode[workspace.Instance](t, ask("DELETE", "instances/one", ""), 200)
	ask("PUT", "templates/put", `{"image":"demo"}`)
	ask("POST", "templates", `{"name":"posted","image":"demo"}`)
	for _, name := range []string{"mine", "put", "posted"} {
		if a := ask("DELETE", "templates/"+name, ""); a.status != 204 {
			t.Fatalf("delete template %s: %d %s", name, a.status, a.body)
		}
	}
	// Its name is another's now, of another template, and its image is gone.
	r.instance("one")
	r.ask("POST", "templates", `{"name":"posted","image":"other"}`)
	r.report(workspace.Report{Images: &[]workspace.NodeImage{}})

	proposed := len(r.callers)
	for _, c := range []struct {
		method, path, body string
		status             int
		run                string
	}{
		{"POST", "instances", one, 201, created.Run},
		{"POST", "instances/one/stop", "", 200, created.Run},
		{"POST", "instances/one/start", "", 200, started.Run},
		{"DELETE", "instances/one", "", 200, ""},
	} {
		again := decode[workspace.Instance](t, ask(c.method, c.path, c.body), c.status)
		if again.ID != deleted.ID || again.Run != c.run || again.Status != workspace.StatusDeleted {
			t.Errorf("%s %s again: %+v, want %s, deleted, and run %q", c.method, c.path, again, deleted.ID, c.run)
		}
	}
	if again := decode[workspace.Instance](t, ask("POST", "instances/one/restart", ""), 200); again.ID != deleted.ID {
		t.Errorf("restart again: %+v", again)
	}
	if len(r.callers) != proposed {
		t.Errorf("%d retries went through the log, though it has their outcomes", len(r.callers)-proposed)
	}
	if again := decode[workspace.Template](t, ask("PUT", "templates/put", `{"image":"demo"}`), 200); again.Name != "put" {
		t.Errorf("put again: %+v", again)
	}
	if again := decode[workspace.Template](t, ask("POST", "templates", `{"name":"posted","image":"demo"}`), 201); again.Name != "posted" {
		t.Errorf("posted again: %+v", again)
	}
	if a := ask("DELETE", "templates/put", ""); a.status != 204 || r.View().Template("put") != nil {
		t.Errorf("delete again: %d %s", a.status, a.body)
	}
	refused(t, ask("POST", "instances", `{"name":"two","template":{"name":"mine"}}`), 422, workspace.CodeKeyReused)
}

// A retry tells nothing to one who may not see the instance any more.
func TestIdempotencyShowsOnlyWhatIsSeen(t *testing.T) {
	r := newRig(t)
	const body = `{"name":"one","template":{"name":"demo"}}`
	decode[workspace.Instance](t, r.ask("POST", "instances", body, "Idempotency-Key", "k"), 201)
	stranger := Principal{User: admin + "s", Role: workspace.RoleMember}
	refused(t, r.askAs(stranger, "POST", "instances", body, "Idempotency-Key", "k"), 404, workspace.CodeNotFound)
	bob := Principal{User: "bob", Role: workspace.RoleClusterAdmin}
	decode[workspace.Instance](t, r.askAs(bob, "POST", "instances/one/stop", "", "Idempotency-Key", "k"), 200)
	bob.Role = workspace.RoleMember
	refused(t, r.askAs(bob, "POST", "instances/one/stop", "", "Idempotency-Key", "k"), 404, workspace.CodeNotFound)
}

// What no container could be made of, or no replica read, never gets anywhere.
func TestHostileTexts(t *testing.T) {
	r := newRig(t)
	template := func(field string) string { return `{"name":"bad","image":"demo",` + field + `}` }
	for body, field := range map[string]string{
		template(`"command":[` + strings.Repeat(`"",`, 140_000) + `""]`):           "command",
		template(`"command":["a\u0000"]`):                                          "command",
		template(`"env":[{"name":"A","value":"a\u0000"}]`):                         "env.A",
		template(`"description":"a\u0000"`):                                        "description",
		template(`"storage_policy":"nonsense"`):                                    "storage_policy",
		template(`"variables":[` + strings.Repeat(`{"name":"a"},`, 200) + `{}]`):   "variables",
		template(`"resources":{"gpu_type":"a\u0000"}`):                             "resources.gpu_type",
		strings.Replace(template(`"kind":"job"`), `:"demo"`, `:"demo\u0000"`, 1):   "image",
		strings.Replace(template(`"kind":"job"`), `:"bad"`, `:"ba\u0000d"`, 1):     "name",
		template(`"ports":[` + strings.Repeat(`{"name":"a"},`, 100) + `{}]`):       "ports",
		template(`"volume_path":"/a\u0000"`):                                       "volume_path",
		template(`"variables":[{"name":"a","type":"string","default":"a\u0000"}]`): "template.variables.a",
	} {
		if p := refused(t, r.ask("POST", "templates", body), 422, workspace.CodeInvalid); p.Fields[field] == "" {
			t.Errorf("%.80s: %v, want it to be about %s", body, p.Fields, field)
		}
	}
	for body, field := range map[string]string{
		`{"name":"a","template":{"name":"demo"},"storage_policy":"nonsense"}`:                              "storage_policy",
		`{"name":"a","template":{"name":"demo"},"project":"none"}`:                                         "project",
		`{"name":"a","template":{"name":"demo"},"description":"a\u0000"}`:                                  "description",
		`{"name":"a","template":{"name":"secretive","variables":{"password":"hunter2\u0000"}}}`:            "template.variables.password",
		`{"name":"a","template":{"name":"demo"},"resources":{"gpu_type":"a\u0000"}}`:                       "resources.gpu_type",
		`{"name":"a","template":{"name":"demo","variables":{"port":"` + strings.Repeat("1", 5000) + `"}}}`: "template.variables.port",
	} {
		if p := refused(t, r.ask("POST", "instances", body), 422, workspace.CodeInvalid); p.Fields[field] == "" || strings.Contains(p.Detail, "hunter2") {
			t.Errorf("%.80s: %v %s, want it to be about %s", body, p.Fields, p.Detail, field)
		}
	}
	if p := refused(t, r.ask("POST", "workspaces", `{"name":"a\nb"}`), 422, workspace.CodeInvalid); p.Fields["name"] == "" {
		t.Errorf("a workspace of two lines: %v", p.Fields)
	}
	if inst := r.instance("after"); inst.ID == "" {
		t.Error("nothing works any more")
	}
}
