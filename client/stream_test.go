package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

func TestEventsResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		c := daemon(func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.RawQuery)
			if r.Header.Get("Accept") != "text/event-stream" {
				t.Errorf("Accept %q", r.Header.Get("Accept"))
			}
			switch len(asked) {
			case 1: // breaks off in the middle
				fmt.Fprint(w, ": hello\n\nid: 1.0\ndata: {\"id\":\"1.0\",\"message\":\"a\"}\n\nid: 2.0\nda")
			case 2:
				refuse(w, 503, workspace.CodeUnavailable, "shutting down")
			case 3:
				fmt.Fprint(w, "id: 2.0\ndata: {\"id\":\"2.0\",\"message\":\"b\"}\n\n")
			default:
				refuse(w, 403, workspace.CodeDenied, "no more")
			}
		}).client(t, Options{})
		var got []string
		var failure error
		for e, err := range c.Events(t.Context(), EventFilter{Object: "o"}) {
			if err != nil {
				failure = err
				continue
			}
			got = append(got, e.ID+e.Message)
		}
		if diff := cmp.Diff([]string{"1.0a", "2.0b"}, got); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"object=o", "after=1.0&object=o", "after=1.0&object=o", "after=2.0&object=o"}, asked); diff != "" {
			t.Error(diff)
		}
		if workspace.CodeOf(failure) != workspace.CodeDenied {
			t.Errorf("ended with %v", failure)
		}
	})
}

func TestEventsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		up := true
		c := daemon(func(w http.ResponseWriter, _ *http.Request) {
			if up {
				fmt.Fprint(w, "data: {\"id\":\"1.0\"}\n\ndata: {\"id\":\"1.1\"}\n\n")
				return
			}
			refuse(w, 503, workspace.CodeUnavailable, "down")
		}).client(t, Options{})
		for e := range c.Events(t.Context(), EventFilter{}) {
			if e.ID != "1.0" {
				t.Errorf("got %v after enough", e)
			}
			break
		}
		began := time.Now()
		for e, err := range c.Events(t.Context(), EventFilter{}) {
			up = false // the minute counts from the last answer
			if e.ID == "" && workspace.CodeOf(err) != workspace.CodeUnavailable {
				t.Errorf("ended with %v", err)
			}
		}
		if took := time.Since(began); took < time.Minute || took > 2*time.Minute {
			t.Errorf("gave up after %s", took)
		}
		began = time.Now()
		for _, err := range c.Events(t.Context(), EventFilter{}) {
			if workspace.CodeOf(err) != workspace.CodeUnavailable || time.Since(began) != 0 {
				t.Errorf("%v after %s, though it was never there", err, time.Since(began))
			}
		}
		up = true
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		for e, err := range c.Events(ctx, EventFilter{}) {
			if e.ID == "1.1" {
				cancel()
			}
			last = err
		}
		if !errors.Is(last, context.Canceled) {
			t.Errorf("ended with %v", last)
		}
	})
}

func TestWait(t *testing.T) {
	states := []workspace.Instance{
		{ID: "i1", Name: "one", Status: workspace.StatusPending, Reason: "pulling_image", Desired: workspace.DesiredRunning, ModifyIndex: 5},
		{ID: "i1", Name: "one", Status: workspace.StatusPending, Reason: "starting", Desired: workspace.DesiredRunning, ModifyIndex: 6},
		{ID: "i1", Name: "one", Status: workspace.StatusRunning, Desired: workspace.DesiredRunning, ModifyIndex: 7},
	}
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		c := daemon(func(w http.ResponseWriter, r *http.Request) {
			i := min(len(asked), 2)
			asked = append(asked, r.URL.RequestURI())
			_ = json.NewEncoder(w).Encode(states[i])
		}).client(t, Options{})
		var seen []string
		inst, err := c.Wait(t.Context(), "one", "running", 90*time.Second, func(i *workspace.Instance) { seen = append(seen, i.Reason) })
		if err != nil || inst.Status != workspace.StatusRunning {
			t.Fatalf("%+v, %v", inst, err)
		}
		if diff := cmp.Diff([]string{"pulling_image", "starting"}, seen); diff != "" {
			t.Error(diff)
		}
		want := []string{
			"/berth/v1/instances/one/wait?phase=running&timeout=0s",
			"/berth/v1/instances/i1/wait?after=5&phase=running&timeout=500ms",
			"/berth/v1/instances/i1/wait?after=6&phase=running&timeout=1m0s",
		}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pending := workspace.Instance{ID: "i1", Name: "one", Status: workspace.StatusPending, Reason: "waiting_for_gpu", ModifyIndex: 5}
		c := daemon(func(w http.ResponseWriter, r *http.Request) {
			d, err := time.ParseDuration(r.URL.Query().Get("timeout"))
			if err != nil || d > time.Minute {
				t.Errorf("timeout %s, %v", d, err)
			}
			time.Sleep(d)
			_ = json.NewEncoder(w).Encode(pending)
		}).client(t, Options{})
		began := time.Now()
		inst, err := c.Wait(t.Context(), "one", "running", 90*time.Second, nil)
		if workspace.CodeOf(err) != workspace.CodeUnavailable || inst == nil || time.Since(began) != 90*time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		asked := 0
		c = daemon(func(w http.ResponseWriter, _ *http.Request) {
			if asked++; asked == 1 {
				_ = json.NewEncoder(w).Encode(pending)
				return
			}
			refuse(w, 404, workspace.CodeNotFound, "gone")
		}).client(t, Options{})
		if inst, err := c.Wait(t.Context(), "i1", "deleted", time.Minute, nil); err != nil || inst.ID != "i1" {
			t.Errorf("deleted: %v, %v", inst, err)
		}
		if _, err := c.Wait(t.Context(), "i1", "running", time.Minute, nil); workspace.CodeOf(err) != workspace.CodeNotFound {
			t.Errorf("running, of one that is gone: %v", err)
		}
	})
}

// A refused archive isn't sent, a taken one is counted as it goes.
func TestImport(t *testing.T) {
	refused := true
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refused {
			refuse(w, 404, workspace.CodeNotFound, "no such node")
			return
		}
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(201)
		fmt.Fprintf(w, `{"items":[{"reference":"demo:latest","digest":"sha256:1","size_bytes":%d}],"next_cursor":""}`, n)
	}))
	defer s.Close()
	c, err := New(Options{Addr: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const size = 8 << 20
	var sent int64
	progress := func(n int64) { sent = n }
	archive := func() io.Reader { return io.LimitReader(zeros{}, size) }
	if _, err := c.ImportImage(t.Context(), archive(), ImportOptions{Node: "h"}, progress); workspace.CodeOf(err) != workspace.CodeNotFound || sent != 0 {
		t.Errorf("%v after %d bytes", err, sent)
	}
	refused = false
	images, err := c.ImportImage(t.Context(), archive(), ImportOptions{}, progress)
	if err != nil || sent != size || len(images) != 1 || images[0].Size != size {
		t.Errorf("%+v, %v after %d bytes", images, err, sent)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
