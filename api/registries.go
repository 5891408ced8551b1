package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type registryInput struct {
	Host string `path:"host" doc:"such as ghcr.io or registry.lab:5000"`
	Reading
}

type setRegistryInput struct {
	Host string `path:"host" doc:"such as ghcr.io or registry.lab:5000"`
	Body workspace.RegistryLoginChange
}

type removeRegistryInput struct {
	Host string `path:"host"`
}

func (a *API) registerRegistries(h huma.API) {
	route(h, http.MethodGet, "/registries", "list-registries", "Registries that the cluster logs in to, in order of host", a.listRegistries)
	route(h, http.MethodGet, "/registries/{host}", "get-registry", "Who logs in to one registry; its password is never shown", a.getRegistry)
	route(h, http.MethodPut, "/registries/{host}", "set-registry", "Keep the login to a registry", a.setRegistry)
	route(h, http.MethodDelete, "/registries/{host}", "remove-registry", "Forget the login to a registry", a.removeRegistry)
}

// registryReader is a reader for those who may know of logins.
func (a *API) registryReader(ctx context.Context, how Reading) (*reader, error) {
	r, err := a.reader(ctx, how)
	if err != nil {
		return nil, err
	}
	if !r.admin() {
		return nil, workspace.Errorf(workspace.CodeDenied, "only a cluster admin may see the logins to registries; you are %s (%s)", r.who.User, r.who.Role)
	}
	return r, nil
}

func (a *API) listRegistries(ctx context.Context, in *Paging) (*pageAnswer[workspace.Registry], error) {
	r, err := a.registryReader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	return paged(a, r, "registries", in, r.Registries(), func(x *workspace.Registry) string { return x.Host })
}

func (a *API) getRegistry(ctx context.Context, in *registryInput) (*object[workspace.Registry], error) {
	return a.registryAnswer(ctx, in.Host, in.Reading)
}

func (a *API) registryAnswer(ctx context.Context, host string, how Reading) (*object[workspace.Registry], error) {
	r, err := a.registryReader(ctx, how)
	if err != nil {
		return nil, err
	}
	x := r.Registry(workspace.CanonicalRegistry(host))
	if x == nil {
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no login to registry %q: berth registry ls shows them", host)
	}
	return &object[workspace.Registry]{Meta: r.metaOf(x.ModifyIndex), Body: x}, nil
}

// setRegistry seals the password: neither the log nor an answer has it in clear.
func (a *API) setRegistry(ctx context.Context, in *setRegistryInput) (*object[workspace.Registry], error) {
	if in.Body.Password == "" {
		return nil, workspace.InvalidField("password", "is required")
	}
	sealed, err := a.cluster.Seal(workspace.NewSecret(in.Body.Password))
	if err != nil {
		return nil, err
	}
	if _, err := a.propose(ctx, &state.SetRegistry{Host: in.Host, Username: in.Body.Username, Password: sealed}); err != nil {
		return nil, err
	}
	return a.registryAnswer(ctx, in.Host, Reading{})
}

func (a *API) removeRegistry(ctx context.Context, in *removeRegistryInput) (*nothing, error) {
	_, err := a.propose(ctx, &state.RemoveRegistry{Host: in.Host})
	return nil, err
}
