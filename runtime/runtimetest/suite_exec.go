package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// The commands of the tests of Exec, for the image's shell. The Fake knows them
// by their text.
const (
	scriptStreams  = "echo to stdout; echo to stderr >&2; exit 7"
	scriptPlace    = `echo "$(pwd) $(id -u) $MINE"`
	scriptKilled   = "kill -KILL $$"
	scriptForever  = "sleep 600 & echo started; sleep 600; echo never"
	scriptTerminal = `stty -echo; stty size; until [ "$(stty size)" = "50 120" ]; do sleep 0.02; done; echo resized; echo same >&2; read -r line; echo "read $line"`

	largeOutput = 4 << 20
	noDir       = "/no/such/directory"
)

var resized = runtime.TerminalSize{Columns: 120, Rows: 50}

func script(text string) runtime.ExecSpec {
	return runtime.ExecSpec{Args: []string{"sh", "-c", text}}
}

// runForExec runs a container whose own process just lives.
func (s *suite) runForExec(t *testing.T) (id string) {
	t.Helper()
	spec := s.spec(t, "count")
	s.mustRun(t, spec)
	return spec.ID
}

func (s *suite) mustExec(t *testing.T, id string, spec runtime.ExecSpec, stdin io.Reader) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, err bytes.Buffer
	code, failure := s.Runtime.Exec(ctx, id, spec, runtime.ExecStreams{Stdin: stdin, Stdout: &out, Stderr: &err})
	if failure != nil {
		t.Fatalf("Exec of %q: %v", spec.Args, failure)
	}
	return code, out.String(), err.String()
}

func (s *suite) exec(t *testing.T) {
	id := s.runForExec(t)
	code, stdout, stderr := s.mustExec(t, id, script(scriptStreams), nil)
	if code != 7 || stdout != "to stdout\n" || stderr != "to stderr\n" {
		t.Errorf("code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	place := script(scriptPlace)
	place.Env, place.Dir, place.User = []string{"MINE=a=b c"}, "/etc", &runtime.User{UID: 1000, GID: 1000}
	if code, stdout, _ := s.mustExec(t, id, place, nil); code != 0 || stdout != "/etc 1000 a=b c\n" {
		t.Errorf("code %d, stdout %q; want the directory, user and variable asked for", code, stdout)
	}
	if code, _, _ := s.mustExec(t, id, script(scriptKilled), nil); code != 128+int(unix.SIGKILL) {
		t.Errorf("the code of a killed command is %d", code)
	}
}

func (s *suite) execInput(t *testing.T) {
	id := s.runForExec(t)
	cat := runtime.ExecSpec{Args: []string{"cat"}}
	if code, stdout, _ := s.mustExec(t, id, cat, nil); code != 0 || stdout != "" {
		t.Errorf("without input: code %d, stdout %q", code, stdout)
	}
	for _, input := range []string{"", "a line\n", "no end of line", strings.Repeat("0123456789abcdef", 64<<10)} {
		if code, stdout, _ := s.mustExec(t, id, cat, strings.NewReader(input)); code != 0 || stdout != input {
			t.Errorf("of %d bytes of input %d came back, code %d", len(input), len(stdout), code)
		}
	}
	broken := io.MultiReader(strings.NewReader("half"), failingReader{})
	_, err := s.Runtime.Exec(t.Context(), id, cat, runtime.ExecStreams{Stdin: broken})
	wantError(t, "Exec with input that breaks off", err, errBroken)
}

var errBroken = errors.New("broken off")

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errBroken }

// execLarge: much output, of which the first part is taken late.
func (s *suite) execLarge(t *testing.T) {
	id := s.runForExec(t)
	spec := runtime.ExecSpec{Args: []string{"head", "-c", strconv.Itoa(largeOutput), "/dev/zero"}}
	code, stdout, _ := s.mustExec(t, id, spec, nil)
	if code != 0 || len(stdout) != largeOutput {
		t.Errorf("code %d, %d bytes of output, want %d", code, len(stdout), largeOutput)
	}
	_, err := s.Runtime.Exec(t.Context(), id, spec, runtime.ExecStreams{Stdout: failingWriter{}})
	wantError(t, "Exec with a writer that fails", err, errBroken)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errBroken }

// screen is a terminal's output that can be looked at meanwhile.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) has(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

func (s *suite) execTerminal(t *testing.T) {
	id := s.runForExec(t)
	spec := script(scriptTerminal)
	spec.Terminal, spec.Size = true, runtime.TerminalSize{Columns: 100, Rows: 40}
	var shown screen
	typed, typing := io.Pipe()
	defer func() { _ = typing.Close() }()
	sizes := make(chan runtime.TerminalSize)
	ended := make(chan error, 1)
	go func() {
		code, err := s.Runtime.Exec(t.Context(), id, spec, runtime.ExecStreams{Stdin: typed, Stdout: &shown, Resize: sizes})
		if err == nil && code != 0 {
			err = errors.New("code " + strconv.Itoa(code))
		}
		ended <- err
	}()
	Eventually(t, "the first size is shown", func() bool { return shown.has("40 100\r\n") })
	sizes <- resized
	Eventually(t, "the new size is seen, and stderr shown", func() bool { return shown.has("resized\r\nsame\r\n") })
	if _, err := typing.Write([]byte("typed\n")); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil || !shown.has("read typed\r\n") {
		t.Errorf("it ended with %v after %q", err, shown.text.String())
	}
}

// execGivesUp: the process is killed with its session when the caller gives up.
func (s *suite) execGivesUp(t *testing.T) {
	id := s.runForExec(t)
	for _, terminal := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(t.Context())
		spec := script(scriptForever)
		spec.Terminal = terminal
		var shown screen
		ended := make(chan error, 1)
		go func() {
			_, err := s.Runtime.Exec(ctx, id, spec, runtime.ExecStreams{Stdout: &shown})
			ended <- err
		}()
		Eventually(t, "it has started", func() bool { return shown.has("started") })
		cancel(errBroken)
		wantError(t, "Exec", <-ended, errBroken)
	}
	if c := s.mustInspect(t, id); c.State != runtime.StateRunning {
		t.Errorf("the container is %s", c.State)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Runtime.Exec(cancelled, id, script(scriptStreams), runtime.ExecStreams{})
	wantError(t, "Exec by a caller who has gone", err, context.Canceled)
}

func (s *suite) execRefused(t *testing.T) {
	_, err := s.Runtime.Exec(t.Context(), "nobody", script(scriptStreams), runtime.ExecStreams{})
	wantError(t, "Exec in no container", err, runtime.ErrNotFound)
	spec := s.spec(t, "count")
	s.mustCreate(t, spec)
	_, err = s.Runtime.Exec(t.Context(), spec.ID, script(scriptStreams), runtime.ExecStreams{})
	wantError(t, "Exec in a created container", err, runtime.ErrNotRunning)
	if _, err := s.Runtime.Start(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"no-such-command"}, {"/no/such/command"}} {
		_, err := s.Runtime.Exec(t.Context(), spec.ID, runtime.ExecSpec{Args: args}, runtime.ExecStreams{})
		wantError(t, "Exec of "+strings.Join(args, " "), err, runtime.ErrInvalid)
		if len(args) > 0 && (err == nil || !strings.Contains(err.Error(), args[0])) {
			t.Errorf("the error is %v, want the command in it", err)
		}
	}
	lost := script(scriptStreams)
	lost.Dir = noDir
	_, err = s.Runtime.Exec(t.Context(), spec.ID, lost, runtime.ExecStreams{})
	wantError(t, "Exec in no directory", err, runtime.ErrInvalid)
	if err := s.Runtime.Kill(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	s.mustWait(t, spec.ID)
	_, err = s.Runtime.Exec(t.Context(), spec.ID, script(scriptStreams), runtime.ExecStreams{})
	wantError(t, "Exec in an ended container", err, runtime.ErrNotRunning)
}

// execKilled: the container ends in the middle.
func (s *suite) execKilled(t *testing.T) {
	id := s.runForExec(t)
	var shown screen
	type end struct {
		code int
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		code, err := s.Runtime.Exec(t.Context(), id, script(scriptForever), runtime.ExecStreams{Stdout: &shown})
		ended <- end{code, err}
	}()
	Eventually(t, "it has started", func() bool { return shown.has("started") })
	if err := s.Runtime.Kill(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got := <-ended; got.err != nil || got.code != 128+int(unix.SIGKILL) {
		t.Errorf("it ended with code %d, %v; want that of a killed process", got.code, got.err)
	}
}
