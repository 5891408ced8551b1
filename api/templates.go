package api

import (
	"bytes"
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type templateInput struct {
	Name string `path:"name"`
	Reading
}

// templateBody is a template as its author writes it: what is absent has its
// default, which a zero value can't tell from what was said.
type templateBody struct{ workspace.Template }

func (b *templateBody) UnmarshalJSON(text []byte) error {
	b.Template = workspace.DefaultTemplate()
	return json.Unmarshal(text, &b.Template)
}

type createTemplateInput struct{ Body templateBody }

type putTemplateInput struct {
	Name string `path:"name"`
	Body templateBody
}

type deleteTemplateInput struct {
	Name string `path:"name"`
}

func (a *API) registerTemplates(h huma.API) {
	route(h, http.MethodPost, "/templates", "create-template", "Make a template", a.createTemplate, created)
	route(h, http.MethodPut, "/templates/{name}", "put-template", "Make or replace a template", a.putTemplate)
	route(h, http.MethodGet, "/templates", "list-templates", "Templates in order of name", a.listTemplates)
	route(h, http.MethodGet, "/templates/{name}", "get-template", "One template", a.getTemplate)
	route(h, http.MethodDelete, "/templates/{name}", "delete-template", "Forget a template; instances made from it stay", a.deleteTemplate)
}

// createTemplate refuses a taken name, unless the template is the same: a
// request that is repeated is no error.
func (a *API) createTemplate(ctx context.Context, in *createTemplateInput) (*object[workspace.Template], error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	t := &in.Body.Template
	replay, err := r.replayed(ctx)
	if err != nil {
		return nil, err
	}
	if old := r.Template(t.Name); replay == nil && old != nil && !sameTemplate(*old, *t) {
		return nil, workspace.Errorf(workspace.CodeExists, "template %q exists: choose another name, or replace it (PUT)", old.Name)
	}
	return a.writeTemplate(ctx, t)
}

// sameTemplate compares what their authors wrote.
func sameTemplate(x, y workspace.Template) bool {
	for _, t := range []*workspace.Template{&x, &y} {
		t.BuiltIn, t.CreatedAt, t.UpdatedAt, t.ModifyIndex = false, time.Time{}, time.Time{}, 0
	}
	xs, errX := json.Marshal(x)
	ys, errY := json.Marshal(y)
	return errX == nil && errY == nil && bytes.Equal(xs, ys)
}

func (a *API) putTemplate(ctx context.Context, in *putTemplateInput) (*object[workspace.Template], error) {
	t := &in.Body.Template
	if t.Name == "" {
		t.Name = in.Name
	}
	if t.Name != in.Name {
		return nil, workspace.InvalidField("name", "is %q in the body and %q in the path", t.Name, in.Name)
	}
	return a.writeTemplate(ctx, t)
}

func (a *API) writeTemplate(ctx context.Context, t *workspace.Template) (*object[workspace.Template], error) {
	if err := t.Validate(); err != nil {
		return nil, err // a large one needn't go through the log to be refused
	}
	if _, err := a.propose(ctx, &state.PutTemplate{Template: *t}); err != nil {
		return nil, err
	}
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	// A replayed answer may be about one that is gone since.
	if now := r.Template(t.Name); now != nil {
		t = now
	}
	return &object[workspace.Template]{Meta: r.metaOf(t.ModifyIndex), Body: t}, nil
}

func (a *API) listTemplates(ctx context.Context, in *Paging) (*pageAnswer[workspace.Template], error) {
	return listed(ctx, a, "templates", in, func(r *reader) iter.Seq[*workspace.Template] { return r.Templates("") },
		func(t *workspace.Template) string { return t.Name })
}

func (a *API) getTemplate(ctx context.Context, in *templateInput) (*object[workspace.Template], error) {
	return a.templateAnswer(ctx, in.Name, in.Reading)
}

func (a *API) templateAnswer(ctx context.Context, name string, how Reading) (*object[workspace.Template], error) {
	r, err := a.reader(ctx, how)
	if err != nil {
		return nil, err
	}
	t := r.Template(name)
	if t == nil {
		return nil, noTemplate(name)
	}
	return &object[workspace.Template]{Meta: r.metaOf(t.ModifyIndex), Body: t}, nil
}

func noTemplate(name string) error {
	return workspace.Errorf(workspace.CodeNotFound, "there is no template %q: berth template ls shows them", name)
}

func (a *API) deleteTemplate(ctx context.Context, in *deleteTemplateInput) (*nothing, error) {
	_, err := a.propose(ctx, &state.DeleteTemplate{Name: in.Name})
	return nil, err
}
