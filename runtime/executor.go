package runtime

import (
	"context"
	"io"
)

// Executor runs further processes in a running container; part of Runtime.
type Executor interface {
	// Exec runs a process beside the container's own, in its namespaces,
	// cgroup and limits, with the container's environment under spec.Env, and
	// gives its exit code (128 + signal when killed). It ends when the process
	// has ended and its output is written. When ctx ends the process is killed,
	// with all that it has started where that is still in its session.
	// ErrNotFound and ErrNotRunning as of Signal; ErrInvalid with the reason
	// when the command can't be run.
	Exec(ctx context.Context, id string, spec ExecSpec, streams ExecStreams) (code int, err error)
}

// ExecSpec is a process to run in a container.
type ExecSpec struct {
	Args     []string
	Env      []string // KEY=value, over the container's
	Dir      string   // empty: the container's
	User     *User    // nil: the container's
	Terminal bool     // a pseudo-terminal: stdout and stderr are one
	Size     TerminalSize
}

// TerminalSize in characters.
type TerminalSize struct {
	Columns, Rows uint16
}

// ExecStreams connect a process. Nil readers are empty, nil writers discard.
// Nothing is written once Exec has returned; a Read that was waiting may still
// take input then. Exec waits for a Write that hangs: let it fail when ctx ends.
type ExecStreams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         <-chan TerminalSize // read while the process lives
}
