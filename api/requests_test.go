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
