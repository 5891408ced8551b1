package agent

import (
	"context"
	"io"

	"berth/gpu"
	"berth/workspace"
)

var errNotYet = workspace.Errorf(workspace.CodeUnavailable, "this node can't do that yet")

// PullImage isn't served yet.
func (a *Agent) PullImage(context.Context, workspace.ImageSource, func(workspace.PullProgress)) (workspace.NodeImage, error) {
	return workspace.NodeImage{}, errNotYet
}

// ResolveImage isn't served yet.
func (a *Agent) ResolveImage(context.Context, workspace.ImageSource) (string, error) {
	return "", errNotYet
}

// Pulling isn't served yet.
func (a *Agent) Pulling(string) (workspace.PullProgress, bool) {
	return workspace.PullProgress{}, false
}

// Exec isn't served yet.
func (a *Agent) Exec(context.Context, string, workspace.ExecSpec, workspace.ExecStreams) (int, error) {
	return 0, errNotYet
}

// Logs isn't served yet.
func (a *Agent) Logs(context.Context, string, workspace.LogSpec, io.Writer) error { return errNotYet }

// Dial isn't served yet.
func (a *Agent) Dial(context.Context, string, int) (workspace.Stream, error) { return nil, errNotYet }

// CopyFrom isn't served yet.
func (a *Agent) CopyFrom(context.Context, string, string, io.Writer) error { return errNotYet }

// CopyTo isn't served yet.
func (a *Agent) CopyTo(context.Context, string, string, io.Reader) error { return errNotYet }

// Readings are what this host's devices measure now.
func (a *Agent) Readings(ctx context.Context) ([]gpu.Reading, error) { return a.cfg.GPU.Readings(ctx) }
