package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/test/onenode"
	"berth/workspace"
)

// host is a server with an instance called nb that runs, and a client of it.
func host(t *testing.T) (*onenode.Server, *Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "berth") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := onenode.Start(filepath.Join(dir, "s"), filepath.Join(dir, "r"), onenode.Config{Templates: []workspace.Template{
		{Name: "demo", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 30},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.Inside(dir)
	c, err := New(Options{Socket: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if _, err := c.CreateInstance(t.Context(), workspace.NewInstance{Name: "nb", Template: workspace.TemplateChoice{Name: "demo"}}); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context(), "nb", workspace.PhaseRunning, "running", ""); err != nil {
		t.Fatal(err)
	}
	return s, c
}

func TestExec(t *testing.T) {
	_, c := host(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB: many windows
	var out, errs bytes.Buffer
	code, err := c.Exec(t.Context(), "nb", workspace.ExecSpec{Command: []string{"sh", "-c", "cat; echo done >&2; exit 4"}},
		workspace.ExecStreams{Stdin: bytes.NewReader(big), Stdout: &out, Stderr: &errs})
	if code != 4 || err != nil || errs.String() != "done\n" || !bytes.Equal(out.Bytes(), big) {
		t.Errorf("%d, %v, %d bytes, %q", code, err, out.Len(), &errs)
	}
	// Nobody need take or give anything.
	if code, err := c.Exec(t.Context(), "nb", workspace.ExecSpec{Command: []string{"sh", "-c", "cat; echo x; exit 5"}}, workspace.ExecStreams{}); code != 5 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	_, err = c.Exec(t.Context(), "nb", workspace.ExecSpec{Command: []string{"no-such-program"}}, workspace.ExecStreams{})
	if workspace.CodeOf(err) != workspace.CodeInvalid || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("%v", err)
	}
	_, err = c.Exec(t.Context(), "none", workspace.ExecSpec{Command: []string{"true"}}, workspace.ExecStreams{})
	if workspace.CodeOf(err) != workspace.CodeNotFound {
		t.Errorf("%v", err)
	}
}

type full struct{}

var errFull = errors.New("the disk is full")

func (full) Write([]byte) (int, error) { return 0, errFull }

// What ends this end of an exec ends the process.
func TestExecIsEnded(t *testing.T) {
	_, c := host(t)
	loud := workspace.ExecSpec{Command: []string{"sh", "-c", "echo $$; while :; do echo x; done"}}
	if _, err := c.Exec(t.Context(), "nb", loud, workspace.ExecStreams{Stdout: full{}}); !errors.Is(err, errFull) {
		t.Errorf("a writer that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	pid := make(chan int, 1)
	go func() {
		var n int
		_, _ = fmt.Fscan(r, &n)
		pid <- n
		cancel()
		_, _ = io.Copy(io.Discard, r)
	}()
	if _, err := c.Exec(ctx, "nb", loud, workspace.ExecStreams{Stdout: w}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	w.Close()
	gone := filepath.Join("/proc", fmt.Sprint(<-pid))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(gone); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the process goes on")
		}
	}
}

func TestServerShutsDown(t *testing.T) {
	s, c := host(t)
	began, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := c.Exec(t.Context(), "nb", workspace.ExecSpec{Command: []string{"sh", "-c", "echo began; sleep 1000"}}, workspace.ExecStreams{Stdout: w})
		w.Close()
		ended <- err
	}()
	if _, err := io.ReadFull(began, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, began) }()
	s.Close()
	if err := <-ended; workspace.CodeOf(err) != workspace.CodeUnavailable || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("%v", err)
	}
}

func TestForward(t *testing.T) {
	_, c := host(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		text, _ := io.ReadAll(conn) // until the other side has ended
		_, _ = conn.Write(bytes.ToUpper(text))
	}()
	conn, err := c.Forward(t.Context(), "nb", l.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "hello"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || string(text) != "HELLO" {
		t.Errorf("%q, %v", text, err)
	}
	l.Close()
	if _, err := c.Forward(t.Context(), "nb", l.Addr().(*net.TCPAddr).Port); workspace.CodeOf(err) != workspace.CodeUnavailable {
		t.Errorf("nobody listens: %v", err)
	}
}

// A refusal of a websocket is read whole, however long it is.
func TestUpgradeRefused(t *testing.T) {
	long := strings.Repeat("long ", 1000)
	c := daemon(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Authorization") != "Bearer t" || r.Header.Get("X-Berth-Workspace") != "w" {
			t.Errorf("header %v", r.Header)
		}
		refuse(w, 409, workspace.CodeConflict, long)
	}).client(t, Options{Token: "t", Workspace: "w"})
	_, err := c.Forward(t.Context(), "nb", 80)
	var e *workspace.Error
	if !errors.As(err, &e) || e.Code != workspace.CodeConflict || e.Message != long {
		t.Errorf("%v", err)
	}
	down, err := New(Options{Socket: filepath.Join(t.TempDir(), "none")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := down.Forward(t.Context(), "nb", 80); workspace.CodeOf(err) != workspace.CodeUnavailable || !strings.Contains(err.Error(), "no such socket") {
		t.Errorf("%v", err)
	}
}

func TestLogsAndFiles(t *testing.T) {
	s, c := host(t)
	if err := s.Log(t.Context(), "nb", "one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	one := 1
	if err := errors.Join(c.Logs(t.Context(), "nb", LogOptions{}, &out), c.Logs(t.Context(), "nb", LogOptions{Tail: &one}, &out)); err != nil || out.String() != "one\ntwo\ntwo\n" {
		t.Errorf("%q, %v", &out, err)
	}
	if err := c.Logs(t.Context(), "nb", LogOptions{}, full{}); !errors.Is(err, errFull) {
		t.Errorf("a writer that fails: %v", err)
	}
	if err := c.Logs(t.Context(), "nb", LogOptions{Run: "none"}, &out); workspace.CodeOf(err) != workspace.CodeNotFound {
		t.Errorf("%v", err)
	}
	if err := c.CopyFrom(t.Context(), "nb", "/none", &out); workspace.CodeOf(err) != workspace.CodeNotFound {
		t.Errorf("%v", err)
	}
	if err := c.CopyTo(t.Context(), "nb", "/none", bytes.NewReader(make([]byte, 1024))); workspace.CodeOf(err) != workspace.CodeNotFound {
		t.Errorf("%v", err)
	}
}

// An answer that broke off is an error, never a short success.
func TestBrokenOff(t *testing.T) {
	told := `"{\"code\":\"not_found\",\"message\":\"the disk is gone \u2014 for good\"}"`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"progress":{"done_bytes":5}}`)
		_ = http.NewResponseController(w).Flush()
		if r.Header.Get("X-Berth-Workspace") == "cut" {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set(http.TrailerPrefix+"X-Berth-Error", told)
	}))
	defer s.Close()
	for workspaceName, want := range map[string]*workspace.Error{
		"told": {Code: workspace.CodeNotFound, Message: "the disk is gone — for good"},
		"cut":  {Code: workspace.CodeUnavailable, Message: "broke off"},
	} {
		c, err := New(Options{Addr: s.URL, Workspace: workspaceName})
		if err != nil {
			t.Fatal(err)
		}
		_, pullErr := c.PullImage(t.Context(), workspace.PullRequest{Reference: "x"}, nil)
		for what, err := range map[string]error{"copy": c.CopyFrom(t.Context(), "nb", "/x", io.Discard), "pull": pullErr} {
			if workspace.CodeOf(err) != want.Code || !strings.Contains(err.Error(), want.Message) {
				t.Errorf("%s, %s: %v", workspaceName, what, err)
			}
		}
		c.Close()
	}
}

func TestPullImage(t *testing.T) {
	_, c := host(t)
	var seen []workspace.PullProgress
	image, err := c.PullImage(t.Context(), workspace.PullRequest{Reference: "registry.test/a:1"}, func(p workspace.PullProgress) { seen = append(seen, p) })
	if err != nil || image.Reference != "registry.test/a:1" {
		t.Fatalf("%+v, %v", image, err)
	}
	if diff := cmp.Diff([]workspace.PullProgress{{Reference: "registry.test/a:1", DoneBytes: 2 << 20, TotalBytes: 4 << 20, Layers: 2, LayersDone: 1}}, seen); diff != "" {
		t.Error(diff)
	}
	if _, err := c.PullImage(t.Context(), workspace.PullRequest{Reference: "nowhere.test/a:1"}, nil); workspace.CodeOf(err) != workspace.CodeNotFound {
		t.Errorf("%v", err)
	}
}

func TestRegistriesAndReadings(t *testing.T) {
	_, c := host(t)
	if _, err := c.SetRegistry(t.Context(), "registry.lab:5000", workspace.RegistryLoginChange{Username: "a", Password: "b"}); err != nil {
		t.Fatal(err)
	}
	page, err := c.Registries(t.Context(), ListOptions{})
	if err != nil || len(page.Items) != 1 || page.Items[0].Host != "registry.lab:5000" {
		t.Errorf("%+v, %v", page, err)
	}
	if err := c.RemoveRegistry(t.Context(), "registry.lab:5000"); err != nil {
		t.Error(err)
	}
	readings, err := c.Readings(t.Context(), ListOptions{Node: "host1"})
	if err != nil || len(readings.Items) != 2 {
		t.Errorf("%+v, %v", readings, err)
	}
	if _, err := c.Access(t.Context(), "nb"); err != nil {
		t.Error(err)
	}
	if volumes, err := c.Volumes(t.Context(), ListOptions{}); err != nil || volumes.Total != 0 {
		t.Errorf("%+v, %v", volumes, err)
	}
	for _, err := range []error{c.RemoveVolume(t.Context(), "none"), second(c.Volume(t.Context(), "none")), second(c.KeepVolume(t.Context(), "none", ""))} {
		if workspace.CodeOf(err) != workspace.CodeNotFound {
			t.Errorf("%v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
