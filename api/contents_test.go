package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

// In a bubble: no patience passes on a busy machine.
func TestLogs(t *testing.T) {
	synctest.Test(t, testLogs)
}

func testLogs(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	var asked []string
	agent.logs = func(_ context.Context, run string, spec workspace.LogSpec, w io.Writer) error {
		asked = append(asked, fmt.Sprintf("%s %+v", run[len(run)-2:], spec))
		_, err := io.WriteString(w, "line\n")
		return err
	}
	refused(t, r.ask("GET", "instances/none/logs", ""), 404, workspace.CodeNotFound)
	inst := r.instance("one")
	refused(t, r.ask("GET", "instances/one/logs", ""), 409, workspace.CodeConflict, "has no container, it is pending")
	r.place(inst.Run)
	r.phase(inst.Run, workspace.PhaseFailed, "exit_1")
	second := decode[workspace.Instance](t, r.ask("POST", "instances/one/start", ""), 200)
	r.instance("two")
	if second.Run == inst.Run {
		t.Fatal("no new run")
	}
	for _, query := range []string{"?run=" + inst.Run, "?run=" + inst.Run + "&follow=true&tail=10"} {
		a := r.ask("GET", "instances/one/logs"+query, "")
		if a.status != 200 || string(a.body) != "line\n" || a.header.Get("Content-Type") != "text/plain; charset=utf-8" {
			t.Errorf("%s: %d %q, %v", query, a.status, a.body, a.header)
		}
	}
	last := inst.Run[len(inst.Run)-2:]
	if diff := cmp.Diff([]string{last + " {Follow:false Tail:-1}", last + " {Follow:true Tail:10}"}, asked); diff != "" {
		t.Error(diff)
	}
	refused(t, r.ask("GET", "instances/two/logs?run="+inst.Run, ""), 404, workspace.CodeNotFound, "instance two has no run")
	refused(t, r.ask("GET", "instances/one/logs?tail=-2", ""), 422, workspace.CodeInvalid, "tail")
	stopped := decode[workspace.Instance](t, r.ask("POST", "instances", `{"name":"never","template":{"name":"demo"},"start":false}`), 201)
	refused(t, r.ask("GET", "instances/"+stopped.ID+"/logs", ""), 409, workspace.CodeConflict, "never started")
	eve := Principal{User: "eve", Role: workspace.RoleMember}
	for _, path := range []string{"logs", "files?path=/", "access"} {
		refused(t, r.askAs(eve, "GET", "instances/"+inst.ID+"/"+path, ""), 404, workspace.CodeNotFound)
	}
	agent.logs = func(context.Context, string, workspace.LogSpec, io.Writer) error {
		return workspace.Errorf(workspace.CodeNotFound, "the log isn't kept any more")
	}
	refused(t, r.ask("GET", "instances/one/logs?run="+inst.Run, ""), 404, workspace.CodeNotFound, "isn't kept")
}

// A follower has an answer before there is anything in it, and each line at
// once; the end of the server ends it with a word.
func TestLogsFollow(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	write := make(chan string)
	agent.logs = func(ctx context.Context, _ string, _ workspace.LogSpec, w io.Writer) error {
		for {
			select {
			case text := <-write:
				if _, err := io.WriteString(w, text); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	res, err := http.Get(s.url + base + "/instances/one/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, text := range []string{"one\n", "two\n"} {
		write <- text
		got := make([]byte, len(text))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
	}
	r.api.drain()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	if told := res.Trailer.Get("X-Berth-Error"); !strings.Contains(told, "shutting down") {
		t.Errorf("trailer %q", told)
	}
}

// A client that has gone away ends what is done for it.
func TestDownloadEndsWithItsClient(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	var ended atomic.Bool
	agent.logs = func(ctx context.Context, _ string, _ workspace.LogSpec, w io.Writer) error {
		_, _ = io.WriteString(w, "x")
		<-ctx.Done()
		ended.Store(true)
		return ctx.Err()
	}
	res, err := http.Get(s.url + base + "/instances/one/logs?follow=true")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = res.Body.Read(make([]byte, 1))
	res.Body.Close()
	for deadline := time.Now().Add(10 * time.Second); !ended.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it goes on after its client")
		}
	}
}

func TestFiles(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB: more than other bodies may have
	var got []byte
	var where []string
	agent.copyFrom = func(path string, w io.Writer) error {
		where = append(where, "from "+path)
		_, err := w.Write(big)
		return err
	}
	agent.copyTo = func(dir string, body io.Reader) (err error) {
		where = append(where, "to "+dir)
		got, err = io.ReadAll(body)
		return err
	}
	a := r.ask("GET", "instances/one/files?path=/work/data/", "")
	if a.status != 200 || !bytes.Equal(a.body, big) || a.header.Get("Content-Type") != tarType {
		t.Errorf("%d, %d bytes, %v", a.status, len(a.body), a.header)
	}
	req, err := http.NewRequest("PUT", s.url+base+"/instances/one/files?path=/work", bytes.NewReader(big))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", tarType)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 204 || !bytes.Equal(got, big) {
		t.Errorf("%s, %d bytes came", res.Status, len(got))
	}
	if diff := cmp.Diff([]string{"from /work/data", "to /work"}, where); diff != "" {
		t.Error(diff)
	}
	for _, path := range []string{"work", "", "%00"} {
		refused(t, r.ask("GET", "instances/one/files?path="+path, ""), 422, workspace.CodeInvalid, "path")
	}
	refused(t, r.ask("PUT", "instances/one/files?path=/", "{}"), 415, workspace.CodeMalformed, tarType)
	agent.copyFrom = func(string, io.Writer) error { return workspace.Errorf(workspace.CodeNotFound, "no such file") }
	refused(t, r.ask("GET", "instances/one/files?path=/nope", ""), 404, workspace.CodeNotFound, "no such file")
}

// An answer that has begun can't become a problem: the trailer says what broke
// it off.
func TestDownloadBreaksOff(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	agent.copyFrom = func(_ string, w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return errors.New("the disk is gone — line 1\nline 2")
	}
	res, err := http.Get(s.url + base + "/instances/one/files?path=/x")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || string(text) != "half" {
		t.Errorf("%q, %v", text, err)
	}
	if got, want := res.Trailer.Get("X-Berth-Error"), `"{\"code\":\"internal_error\",\"message\":\"the disk is gone \u2014 line 1\\nline 2\"}"`; got != want {
		t.Errorf("trailer %s, want %s", got, want)
	}
}

func notebookTemplate() workspace.Template {
	return workspace.Template{
		Name: "notebook", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 30,
		Ports: []workspace.Port{
			{Name: "web", Number: "8888", Protocol: "HTTP", Path: "/lab?token=${token}"},
			{Name: "ssh", Number: "22", Protocol: "SSH"}, {Name: "raw", Number: "9", Protocol: "TCP"},
		},
		Variables: []workspace.Variable{
			{Name: "token", Type: workspace.VarSecret, Generate: true},
			{Name: "other", Type: workspace.VarSecret, Generate: true},
			{Name: "given", Type: workspace.VarSecret},
		},
	}
}

func TestAccess(t *testing.T) {
	r := newRig(t)
	r.putTemplate(notebookTemplate())
	inst := decode[workspace.Instance](t, r.ask("POST", "instances",
		`{"name":"nb","template":{"name":"notebook","variables":{"token":"a b&c","given":"hunter2"}}}`), 201)
	before := decode[workspace.Access](t, r.ask("GET", "instances/nb/access", ""), 200)
	if len(before.Ways) != 0 || before.Secrets["token"] != "a b&c" || before.Status != workspace.StatusPending {
		t.Errorf("before it runs: %+v", before)
	}
	r.place(inst.Run)
	r.report(workspace.Report{Runs: []workspace.RunReport{{Run: inst.Run, Epoch: r.View().Run(inst.Run).Epoch, Phase: workspace.PhaseRunning,
		Access: []workspace.AccessInfo{
			{Type: "NODE_PORT", Protocol: "HTTP", Host: "10.0.0.5", Port: 30001, Name: "web"},
			{Type: "NODE_PORT", Protocol: "SSH", Host: "10.0.0.5", Port: 30002, Name: "ssh"},
			{Type: "NODE_PORT", Protocol: "TCP", Host: "::1", Port: 30003, Name: "raw"},
			{Type: "NODE_PORT", Protocol: "HTTPS", Host: "::1", Port: 30004, Name: "own", Path: "/x/${other}"},
		}}}})
	a := r.ask("GET", "instances/nb/access", "")
	got := decode[workspace.Access](t, a, 200)
	other := got.Secrets["other"]
	if len(other) < 16 {
		t.Errorf("generated %q", other)
	}
	want := workspace.Access{Instance: inst.ID, Name: "nb", Status: workspace.StatusRunning,
		Ways: []workspace.Way{
			{Name: "web", Protocol: "HTTP", Host: "10.0.0.5", Port: 30001, URL: "http://10.0.0.5:30001/lab?token=a%20b%26c"},
			{Name: "ssh", Protocol: "SSH", Host: "10.0.0.5", Port: 30002, Command: "ssh -p 30002 10.0.0.5"},
			{Name: "raw", Protocol: "TCP", Host: "::1", Port: 30003},
			{Name: "own", Protocol: "HTTPS", Host: "::1", Port: 30004, URL: "https://[::1]:30004/x/" + other},
		},
		Secrets: map[string]string{"token": "a b&c", "other": other}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control %q", a.header.Get("Cache-Control"))
	}
	for _, path := range []string{"instances/nb", "instances", "runs", "events?limit=500", "templates", "instances/nb/explain"} {
		if text := string(r.ask("GET", path, "").body); strings.Contains(text, "a b") || strings.Contains(text, other) || strings.Contains(text, "hunter2") {
			t.Errorf("%s shows a secret: %s", path, text)
		}
	}
	// Without its template what was generated for the URLs is still known.
	if gone := r.ask("DELETE", "templates/notebook", ""); gone.status != 204 {
		t.Fatalf("%s", gone.body)
	}
	if late := decode[workspace.Access](t, r.ask("GET", "instances/nb/access", ""), 200); late.Ways[0].URL != want.Ways[0].URL {
		t.Errorf("late %+v", late)
	}
}
