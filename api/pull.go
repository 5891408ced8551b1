package api

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"berth/workspace"
)

type pullInput struct {
	Body workspace.PullRequest
	Raw
}

const ndjson = "application/x-ndjson"

func pullBody(h huma.API) func(*huma.Operation) {
	return func(op *huma.Operation) {
		event := h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[workspace.PullEvent](), true, "PullEvent")
		op.Responses["200"] = &huma.Response{
			Description: "a PullEvent per line, as it goes on; the last has the image or the error",
			Content:     map[string]*huma.MediaType{ndjson: {Schema: event}},
		}
	}
}

// pullStep is the shortest time between two lines of progress.
const pullStep = 200 * time.Millisecond

// pullImage lets a node fetch an image. It goes on as long as the client stays;
// what is fetched by then need not be fetched again.
func (a *API) pullImage(ctx context.Context, in *pullInput) (*huma.StreamResponse, error) {
	node, agent, err := a.agentOf(ctx, in.Body.Node)
	if err != nil {
		return nil, err
	}
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	source, err := a.source(r, in.Body.Reference)
	if err != nil {
		return nil, err
	}
	d := newDownload(in.w, ndjson)
	lines := json.NewEncoder(d)
	return a.run(ctx, d, true, func(ctx context.Context) error {
		image, err := a.pull(ctx, node, agent, source, lines)
		switch {
		case err == nil:
			return lines.Encode(workspace.PullEvent{Image: &image})
		case d.hasBegun():
			return lines.Encode(workspace.PullEvent{Error: errorOf(a.orShutdown(err))})
		}
		return err
	})
}

// pull ends once an instance could be made of the image.
func (a *API) pull(ctx context.Context, node *workspace.Node, agent workspace.NodeService, source workspace.ImageSource, lines *json.Encoder) (workspace.NodeImage, error) {
	var last time.Time
	image, err := agent.PullImage(ctx, source, func(p workspace.PullProgress) {
		if now := time.Now(); now.Sub(last) >= pullStep {
			last = now
			_ = lines.Encode(workspace.PullEvent{Progress: &p}) // a client that is gone ends ctx
		}
	})
	if err == nil {
		_, err = a.awaitImages(ctx, node.ID, []workspace.NodeImage{image})
	}
	return image, err
}

// source is an image with the login to its registry, when one is stored.
func (a *API) source(r *reader, reference string) (workspace.ImageSource, error) {
	source := workspace.ImageSource{Reference: reference}
	registry := r.Registry(workspace.RegistryOf(reference))
	if registry == nil {
		return source, nil
	}
	password, err := a.cluster.Open(registry.Password)
	if err != nil {
		return source, fmt.Errorf("the password for registry %s: %w", registry.Host, err)
	}
	source.Login = &workspace.RegistryLogin{Host: registry.Host, Username: registry.Username, Password: password}
	return source, nil
}

// resolveTime bounds how long a request waits for a registry.
const resolveTime = 20 * time.Second

// resolve asks a registry, from the first node that can, what an image's name
// means now.
func (a *API) resolve(ctx context.Context, r *reader, image string) (string, error) {
	source, err := a.source(r, image)
	if err != nil {
		return "", err
	}
	agent, err := a.anyAgent(r)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	digest, err := agent.ResolveImage(ctx, source)
	if err == nil && digest == "" {
		err = workspace.Errorf(workspace.CodeNotFound, "it has no such image")
	}
	return digest, err
}

// anyAgent is this host's agent or else another's.
func (a *API) anyAgent(r *reader) (workspace.NodeService, error) {
	agent, err := a.cluster.Node(a.nodeID)
	if err == nil {
		return agent, nil
	}
	for n := range r.Nodes() {
		if agent, other := a.cluster.Node(n.ID); other == nil {
			return agent, nil
		}
	}
	return nil, err
}

// withProgress shows how far the pull is that an instance waits for. What it
// waits for is soft state of its node, so the instance's index stays.
func (a *API) withProgress(r *reader, inst *workspace.Instance) *workspace.Instance {
	run := r.Run(inst.Run)
	if run == nil || run.Phase != workspace.PhasePulling {
		return inst
	}
	agent, err := a.cluster.Node(run.Node)
	if err != nil {
		return inst
	}
	p, ok := agent.Pulling(run.ID)
	if !ok {
		return inst
	}
	shown := *inst
	shown.Reason, shown.Message = workspace.ReasonPulling, progressText(p)
	return &shown
}

func progressText(p workspace.PullProgress) string {
	const mib = 1 << 20
	switch {
	case p.Unpacking:
		return fmt.Sprintf("100 %% of %s, unpacking", p.Reference)
	case p.TotalBytes <= 0:
		return fmt.Sprintf("0 %% of %s, its size isn't known yet", p.Reference)
	}
	done := min(p.DoneBytes, p.TotalBytes)
	return fmt.Sprintf("%d %% of %s, %d of %d MiB, %d of %d layers",
		100*done/p.TotalBytes, p.Reference, done/mib, (p.TotalBytes+mib-1)/mib, p.LayersDone, p.Layers)
}
