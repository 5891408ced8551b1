package agent

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"berth/runtime"
	"berth/workspace"
)

// longestError is how much a helper in a container may say about a failure.
const longestError = 4 << 10

// Exec runs a process in a run's container and gives its exit code. It ends with
// ctx.
func (a *Agent) Exec(ctx context.Context, run string, spec workspace.ExecSpec, streams workspace.ExecStreams) (int, error) {
	if len(spec.Command) == 0 {
		return 0, workspace.InvalidField("command", "is required")
	}
	ctx, cancel := context.WithCancel(ctx) // ends what turns sizes over
	defer cancel()
	env := make([]string, len(spec.Env))
	for i, v := range spec.Env {
		env[i] = v.Name + "=" + v.Value
	}
	return a.execIn(ctx, run, runtime.ExecSpec{
		Args: spec.Command, Env: env, Dir: spec.Dir,
		Terminal: spec.Terminal, Size: runtime.TerminalSize(spec.Size),
	}, runtime.ExecStreams{
		Stdin: streams.Stdin, Stdout: streams.Stdout, Stderr: streams.Stderr, Resize: sizes(ctx, streams.Resize),
	})
}

// sizes turns the sizes of one package into those of the other.
func sizes(ctx context.Context, from <-chan workspace.TerminalSize) <-chan runtime.TerminalSize {
	if from == nil {
		return nil
	}
	to := make(chan runtime.TerminalSize)
	go func() {
		defer close(to)
		for {
			select {
			case <-ctx.Done():
				return
			case size, ok := <-from:
				if !ok {
					return
				}
				select {
				case <-ctx.Done():
					return
				case to <- runtime.TerminalSize(size):
				}
			}
		}
	}()
	return to
}

// execIn runs a process; its errors are for the caller of the node.
func (a *Agent) execIn(ctx context.Context, run string, spec runtime.ExecSpec, streams runtime.ExecStreams) (int, error) {
	if err := a.running(run); err != nil {
		return 0, err
	}
	code, err := a.cfg.Runtime.Exec(ctx, run, spec, streams)
	if err == nil {
		return code, nil
	}
	safe := a.redactFor(run, err)
	switch {
	case ctx.Err() != nil:
		return 0, context.Cause(ctx)
	case errors.Is(err, runtime.ErrNotFound), errors.Is(err, runtime.ErrNotRunning):
		return 0, workspace.Errorf(workspace.CodeConflict, "the container of run %s doesn't run any more; start its instance again", run)
	case errors.Is(err, runtime.ErrInvalid):
		return 0, workspace.Errorf(workspace.CodeInvalid, "the command can't be run in the container of run %s: %v", run, safe)
	case away(err):
		return 0, a.runtimeAway(safe)
	}
	return 0, workspace.Errorf(workspace.CodeInternal, "run %s: %v", run, safe)
}

// CopyFrom writes a file or directory of a run's container to w, as a tar
// archive.
func (a *Agent) CopyFrom(ctx context.Context, run, path string, w io.Writer) error {
	return a.help(ctx, run, []string{"tar-out", path}, runtime.ExecStreams{Stdout: w})
}

// CopyTo unpacks a tar archive into a directory of a run's container.
func (a *Agent) CopyTo(ctx context.Context, run, dir string, r io.Reader) error {
	return a.help(ctx, run, []string{"tar-in", dir}, runtime.ExecStreams{Stdin: r})
}

// help runs berth's own helper in a container. What it writes to stderr says why
// it failed.
func (a *Agent) help(ctx context.Context, run string, args []string, streams runtime.ExecStreams) error {
	said := &shortText{limit: longestError}
	streams.Stderr = said
	code, err := a.execIn(ctx, run, runtime.ExecSpec{Args: slices.Concat([]string{runtime.HelperPath}, args)}, streams)
	if err != nil || code == 0 {
		return err
	}
	text := said.String()
	if text == "" {
		return workspace.Errorf(workspace.CodeInternal, "copying %s in run %s failed with exit code %d and no word", args[1], run, code)
	}
	return workspace.Errorf(workspace.CodeInvalid, "run %s: %v", run, a.redactFor(run, errors.New(text)))
}

// shortText keeps the beginning of what is written. It is safe for concurrent
// use.
type shortText struct {
	limit int
	mu    sync.Mutex
	text  []byte
}

func (s *shortText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p[:min(len(p), s.limit-len(s.text))]...)
	return len(p), nil
}

func (s *shortText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.TrimSpace(strings.ToValidUTF8(string(s.text), "�"))
}
