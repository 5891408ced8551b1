package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/workspace"
)

func TestExec(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.OnExec("report", func(_ context.Context, call runtimetest.ExecCall) int {
			size := <-call.Resize
			in, _ := io.ReadAll(call.Stdin)
			fmt.Fprintf(call.Stdout, "%s %v %s %v %dx%d %s", call.Spec.Args[1], call.Spec.Env, call.Spec.Dir, call.Spec.Terminal, size.Columns, size.Rows, in)
			return 7
		})
		d := h.start(t, nil)
		var out bytes.Buffer
		resize := make(chan workspace.TerminalSize, 1)
		resize <- workspace.TerminalSize{Columns: 80, Rows: 24}
		code, err := d.Exec(t.Context(), "run-1", workspace.ExecSpec{
			Command: []string{"report", "now"}, Env: []workspace.EnvVar{{Name: "A", Value: "b"}}, Dir: "/srv", Terminal: true,
		}, workspace.ExecStreams{Stdin: strings.NewReader("typed"), Stdout: &out, Resize: resize})
		if err != nil || code != 7 || out.String() != "now [A=b] /srv true 80x24 typed" {
			t.Errorf("code %d, %v: %s", code, err, out.String())
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// Errors say what to do, and never hold a secret.
func TestServiceErrors(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, func(a *workspace.Assignment) {
			a.Secrets = map[string]workspace.Secret{"token": workspace.NewSecret("s3cret-t0ken")}
		})
		c.place("run-2", func(a *workspace.Assignment) { a.Spec.Image = "nowhere.lab/x"; a.Spec.ImageDigest = "sha256:00" }, uuid(1))
		settle()
		exec := func(run string, command ...string) error {
			_, err := d.Exec(t.Context(), run, workspace.ExecSpec{Command: command}, workspace.ExecStreams{})
			return err
		}
		quoting := func(method string, class error) func() {
			return func() { h.FailNext(method, fmt.Errorf("process failed: TOKEN=s3cret-t0ken: %w", class)) }
		}
		for _, test := range []struct {
			name   string
			before func()
			call   func() error
			code   workspace.Code
			says   string
		}{
			{"no such run", nil, func() error { return exec("run-9", "sh") }, workspace.CodeNotFound, "alpha"},
			{"not running yet", nil, func() error { return exec("run-2", "sh") }, workspace.CodeConflict, "wait until it does"},
			{"no command", nil, func() error { return exec("run-1") }, workspace.CodeInvalid, "command"},
			{"unknown command", nil, func() error { return exec("run-1", "nonesuch") }, workspace.CodeInvalid, "nonesuch"},
			{"ended meanwhile", func() { h.FailNext("Exec", runtime.ErrNotRunning) }, func() error { return exec("run-1", "sh") }, workspace.CodeConflict, "start its instance again"},
			{"runtime away", quoting("Exec", runtime.ErrUnavailable), func() error { return exec("run-1", "sh") }, workspace.CodeUnavailable, "berth node ls"},
			{"other failure", quoting("Exec", errors.New("odd")), func() error { return exec("run-1", "sh") }, workspace.CodeInternal, "odd"},
			{"nothing listens", nil, func() error { _, err := d.Dial(t.Context(), "run-1", 1234); return err }, workspace.CodeUnavailable, "port 1234"},
			{"dial of no run", nil, func() error { _, err := d.Dial(t.Context(), "run-9", 1234); return err }, workspace.CodeNotFound, "run-9"},
			{"logs of no run", nil, func() error { return d.Logs(t.Context(), "run-9", workspace.LogSpec{}, io.Discard) }, workspace.CodeNotFound, "run-9"},
			{"logs of a path", nil, func() error { return d.Logs(t.Context(), "../agent.json", workspace.LogSpec{}, io.Discard) }, workspace.CodeNotFound, ""},
			{"copy without the helper", nil, func() error { return d.CopyFrom(t.Context(), "run-1", "/x", io.Discard) }, workspace.CodeInvalid, "helper"},
		} {
			if test.before != nil {
				test.before()
			}
			err := test.call()
			if workspace.CodeOf(err) != test.code || !strings.Contains(fmt.Sprint(err), test.says) || strings.Contains(fmt.Sprint(err), "s3cret") {
				t.Errorf("%s: %v, want code %s", test.name, err, test.code)
			}
		}
		d.stop(t)
	})
}

func TestCopies(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		var got string
		h.OnExec(runtime.HelperPath, func(_ context.Context, call runtimetest.ExecCall) int {
			in, _ := io.ReadAll(call.Stdin)
			got = strings.Join(call.Spec.Args[1:], " ") + ": " + string(in)
			if strings.HasSuffix(got, "/absent: ") {
				fmt.Fprintln(call.Stderr, "/absent: no such file or directory")
				return 1
			}
			fmt.Fprint(call.Stdout, "archive")
			return 0
		})
		d := h.start(t, nil)
		var out bytes.Buffer
		if err := d.CopyFrom(t.Context(), "run-1", "/data", &out); err != nil || out.String() != "archive" || got != "tar-out /data: " {
			t.Errorf("%v: %q, asked %q", err, out.String(), got)
		}
		if err := d.CopyTo(t.Context(), "run-1", "/data", strings.NewReader("tar")); err != nil || got != "tar-in /data: tar" {
			t.Errorf("%v: asked %q", err, got)
		}
		err := d.CopyFrom(t.Context(), "run-1", "/absent", io.Discard)
		if workspace.CodeOf(err) != workspace.CodeInvalid || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("absent: %v", err)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

func TestDial(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.networks.Serve("run-1", 8888, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "hello")
			conn.Close()
		})
		d := h.start(t, nil)
		stream, err := d.Dial(t.Context(), "run-1", 8888)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseWrite(); err != nil {
			t.Error(err)
		}
		if text, err := io.ReadAll(stream); err != nil || string(text) != "hello" {
			t.Errorf("read %q, %v", text, err)
		}
		stream.Close()
		d.stop(t)
		h.cluster.check(t)
	})
}

func TestImagesByName(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		digest := h.Offer(runtimetest.Remote{Reference: "registry.lab/train:1", Username: "ann", Password: "pa55"})
		login := &workspace.RegistryLogin{Username: "ann", Password: workspace.NewSecret("pa55")}
		d := h.startDaemon("")
		settle()
		source := workspace.ImageSource{Reference: "registry.lab/train:1", Login: login}
		if got, err := d.ResolveImage(t.Context(), source); err != nil || got != digest {
			t.Errorf("resolve: %s, %v", got, err)
		}
		var seen []workspace.PullProgress
		image, err := d.PullImage(t.Context(), source, func(p workspace.PullProgress) { seen = append(seen, p) })
		if err != nil || image.Digest != digest || len(seen) != 2 || seen[0].Reference != source.Reference || len(h.cluster.node().images) != 2 {
			t.Errorf("pull: %+v, %v, progress %v, images %v", image, err, seen, h.cluster.node().images)
		}
		source.Login = nil
		for _, test := range []struct {
			reference string
			fail      error
			code      workspace.Code
		}{
			{source.Reference, nil, workspace.CodeDenied},
			{"registry.lab/other", nil, workspace.CodeNotFound},
			{"nowhere.lab/other", nil, workspace.CodeUnavailable},
			{"no image?", nil, workspace.CodeInvalid},
			{source.Reference, runtime.ErrNoSpace, workspace.CodeConflict},
			{source.Reference, runtime.ErrUnavailable, workspace.CodeUnavailable},
		} {
			if test.fail != nil {
				h.FailNext("Pull", test.fail)
			}
			if _, err := d.PullImage(t.Context(), workspace.ImageSource{Reference: test.reference}, nil); workspace.CodeOf(err) != test.code {
				t.Errorf("pull %s: %v, want code %s", test.reference, err, test.code)
			}
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// text is written by one goroutine and read by another.
type text struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (w *text) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *text) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	file.Close()
}

// A log is followed over its turns, until the container has ended.
func TestLogsAreFollowed(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, nil)
		path := d.LogPath("run-1")
		var got text
		done := make(chan error, 1)
		go func() { done <- d.Logs(t.Context(), "run-1", workspace.LogSpec{Follow: true, Tail: -1}, &got) }()
		want := "ready\n"
		for _, line := range []string{"one\n", "two\n", "turn", "three\n", "turn", "four\n"} {
			if line == "turn" { // what is written just before it is seen too
				appendTo(t, path, "last\n")
				if err := os.Rename(path, path+".1"); err != nil {
					t.Fatal(err)
				}
				line = "last\n"
			} else {
				appendTo(t, path, line)
			}
			want += line
			pass(logEvery)
			if got.String() != want {
				t.Errorf("read %q, want %q", got.String(), want)
			}
		}
		h.Exit("run-1", 0)
		appendTo(t, path, "after\n") // the logger is a little later than the process
		pass(2 * time.Second)
		select {
		case err := <-done:
			if err != nil || got.String() != want+"after\n" {
				t.Errorf("%v: read %q", err, got.String())
			}
		default:
			t.Fatal("it is still followed after the end")
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// The follower of a run that hasn't started waits, and one that goes is let go.
func TestLogsOfARunThatHasNotStarted(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		release := h.Block("Create")
		d := h.start(t, nil)
		var got text
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Logs(ctx, "run-1", workspace.LogSpec{Follow: true, Tail: 10}, &got) }()
		pass(time.Second)
		release()
		pass(time.Second)
		if got.String() != "ready\n" {
			t.Errorf("read %q", got.String())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error: %v", err)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

func TestTheLastLinesOfALog(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.startDaemon("")
		settle()
		long := strings.Repeat("x", tailWindow) + "\n"
		for _, test := range []struct {
			older, newer string
			tail         int
			want         string
		}{
			{"", "a\nb\nc\n", -1, "a\nb\nc\n"},
			{"", "a\nb\nc\n", 0, ""},
			{"", "a\nb\nc\n", 2, "b\nc\n"},
			{"", "a\nb\nc\n", 3, "a\nb\nc\n"},
			{"", "a\nb\nc", 2, "b\nc"},
			{"", "\n\n\n", 2, "\n\n"},
			{"o\np\n", "a\nb\n", -1, "o\np\na\nb\n"},
			{"o\np\n", "a\nb\n", 2, "a\nb\n"},
			{"o\np\n", "a\nb\n", 3, "p\na\nb\n"},
			{"o\np\n", "a\nb\n", 9, "o\np\na\nb\n"},
			{"o\np\n", "", 1, "p\n"},
			{"", long + long + long, 2, long + long},
			{"a\n" + long, long, 2, long + long},
		} {
			for name, text := range map[string]string{d.LogPath("x") + ".1": test.older, d.LogPath("x"): test.newer} {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if test.older == "" {
				os.Remove(d.LogPath("x") + ".1")
			}
			var got bytes.Buffer
			if err := d.Logs(t.Context(), "x", workspace.LogSpec{Tail: test.tail}, &got); err != nil || got.String() != test.want {
				t.Errorf("%q then %q, last %d: %v, read %.60q, want %.60q", test.older, test.newer, test.tail, err, got.String(), test.want)
			}
		}
		d.stop(t)
	})
}
