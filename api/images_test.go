package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/workspace"
)

// testAgent imports by reading to the end.
type testAgent struct {
	workspace.NodeService
	read     atomic.Int64
	images   []workspace.NodeImage
	err      error
	giveUpAt int64 // bytes of an archive after which err is given; 0: at its end
	imported func()
	removed  string

	exec     func(context.Context, workspace.ExecSpec, workspace.ExecStreams) (int, error)
	logs     func(context.Context, string, workspace.LogSpec, io.Writer) error
	dial     func(context.Context, int) (workspace.Stream, error)
	copyFrom func(string, io.Writer) error
	copyTo   func(string, io.Reader) error
	pull     func(context.Context, workspace.ImageSource, func(workspace.PullProgress)) (workspace.NodeImage, error)
	resolve  func(workspace.ImageSource) (string, error)
	readings func(context.Context) ([]gpu.Reading, error)
	pulling  map[string]workspace.PullProgress
}

func (a *testAgent) Exec(ctx context.Context, _ string, spec workspace.ExecSpec, streams workspace.ExecStreams) (int, error) {
	return a.exec(ctx, spec, streams)
}

func (a *testAgent) Logs(ctx context.Context, run string, spec workspace.LogSpec, w io.Writer) error {
	return a.logs(ctx, run, spec, w)
}

func (a *testAgent) Dial(ctx context.Context, _ string, port int) (workspace.Stream, error) {
	return a.dial(ctx, port)
}

func (a *testAgent) CopyFrom(_ context.Context, _, path string, w io.Writer) error {
	return a.copyFrom(path, w)
}

func (a *testAgent) CopyTo(_ context.Context, _, dir string, r io.Reader) error {
	return a.copyTo(dir, r)
}

func (a *testAgent) PullImage(ctx context.Context, source workspace.ImageSource, progress func(workspace.PullProgress)) (workspace.NodeImage, error) {
	return a.pull(ctx, source, progress)
}

func (a *testAgent) ResolveImage(_ context.Context, source workspace.ImageSource) (string, error) {
	if a.resolve == nil {
		return "", workspace.Errorf(workspace.CodeNotFound, "it has no such image")
	}
	return a.resolve(source)
}

func (a *testAgent) Readings(ctx context.Context) ([]gpu.Reading, error) { return a.readings(ctx) }

func (a *testAgent) Pulling(run string) (workspace.PullProgress, bool) {
	p, ok := a.pulling[run]
	return p, ok
}

func (a *testAgent) ImportImage(_ context.Context, archive io.Reader, name string) ([]workspace.NodeImage, error) {
	buf := make([]byte, 64<<10)
	for {
		n, err := archive.Read(buf)
		a.read.Add(int64(n))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if a.giveUpAt > 0 && a.read.Load() >= a.giveUpAt {
			break
		}
	}
	if a.err != nil {
		return nil, a.err
	}
	if name != "" {
		a.images[0].Reference = name
	}
	a.imported()
	return a.images, nil
}

func (a *testAgent) RemoveImage(_ context.Context, reference string) error {
	a.removed = reference
	return a.err
}

func (r *rig) withAgent() *testAgent {
	agent := &testAgent{images: []workspace.NodeImage{{Reference: "docker.io/library/new:latest", Digest: digest, Size: 5}}}
	agent.imported = func() { r.report(workspace.Report{Images: &agent.images}) }
	r.agent = agent
	return agent
}

// The archive is handed on as it comes: what has been sent is with the node
// before the rest exists.
func TestImportStreams(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	s := r.serve(t)
	body, send := io.Pipe()
	req, err := http.NewRequest("POST", s.url+base+"/images?name=mine:v1&node=host1", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", tarType)
	done := make(chan answer, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Error(err)
			done <- answer{}
			return
		}
		defer res.Body.Close()
		text, _ := io.ReadAll(res.Body)
		done <- answer{res.StatusCode, res.Header, text}
	}()
	chunk := make([]byte, 1<<20)
	for i := range 4 { // far over the limit of other bodies
		if _, err := send.Write(chunk); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); agent.read.Load() < int64(i+1)<<20-64<<10; {
			if time.Now().After(deadline) {
				t.Fatalf("the node has %d bytes of %d MiB sent", agent.read.Load(), i+1)
			}
			time.Sleep(time.Millisecond)
		}
	}
	send.Close()
	got := decode[page[workspace.NodeImage]](t, <-done, 201)
	if len(got.Items) != 1 || got.Items[0].Reference != "mine:v1" || agent.read.Load() != 4<<20 {
		t.Errorf("imported %+v of %d bytes", got, agent.read.Load())
	}
	list := decode[page[workspace.ImageOnNode]](t, r.ask("GET", "images?node=host1", ""), 200)
	want := &workspace.ImageOnNode{Node: nodeID, NodeName: "host1", NodeImage: *got.Items[0]}
	if diff := cmp.Diff([]*workspace.ImageOnNode{want}, list.Items); diff != "" {
		t.Error(diff)
	}
}

func TestImportRefusals(t *testing.T) {
	r := newRig(t)
	tar := []string{"Content-Type", tarType}
	refused(t, r.ask("POST", "images", "x", tar...), 503, workspace.CodeUnavailable, "can't be reached")
	agent := r.withAgent()
	refused(t, r.ask("POST", "images?node=host2", "x", tar...), 404, workspace.CodeNotFound, "host2")
	refused(t, r.ask("POST", "images", "{}"), 415, workspace.CodeMalformed, tarType)
	if agent.read.Load() != 0 {
		t.Errorf("%d bytes of refused archives were read", agent.read.Load())
	}
	agent.err = workspace.Errorf(workspace.CodeInvalid, "the archive isn't an OCI image layout")
	refused(t, r.ask("POST", "images", "x", tar...), 422, workspace.CodeInvalid, "OCI image layout")
}

// A node that gives up in the middle of an archive is heard by a client that only
// sends: it would find its connection broken, not the answer.
func TestImportGivenUp(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	agent.giveUpAt, agent.err = 1<<20, workspace.Errorf(workspace.CodeConflict, "no room")
	s := r.serve(t)
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size = 64 << 20
	if _, err := fmt.Fprintf(conn, "POST %s/images HTTP/1.1\r\nHost: x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", base, tarType, size); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for chunk := make([]byte, 1<<20); sent < size; sent += len(chunk) {
		if _, err := conn.Write(chunk); err != nil {
			t.Fatalf("after %d bytes: %v", sent, err)
		}
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(res.Body)
	refused(t, answer{res.StatusCode, res.Header, text}, 409, workspace.CodeConflict, "no room")
}

// The answer comes once an instance could be made from the image.
func TestImportWaitsForTheReport(t *testing.T) {
	for _, late := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			agent := r.withAgent()
			report := agent.imported
			agent.imported = func() {}
			done := make(chan answer)
			go func() { done <- r.ask("POST", "images", "x", "Content-Type", tarType) }()
			synctest.Wait()
			if late {
				refused(t, <-done, 503, workspace.CodeUnavailable, "hasn't reported")
				return
			}
			report()
			decode[page[workspace.NodeImage]](t, <-done, 201)
		})
	}
}

func TestRemoveImage(t *testing.T) {
	r := newRig(t)
	agent := r.withAgent()
	if a := r.ask("DELETE", "images?reference=demo:latest&node=host1", ""); a.status != 204 || agent.removed != "demo:latest" {
		t.Errorf("%d %s, removed %q", a.status, a.body, agent.removed)
	}
	refused(t, r.ask("DELETE", "images", ""), 422, workspace.CodeInvalid, "reference")
	agent.err = workspace.Errorf(workspace.CodeConflict, "image demo is in use by run 1")
	refused(t, r.ask("DELETE", "images?reference=demo", ""), 409, workspace.CodeConflict, "in use")
}
