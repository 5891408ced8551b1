package api

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

// server is the API over a real connection.
type server struct {
	url    string
	server *http.Server
	served chan error
}

func (r *rig) serve(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{url: "http://" + l.Addr().String(), server: r.api.Server(r.api.Socket()), served: make(chan error, 1)}
	s.server.ConnContext = func(ctx context.Context, _ net.Conn) context.Context { return WithPrincipal(ctx, adminPrincipal) }
	go func() { s.served <- s.server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		<-s.served
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

// events follows a stream in a goroutine until the test or the stream ends.
func (s *server) events(t *testing.T, path string, header ...string) <-chan workspace.Event {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.url+base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if ct := res.Header.Get("Content-Type"); res.StatusCode != 200 || ct != "text/event-stream" {
		t.Fatalf("%s, %q", res.Status, ct)
	}
	out := make(chan workspace.Event, 100)
	go func() {
		defer res.Body.Close()
		defer close(out)
		id := ""
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
				id = text
			}
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var e workspace.Event
				if err := json.Unmarshal([]byte(text), &e); err != nil || e.ID != id {
					t.Errorf("event %q with id %s: %v", text, id, err)
				}
				out <- e
			}
		}
	}()
	return out
}

func next(t *testing.T, events <-chan workspace.Event) workspace.Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the stream ended")
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event came")
	}
	panic("unreachable")
}

func TestEventStreamResumes(t *testing.T) {
	r := newRig(t)
	s := r.serve(t)
	list := decode[page[workspace.Event]](t, r.ask("GET", "events?limit=500", ""), 200)
	all := s.events(t, "/events", "Accept", "text/event-stream")
	for _, want := range list.Items {
		if diff := cmp.Diff(*want, next(t, all)); diff != "" {
			t.Fatal(diff)
		}
	}
	fresh := s.events(t, "/events/stream?after=now")
	one := r.instance("one")
	first, second := next(t, all), next(t, all)
	if first.Type != "instance.created" || second.Type != "run.pending" || first.Instance != one.ID {
		t.Errorf("events %+v, %+v", first, second)
	}
	if diff := cmp.Diff(first, next(t, fresh)); diff != "" {
		t.Errorf("after=now: %s", diff)
	}
	resumed := s.events(t, "/events?after=1.0", "Accept", "text/event-stream", "Last-Event-ID", first.ID)
	if diff := cmp.Diff(second, next(t, resumed)); diff != "" {
		t.Errorf("Last-Event-ID: %s", diff)
	}
	two := r.instance("two")
	about := s.events(t, "/events/stream?object="+two.Run)
	if e := next(t, about); e.Run != two.Run || e.Type != "run.pending" {
		t.Errorf("about two's run: %+v", e)
	}
}

func TestEventList(t *testing.T) {
	r := newRig(t)
	one := r.instance("one")
	about := decode[page[workspace.Event]](t, r.ask("GET", "events?object="+one.ID, ""), 200)
	if len(about.Items) != 2 {
		t.Fatalf("about one: %+v", about)
	}
	after := decode[page[workspace.Event]](t, r.ask("GET", "events?object="+one.ID+"&after="+about.Items[0].ID, ""), 200)
	if len(after.Items) != 1 || after.Items[0].ID != about.Items[1].ID {
		t.Errorf("after the first: %+v", after)
	}
	var ids []string
	for path := "events?limit=2"; path != ""; {
		p := decode[page[workspace.Event]](t, r.ask("GET", path, ""), 200)
		for _, e := range p.Items {
			ids = append(ids, e.ID)
		}
		path = ""
		if p.NextCursor != "" {
			path = "events?limit=2&cursor=" + p.NextCursor
		}
	}
	all := decode[page[workspace.Event]](t, r.ask("GET", "events", ""), 200)
	if len(ids) != len(all.Items) || ids[len(ids)-1] != all.Items[len(all.Items)-1].ID {
		t.Errorf("pages gave %v", ids)
	}
	for _, path := range []string{"events?after=x", "events/stream?after=x"} {
		refused(t, r.ask("GET", path, ""), 422, workspace.CodeInvalid, "event's id")
	}
}

// In a bubble with a clock of its own: signs of life, and the end at shutdown.
func TestEventStreamHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		done := make(chan answer)
		began := time.Now()
		go func() { done <- r.ask("GET", "events/stream?after=now", "") }()
		time.Sleep(40 * time.Second)
		r.api.drain()
		a := <-done
		if n := strings.Count(string(a.body), ": still here"); n != 2 || time.Since(began) != 40*time.Second {
			t.Errorf("%d signs of life in %s: %q", n, time.Since(began), a.body)
		}
	})
}

func TestWait(t *testing.T) {
	cases := []struct {
		name, query string
		meanwhile   func(r *rig, inst workspace.Instance)
		after       time.Duration // since the question
		status      int
		says        string // in the answer
	}{
		{"running", "?phase=running", func(r *rig, i workspace.Instance) {
			r.place(i.Run)
			r.phase(i.Run, workspace.PhaseRunning, "started")
		}, time.Second, 200, `"RUNNING"`},
		{"failed", "", func(r *rig, i workspace.Instance) {
			r.place(i.Run)
			r.phase(i.Run, workspace.PhaseFailed, "exit_1")
		}, time.Second, 409, "FAILED (exit_1: said the node)"},
		{"nothing happens", "?timeout=30s", func(*rig, workspace.Instance) {}, 30 * time.Second, 200, `"PENDING"`},
		{"the default timeout", "", func(*rig, workspace.Instance) {}, time.Minute, 200, `"PENDING"`},
		{"progress", "?after=1&timeout=30s", func(*rig, workspace.Instance) {}, 0, 200, `"PENDING"`},
		{"stopped instead", "", func(r *rig, _ workspace.Instance) { r.ask("POST", "instances/one/stop", "") }, time.Second, 409, "start it first"},
		{"stopped", "?phase=stopped", func(r *rig, _ workspace.Instance) { r.ask("POST", "instances/one/stop", "") }, time.Second, 200, `"STOPPED"`},
		{"deleted", "?phase=deleted", func(r *rig, _ workspace.Instance) { r.ask("DELETE", "instances/one", "") }, time.Second, 200, `"DELETED"`},
		{"deleted instead", "", func(r *rig, _ workspace.Instance) { r.ask("DELETE", "instances/one", "") }, time.Second, 404, "was deleted"},
		{"shutdown", "", func(r *rig, _ workspace.Instance) { r.api.drain() }, time.Second, 200, `"PENDING"`},
		{"bad timeout", "?timeout=11m", nil, 0, 422, "10m"},
		{"bad phase", "?phase=done", nil, 0, 422, "phase"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				inst := r.instance("one")
				began, done := time.Now(), make(chan answer)
				go func() { done <- r.ask("GET", "instances/one/wait"+c.query, "") }()
				if c.after > 0 {
					time.Sleep(time.Second)
					c.meanwhile(r, inst)
				}
				a := <-done
				if a.status != c.status || !strings.Contains(string(a.body), c.says) {
					t.Errorf("%d %s, want %d with %s", a.status, a.body, c.status, c.says)
				}
				if took := time.Since(began); took != c.after {
					t.Errorf("took %s, want %s", took, c.after)
				}
			})
		})
	}
}
