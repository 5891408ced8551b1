package api

import (
	"context"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

const workspaceHeader = "X-Berth-Workspace"

// Reading is how fresh an answer must be.
type Reading struct {
	Consistency string `query:"consistency" enum:"default,consistent,stale" doc:"consistent: leadership is verified after the request came; stale: says how old the answer may be"`
}

// Scope is the workspace a request is about.
type Scope struct {
	Workspace       string `query:"workspace" doc:"id or slug"`
	WorkspaceHeader string `header:"X-Berth-Workspace" doc:"id or slug, where the query names none; without both: the default workspace"`
}

func (s *Scope) ref() string {
	if s.Workspace != "" {
		return s.Workspace
	}
	return s.WorkspaceHeader
}

// Target is one object, by id or name.
type Target struct {
	ID string `path:"id" doc:"id or name"`
}

// Meta is what every answer from the state tells about it.
type Meta struct {
	Index uint64 `header:"X-Berth-Index" doc:"the log entry up to which the answer knows"`
	Age   string `header:"X-Berth-Age-Ms" doc:"how old the answer may be; only with consistency=stale"`
	ETag  string `header:"ETag" doc:"modify index of the one object"`
}

// object is an answer with one object.
type object[T any] struct {
	Meta
	Body *T
}

type nothing struct{}

// route registers one operation. Errors of handle become problems.
func route[I, O any](h huma.API, method, path, id, summary string, handle func(context.Context, *I) (*O, error), options ...func(*huma.Operation)) {
	op := huma.Operation{
		OperationID: id, Method: method, Path: base + path, Summary: summary, Tags: []string{tag(path)},
		BodyReadTimeout: -1, // takeBody has read it
		MaxBodyBytes:    maxBody + 1,
		Responses:       map[string]*huma.Response{"default": problemResponse(h)},
	}
	for _, option := range options {
		option(&op)
	}
	huma.Register(h, op, func(ctx context.Context, in *I) (*O, error) {
		if _, err := principalOf(ctx); err != nil {
			return nil, problemOf(err)
		}
		out, err := handle(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

func created(op *huma.Operation) { op.DefaultStatus = http.StatusCreated }

// tag groups operations by the noun of their path.
func tag(path string) string {
	noun, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	noun, _, _ = strings.Cut(noun, ":")
	return noun
}

func problemResponse(h huma.API) *huma.Response {
	return &huma.Response{Description: "Problem", Content: map[string]*huma.MediaType{
		problemType: {Schema: h.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[Problem](), true, "Problem")},
	}}
}

// reader makes a request's view of the state.
func (a *API) reader(ctx context.Context, how Reading) (*reader, error) {
	who, err := principalOf(ctx)
	if err != nil {
		return nil, err
	}
	r := &reader{View: a.cluster.View(), who: who}
	switch how.Consistency {
	case "consistent":
		if r.View, err = a.cluster.Consistent(ctx); err != nil {
			return nil, err
		}
	case "stale":
		r.age = strconv.FormatInt(a.cluster.Status().Age.Milliseconds(), 10)
	}
	if r.Cluster() == nil {
		return nil, workspace.Errorf(workspace.CodeUnavailable, "the cluster has just been born and isn't ready: try again")
	}
	return r, nil
}

// replayed finds what a request got that was carried out before under the same
// Idempotency-Key, nil when there is none. A retry is answered by it before
// anything that it names is looked up: that may be gone since.
func (r *reader) replayed(ctx context.Context) (*state.Result, error) {
	idem := requestOf(ctx).idem
	if idem == nil {
		return nil, nil
	}
	res, ok := r.Outcome(*idem)
	switch {
	case !ok:
		return nil, nil
	case res.Err != nil:
		return nil, res.Err
	}
	return &res, nil
}

// propose carries out a change. What Apply refuses is the error.
func (a *API) propose(ctx context.Context, cmd state.Command) (state.Result, error) {
	who, err := principalOf(ctx)
	if err != nil {
		return state.Result{}, err
	}
	res, err := a.cluster.Propose(ctx, cmd, state.Caller{
		RequestID: newID(), Principal: who.User, Role: who.Role, Idem: requestOf(ctx).idem,
	})
	if err == nil && res.Err != nil {
		err = res.Err
	}
	return res, err
}

// etag of an object.
func etag(index uint64) string { return `"` + strconv.FormatUint(index, 10) + `"` }

// ifMatch reads the modify index of an If-Match header, 0 for any.
func ifMatch(header string) (uint64, error) {
	if header == "" || header == "*" {
		return 0, nil
	}
	text := strings.Trim(strings.TrimPrefix(header, "W/"), `"`)
	index, err := strconv.ParseUint(text, 10, 64)
	if err != nil || index == 0 {
		return 0, workspace.Errorf(workspace.CodeMalformed, "If-Match: %q is not an ETag of this API, such as \"120\"", header)
	}
	return index, nil
}
