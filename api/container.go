package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"berth/workspace"
)

// Inside names an instance whose container a request is about. It has
// the connection too: huma would keep whole bodies in memory.
type Inside struct {
	Target
	Scope
	Raw
}

// Raw is the connection of a request that is answered by streaming.
type Raw struct {
	w http.ResponseWriter
	r *http.Request
}

// Resolve keeps the connection.
func (raw *Raw) Resolve(ctx huma.Context) []error {
	raw.r, raw.w = humago.Unwrap(ctx)
	return nil
}

// answered says that a handler has written the answer itself.
func answered() *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(huma.Context) {}}
}

// container finds the run of an instance that has a container now, and the
// agent of its node.
func (a *API) container(ctx context.Context, in *Inside) (*workspace.Run, workspace.NodeService, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, nil, err
	}
	run := r.Run(inst.Run)
	switch {
	case run == nil || run.Phase.Terminal():
		return nil, nil, workspace.Errorf(workspace.CodeConflict, "instance %s is %s (%s: %s): berth instance start %s starts it",
			inst.Name, inst.Status, inst.Reason, inst.Message, inst.Name)
	case run.Phase.CanBecome(workspace.PhaseStarting):
		return nil, nil, workspace.Errorf(workspace.CodeConflict, "instance %s has no container yet, it is %s (%s: %s): berth instance wait %s waits for it",
			inst.Name, inst.Status, inst.Reason, inst.Message, inst.Name)
	}
	agent, err := a.cluster.Node(run.Node)
	return run, agent, err
}
