package agent

import (
	"context"
	"errors"
	"net"

	"berth/gpu"
	"berth/runtime"
	"berth/workspace"
)

// PullImage fetches an image from its registry. When it returns, the cluster has
// recorded that the node has it.
func (a *Agent) PullImage(ctx context.Context, source workspace.ImageSource, progress func(workspace.PullProgress)) (workspace.NodeImage, error) {
	image, err := a.cfg.Runtime.Pull(ctx, imageSource(source), func(p runtime.PullProgress) {
		if progress != nil {
			progress(pullProgress(source.Reference, p))
		}
	})
	if err != nil {
		return workspace.NodeImage{}, a.registryError(source, err)
	}
	if err := a.reportImages(ctx); err != nil {
		return workspace.NodeImage{}, err
	}
	return nodeImages([]runtime.Image{image})[0], nil
}

// ResolveImage asks the registry which digest a reference names now.
func (a *Agent) ResolveImage(ctx context.Context, source workspace.ImageSource) (string, error) {
	digest, err := a.cfg.Runtime.Resolve(ctx, imageSource(source))
	if err != nil {
		return "", a.registryError(source, err)
	}
	return digest, nil
}

// registryError is an error of a registry as the caller of the node gets it.
func (a *Agent) registryError(source workspace.ImageSource, err error) error {
	if source.Login != nil {
		err = redactWith(err, map[string]workspace.Secret{"": source.Login.Password})
	}
	if away(err) {
		return a.runtimeAway(err)
	}
	f := pullFailure(source.Reference, source.Digest, a.cfg.Facts.Name, err)
	code := workspace.CodeInternal
	switch {
	case errors.Is(err, runtime.ErrDenied):
		code = workspace.CodeDenied
	case errors.Is(err, runtime.ErrNotFound):
		code = workspace.CodeNotFound
	case errors.Is(err, runtime.ErrPlatform), errors.Is(err, runtime.ErrInvalid):
		code = workspace.CodeInvalid
	case errors.Is(err, runtime.ErrNoSpace):
		code = workspace.CodeConflict
	case errors.Is(err, runtime.ErrRegistry):
		code = workspace.CodeUnavailable
	}
	return workspace.Errorf(code, "%s: %v", f.message, err)
}

// Pulling says how far the pull of a run's image is; false: there is none.
func (a *Agent) Pulling(run string) (workspace.PullProgress, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	progress, ok := a.pulls[run]
	return progress, ok
}

// Dial connects to a port inside a run's container, on its loopback.
func (a *Agent) Dial(ctx context.Context, run string, port int) (workspace.Stream, error) {
	if err := a.running(run); err != nil {
		return nil, err
	}
	conn, err := a.cfg.Networks.Dial(ctx, run, port)
	if err != nil {
		return nil, workspace.Errorf(workspace.CodeUnavailable,
			"nothing answers at port %d in the container of run %s (does its program listen there?): %v", port, run, a.redactFor(run, err))
	}
	if stream, ok := conn.(workspace.Stream); ok {
		return stream, nil
	}
	return wholeStream{conn}, nil
}

// wholeStream is a connection whose sending side can't be closed alone.
type wholeStream struct{ net.Conn }

// CloseWrite changes nothing: the other side would lose its way to answer.
func (wholeStream) CloseWrite() error { return nil }

// running fails with what to do while the run has no container that runs.
func (a *Agent) running(run string) error {
	a.mu.Lock()
	assignment, w, listed := a.assignments[run], a.workers[run], a.containers[run]
	known := listed
	if w != nil {
		known = w.known
	}
	a.mu.Unlock()
	switch {
	case assignment == nil && known == "":
		return workspace.Errorf(workspace.CodeNotFound, "node %s has no run %s", a.cfg.Facts.Name, run)
	case known == runtime.StateRunning:
		return nil
	case known == runtime.StateExited || assignment == nil || assignment.Phase.Terminal():
		return workspace.Errorf(workspace.CodeConflict, "run %s has ended; start its instance again", run)
	}
	return workspace.Errorf(workspace.CodeConflict, "run %s is %s, its container doesn't run yet; wait until it does", run, assignment.Phase)
}

// redactFor gives an error without the secrets of a run.
func (a *Agent) redactFor(run string, err error) error {
	a.mu.Lock()
	var secrets map[string]workspace.Secret
	if w := a.workers[run]; w != nil {
		secrets = w.secrets
	}
	a.mu.Unlock()
	return redactWith(err, secrets)
}

// Readings are what this host's devices measure now.
func (a *Agent) Readings(ctx context.Context) ([]gpu.Reading, error) { return a.cfg.GPU.Readings(ctx) }
