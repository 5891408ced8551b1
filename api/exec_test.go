package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"berth/stream"
	"berth/workspace"
)

// running makes an instance that runs.
func (r *rig) running(name string) workspace.Instance {
	r.t.Helper()
	inst := r.instance(name)
	r.place(inst.Run)
	r.phase(inst.Run, workspace.PhaseRunning, "running")
	return inst
}

// peer is the client's end of a websocket of the API.
type peer struct {
	*stream.Session
	end chan stream.End
}

func (s *server) connect(t *testing.T, path string, first any, c stream.Config) *peer {
	t.Helper()
	ws, res, err := websocket.Dial(t.Context(), s.url+base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if res.Body != nil {
		res.Body.Close()
	}
	if first != nil {
		text, _ := json.Marshal(first)
		if err := ws.Write(t.Context(), websocket.MessageText, text); err != nil {
			t.Fatal(err)
		}
	}
	p := &peer{end: make(chan stream.End, 1)}
	c.Note = func(channel stream.Channel, content []byte) {
		var end stream.End
		if err := json.Unmarshal(content, &end); err != nil || channel != stream.Ended {
			t.Errorf("frame %d %q: %v", channel, content, err)
		}
		p.end <- end
	}
	p.Session = stream.New(ws, c)
	t.Cleanup(p.Close)
	return p
}

func (s *server) exec(t *testing.T, path string, spec any) *peer {
	t.Helper()
	return s.connect(t, path, spec, stream.Config{
		Receive: []stream.Channel{stream.Stdout, stream.Stderr}, Send: []stream.Channel{stream.Stdin}})
}

func (p *peer) ended(t *testing.T) stream.End {
	t.Helper()
	select {
	case end := <-p.end:
		return end
	case <-time.After(10 * time.Second):
		t.Fatal("it didn't end")
	}
	panic("unreachable")
}

func TestExec(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	var got workspace.ExecSpec
	var size workspace.TerminalSize
	agent.exec = func(_ context.Context, spec workspace.ExecSpec, streams workspace.ExecStreams) (int, error) {
		got = spec
		size = <-streams.Resize
		text, err := io.ReadAll(streams.Stdin)
		if err != nil {
			t.Error(err)
		}
		_, _ = streams.Stdout.Write(bytes.ToUpper(text))
		_, _ = io.WriteString(streams.Stderr, "done")
		return 3, nil
	}
	want := workspace.ExecSpec{Command: []string{"sh", "-c", "x"}, Env: []workspace.EnvVar{{Name: "A", Value: "b"}}, Dir: "/tmp", Terminal: true,
		Size: workspace.TerminalSize{Columns: 80, Rows: 24}}
	p := s.exec(t, "/instances/one/exec", want)
	_, _ = io.WriteString(p.Writer(stream.Stdin), "hello")
	wide := workspace.TerminalSize{Columns: 200, Rows: 50}
	if err := errors.Join(p.CloseWrite(), p.SendJSON(stream.Resize, wide)); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(p.Reader(stream.Stdout))
	errs, _ := io.ReadAll(p.Reader(stream.Stderr))
	if string(out) != "HELLO" || string(errs) != "done" {
		t.Errorf("output %q, %q", out, errs)
	}
	if end := p.ended(t); end.Code != 3 || end.Error != nil {
		t.Errorf("ended with %+v", end)
	}
	if diff := cmp.Diff(want, got); diff != "" || size != wide {
		t.Errorf("size %+v, spec %s", size, diff)
	}
}

// What is wrong with an exec is a problem before the websocket, an end after it.
func TestExecRefusals(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	agent.exec = func(context.Context, workspace.ExecSpec, workspace.ExecStreams) (int, error) {
		return 0, workspace.Errorf(workspace.CodeInvalid, "there is no program")
	}
	upgrade := []string{"Upgrade", "websocket", "Connection", "Upgrade"}
	inst := r.instance("one")
	refused(t, r.ask("GET", "instances/one/exec", ""), 426, workspace.CodeMalformed, "berth exec")
	refused(t, r.ask("GET", "instances/none/exec", "", upgrade...), 404, workspace.CodeNotFound)
	refused(t, r.ask("GET", "instances/one/exec", "", upgrade...), 409, workspace.CodeConflict, "no container yet")
	r.place(inst.Run)
	r.phase(inst.Run, workspace.PhaseRunning, "running")
	refused(t, r.askAs(Principal{User: "eve", Role: workspace.RoleMember}, "GET", "instances/"+inst.ID+"/exec", "", upgrade...), 404, workspace.CodeNotFound)
	for _, c := range []struct {
		spec any
		code workspace.Code
		says string
	}{
		{workspace.ExecSpec{Command: []string{"nope"}}, workspace.CodeInvalid, "no program"},
		{workspace.ExecSpec{}, workspace.CodeInvalid, "what to run"},
		{workspace.ExecSpec{Command: []string{"a\x00b"}}, workspace.CodeInvalid, "zero byte"},
		{workspace.ExecSpec{Command: []string{"a"}, Dir: "tmp"}, workspace.CodeInvalid, "absolute"},
		{workspace.ExecSpec{Command: []string{"a"}, Env: []workspace.EnvVar{{Name: "A=B"}}}, workspace.CodeInvalid, "name of an environment variable"},
		{[]int{1}, workspace.CodeMalformed, "can't be read"},
	} {
		p := s.exec(t, "/instances/one/exec", c.spec)
		end := p.ended(t)
		if end.Error == nil || end.Error.Code != c.code || !strings.Contains(end.Error.Message, c.says) {
			t.Errorf("%+v ended with %+v", c.spec, end.Error)
		}
	}
	r.phase(inst.Run, workspace.PhaseFailed, "exit_1")
	refused(t, r.ask("GET", "instances/one/exec", "", upgrade...), 409, workspace.CodeConflict, "FAILED", "berth instance start one")
}

// A browser's page from elsewhere can't use the caller's rights.
func TestExecFromAnotherOrigin(t *testing.T) {
	r := newRig(t)
	r.withAgent()
	s := r.serve(t)
	r.running("one")
	_, res, err := websocket.Dial(t.Context(), s.url+base+"/instances/one/exec",
		&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://evil.example"}}})
	if err == nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("answered %v, %v", res, err)
	}
}

// blocked is a process that ends with its context only.
func blocked(ended *atomic.Bool, began chan<- struct{}) func(context.Context, workspace.ExecSpec, workspace.ExecStreams) (int, error) {
	return func(ctx context.Context, _ workspace.ExecSpec, streams workspace.ExecStreams) (int, error) {
		close(began)
		_, err := io.Copy(streams.Stdout, zeros{}) // a client that takes nothing blocks this
		<-ctx.Done()
		ended.Store(true)
		return 0, errors.Join(ctx.Err(), err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestExecEndsWithItsClient(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	var ended atomic.Bool
	began := make(chan struct{})
	agent.exec = blocked(&ended, began)
	p := s.exec(t, "/instances/one/exec", workspace.ExecSpec{Command: []string{"sleep"}})
	<-began
	p.Abort()
	for deadline := time.Now().Add(10 * time.Second); !ended.Load(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process goes on after its client")
		}
	}
}

// A server that shuts down tells, also a client that reads nothing, and waits
// until it has.
func TestStreamsEndWithTheServer(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	var ended atomic.Bool
	began := make(chan struct{})
	agent.exec = blocked(&ended, began)
	p := s.exec(t, "/instances/one/exec", workspace.ExecSpec{Command: []string{"sleep"}})
	<-began
	here, there := net.Pipe()
	defer there.Close()
	agent.dial = func(context.Context, int) (workspace.Stream, error) { return pipeStream{here}, nil }
	f := s.connect(t, "/instances/one/forward?port=80", nil, stream.Config{Receive: []stream.Channel{stream.Data}, Send: []stream.Channel{stream.Data}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := errors.Join(s.server.Shutdown(ctx), r.api.Wait(ctx)); err != nil {
		t.Fatal(err)
	}
	if !ended.Load() {
		t.Error("the process goes on after the server")
	}
	for _, p := range []*peer{p, f} {
		if end := p.ended(t); end.Error == nil || end.Error.Code != workspace.CodeUnavailable || !strings.Contains(end.Error.Message, "shutting down") {
			t.Errorf("ended with %+v", end.Error)
		}
	}
}

// pipeStream is one end of a pipe whose sending side can't be closed alone.
type pipeStream struct{ net.Conn }

func (p pipeStream) CloseWrite() error { return p.Close() }

// echo is a server that answers once the question has ended.
func echo(t *testing.T) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				text, _ := io.ReadAll(conn)
				_, _ = conn.Write(bytes.ToUpper(text))
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func dialTCP(ctx context.Context, port int) (workspace.Stream, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
	if err != nil {
		return nil, workspace.Errorf(workspace.CodeConflict, "nothing listens on port %d", port)
	}
	return conn.(*net.TCPConn), nil
}

func TestForward(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	port := echo(t)
	agent.dial = func(ctx context.Context, p int) (workspace.Stream, error) {
		if p != 8888 {
			p = 1
		} else {
			p = port
		}
		return dialTCP(ctx, p)
	}
	config := stream.Config{Receive: []stream.Channel{stream.Data}, Send: []stream.Channel{stream.Data}}
	p := s.connect(t, "/instances/one/forward?port=8888", nil, config)
	question := strings.Repeat("question ", 200_000) // several windows
	go func() {
		_, _ = io.WriteString(p.Writer(stream.Data), question)
		_ = p.CloseWrite()
	}()
	answer, err := io.ReadAll(p.Reader(stream.Data))
	if err != nil || string(answer) != strings.ToUpper(question) {
		t.Errorf("%d bytes, %v", len(answer), err)
	}
	if end := p.ended(t); end.Error != nil {
		t.Errorf("ended with %v", end.Error)
	}
	upgrade := []string{"Upgrade", "websocket", "Connection", "Upgrade"}
	refused(t, r.ask("GET", "instances/one/forward?port=9", "", upgrade...), 409, workspace.CodeConflict, "nothing listens on port 1")
	refused(t, r.ask("GET", "instances/one/forward?port=70000", "", upgrade...), 422, workspace.CodeInvalid, "port")
	refused(t, r.ask("GET", "instances/one/forward", "", upgrade...), 422, workspace.CodeInvalid, "port")
}

// A client that is gone leaves no connection behind.
func TestForwardEndsWithItsClient(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	r.running("one")
	here, there := net.Pipe()
	agent.dial = func(context.Context, int) (workspace.Stream, error) { return pipeStream{here}, nil }
	p := s.connect(t, "/instances/one/forward?port=80", nil, stream.Config{Receive: []stream.Channel{stream.Data}, Send: []stream.Channel{stream.Data}})
	_, _ = io.WriteString(p.Writer(stream.Data), "x")
	if _, err := io.ReadFull(there, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	p.Abort()
	_ = there.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection to the container: %v", err)
	}
}
