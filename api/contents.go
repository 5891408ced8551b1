package api

import (
	"context"
	"net/http"
	"path"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"berth/workspace"
)

type logsInput struct {
	Inside
	Run    string `query:"run" doc:"id of one of its runs; absent: the latest"`
	Follow bool   `query:"follow" doc:"go on until the run has ended"`
	Tail   int    `query:"tail" default:"-1" minimum:"-1" doc:"lines from the end; -1: all that is kept"`
}

type filesInput struct {
	Inside
	Path string `query:"path" required:"true" doc:"absolute, in the container"`
}

const filesPath = "/instances/{id}/files"

func (a *API) registerContents(h huma.API) {
	route(h, http.MethodGet, "/instances/{id}/logs", "get-logs", "What an instance has written to its output, while that is kept", a.logs, sends("text/plain; charset=utf-8", &huma.MediaType{Schema: &huma.Schema{Type: "string"}}))
	route(h, http.MethodGet, filesPath, "copy-from", "A file or directory of an instance's container, as a tar archive", a.copyFrom, sends(tarType, binaryBody()))
	route(h, http.MethodPut, filesPath, "copy-to", "Unpack a tar archive into a directory of an instance's container", a.copyTo, filesBody)
}

// sends describes an answer that is streamed. What breaks it off once it has
// begun is told in a trailer.
func sends(kind string, content *huma.MediaType) func(*huma.Operation) {
	return func(op *huma.Operation) {
		op.Responses["200"] = &huma.Response{
			Description: "streamed; trailer " + errorTrailer + " says, as a quoted JSON object with code and message, what broke it off",
			Content:     map[string]*huma.MediaType{kind: content},
		}
	}
}

func filesBody(op *huma.Operation) {
	op.DefaultStatus = http.StatusNoContent
	op.RequestBody = &huma.RequestBody{Required: true, Description: "a tar archive, streamed",
		Content: map[string]*huma.MediaType{tarType: binaryBody(), "application/octet-stream": binaryBody()}}
}

// logs gives the output of a run, also of one that has ended.
func (a *API) logs(ctx context.Context, in *logsInput) (*huma.StreamResponse, error) {
	run, err := a.loggedRun(ctx, in)
	if err != nil {
		return nil, err
	}
	agent, err := a.cluster.Node(run.Node)
	if err != nil {
		return nil, err
	}
	d := newDownload(in.w, "text/plain; charset=utf-8")
	return a.run(ctx, d, true, func(ctx context.Context) error {
		return agent.Logs(ctx, run.ID, workspace.LogSpec{Follow: in.Follow, Tail: in.Tail}, d)
	})
}

func (a *API) loggedRun(ctx context.Context, in *logsInput) (*workspace.Run, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	inst, err := r.instance(in.ID, in.ref())
	if err != nil {
		return nil, err
	}
	id := in.Run
	if id == "" {
		id = inst.Run
	}
	run := r.Run(id)
	switch {
	case in.Run != "" && (run == nil || run.Instance != inst.ID):
		return nil, workspace.Errorf(workspace.CodeNotFound, "instance %s has no run %q: berth run ls --instance %s shows them", inst.Name, in.Run, inst.Name)
	case run == nil:
		return nil, workspace.Errorf(workspace.CodeConflict, "instance %s was never started: it has written nothing", inst.Name)
	case run.Node == "":
		return nil, workspace.Errorf(workspace.CodeConflict, "run %s of instance %s has no container, it is %s (%s: %s)", run.ID, inst.Name, run.Phase, run.Reason, run.Message)
	}
	return run, keptOutput(run)
}

func (a *API) copyFrom(ctx context.Context, in *filesInput) (*huma.StreamResponse, error) {
	run, agent, err := a.filesAt(ctx, in)
	if err != nil {
		return nil, err
	}
	d := newDownload(in.w, tarType)
	return a.run(ctx, d, false, func(ctx context.Context) error { return agent.CopyFrom(ctx, run.ID, path.Clean(in.Path), d) })
}

func (a *API) copyTo(ctx context.Context, in *filesInput) (*nothing, error) {
	if err := checkArchive(in.r.Header.Get("Content-Type")); err != nil {
		return nil, err
	}
	run, agent, err := a.filesAt(ctx, in)
	if err != nil {
		return nil, err
	}
	ctx, cancel := a.stoppable(ctx)
	defer cancel()
	body := &upload{from: in.r.Body, control: http.NewResponseController(in.w)}
	err = agent.CopyTo(ctx, run.ID, path.Clean(in.Path), body)
	if err != nil && ctx.Err() == nil {
		body.drain()
	}
	return nil, a.orShutdown(err)
}

func (a *API) filesAt(ctx context.Context, in *filesInput) (*workspace.Run, workspace.NodeService, error) {
	if !path.IsAbs(in.Path) || strings.ContainsRune(in.Path, 0) {
		return nil, nil, workspace.InvalidField("path", "%q must be an absolute path", in.Path)
	}
	return a.container(ctx, &in.Inside)
}
