package runtimetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// ExecCall is an Exec as the command of a fake container sees it. Streams are
// never nil.
type ExecCall struct {
	ID             string
	Spec           runtime.ExecSpec
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan runtime.TerminalSize // nil when there is none
}

// Program is what a command does; ctx ends when it is killed, and then its code
// doesn't count.
type Program func(ctx context.Context, call ExecCall) (code int)

// errNoCommand is for the commands that the image doesn't have.
var errNoCommand = errors.New("executable file not found in $PATH")

// OnExec gives the containers a command. Without it they have the suite's.
func (f *Fake) OnExec(command string, program Program) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.programs[command] = program
}

// Exec implements runtime.Executor. Signals and kills of the container end it.
func (f *Fake) Exec(ctx context.Context, id string, spec runtime.ExecSpec, streams runtime.ExecStreams) (int, error) {
	if err := f.enter(ctx, "Exec"); err != nil {
		return 0, err
	}
	program, ended, err := f.program(id, spec)
	if err != nil {
		return 0, fmt.Errorf("exec in container %s: %w", id, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	call, closeOutput := newCall(id, spec, streams, cancel)
	defer closeOutput()
	code := make(chan int, 1)
	go func() { code <- program(ctx, call) }()
	select {
	case code := <-code:
		if err := context.Cause(ctx); err != nil {
			return 0, fmt.Errorf("exec in container %s: %w", id, err)
		}
		return code, nil
	case <-ended:
		return 128 + int(unix.SIGKILL), nil
	case <-ctx.Done():
		return 0, fmt.Errorf("exec in container %s: %w", id, context.Cause(ctx))
	}
}

func (f *Fake) program(id string, spec runtime.ExecSpec) (program Program, ended <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	switch {
	case len(spec.Args) == 0:
		return nil, nil, fmt.Errorf("%w: no command", runtime.ErrInvalid)
	case c == nil:
		return nil, nil, runtime.ErrNotFound
	case c.State != runtime.StateRunning:
		return nil, nil, runtime.ErrNotRunning
	}
	if program = f.programs[spec.Args[0]]; program == nil {
		program = suitePrograms[strings.Join(spec.Args, " ")]
	}
	if program == nil {
		return nil, nil, fmt.Errorf("%w: cannot run the command: %q: %w", runtime.ErrInvalid, spec.Args[0], errNoCommand)
	}
	if spec.Dir == noDir {
		return nil, nil, fmt.Errorf("%w: no directory %s", runtime.ErrInvalid, spec.Dir)
	}
	return program, c.ended, nil
}

// newCall joins the streams. Nothing is written once closeOutput has returned.
func newCall(id string, spec runtime.ExecSpec, streams runtime.ExecStreams, fail func(error)) (call ExecCall, closeOutput func()) {
	call = ExecCall{ID: id, Spec: spec, Stdin: streams.Stdin, Resize: streams.Resize}
	if call.Stdin == nil {
		call.Stdin = strings.NewReader("")
	}
	call.Stdin = &input{Reader: call.Stdin, fail: fail}
	stdout, stderr := &output{w: streams.Stdout, fail: fail}, &output{w: streams.Stderr, fail: fail}
	call.Stdout, call.Stderr = stdout, stderr
	if spec.Terminal {
		call.Stderr = stdout
	}
	return call, func() {
		stdout.close()
		stderr.close()
	}
}

// input tells of a reader that breaks off.
type input struct {
	io.Reader
	fail func(error)
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		i.fail(err)
	}
	return n, err
}

// output passes a program's output on until it is closed.
type output struct {
	fail   func(error)
	mu     sync.Mutex
	w      io.Writer
	closed bool
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return 0, io.ErrClosedPipe
	}
	if o.w == nil {
		return len(p), nil
	}
	n, err := o.w.Write(p)
	if err != nil {
		o.fail(err)
	}
	return n, err
}

func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

// suitePrograms are the commands of the suite, by their words: what a shell in a
// real container does with them.
var suitePrograms = map[string]Program{
	"cat": func(_ context.Context, call ExecCall) int {
		_, _ = io.Copy(call.Stdout, call.Stdin)
		return 0
	},
	"sh -c " + scriptStreams: func(_ context.Context, call ExecCall) int {
		fmt.Fprintln(call.Stdout, "to stdout")
		fmt.Fprintln(call.Stderr, "to stderr")
		return 7
	},
	"sh -c " + scriptPlace: func(_ context.Context, call ExecCall) int {
		at := slices.IndexFunc(call.Spec.Env, func(v string) bool { return strings.HasPrefix(v, "MINE=") })
		fmt.Fprintf(call.Stdout, "%s %d %s\n", call.Spec.Dir, call.Spec.User.UID, call.Spec.Env[at][len("MINE="):])
		return 0
	},
	"sh -c " + scriptKilled: func(context.Context, ExecCall) int { return 128 + int(unix.SIGKILL) },
	"sh -c " + scriptForever: func(ctx context.Context, call ExecCall) int {
		fmt.Fprintln(call.Stdout, "started")
		<-ctx.Done()
		return 0
	},
	"sh -c " + scriptTerminal: func(ctx context.Context, call ExecCall) int {
		size := call.Spec.Size
		for size != resized {
			fmt.Fprintf(call.Stdout, "%d %d\r\n", size.Rows, size.Columns)
			select {
			case size = <-call.Resize:
			case <-ctx.Done():
				return 0
			}
		}
		fmt.Fprint(call.Stdout, "resized\r\n")
		fmt.Fprint(call.Stderr, "same\r\n")
		line, _ := bufio.NewReader(call.Stdin).ReadString('\n')
		fmt.Fprintf(call.Stdout, "read %s\r\n", strings.TrimSpace(line))
		return 0
	},
	"head -c " + strconv.Itoa(largeOutput) + " /dev/zero": func(_ context.Context, call ExecCall) int {
		buffer := make([]byte, 64<<10)
		for left := largeOutput; left > 0; left -= len(buffer) {
			if _, err := call.Stdout.Write(buffer); err != nil {
				return 1
			}
		}
		return 0
	},
}
