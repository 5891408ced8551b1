package client

import (
	"context"
	"net/http"
	"net/url"

	"berth/workspace"
)

// A workspace, node or instance is named by its id, or by its slug or name.

// CreateWorkspace makes a workspace.
func (c *Client) CreateWorkspace(ctx context.Context, n workspace.NewWorkspace) (*workspace.Workspace, error) {
	return one[workspace.Workspace](ctx, c, request{method: http.MethodPost, path: "/workspaces", body: n})
}

// Workspaces in order of creation, archived ones too.
func (c *Client) Workspaces(ctx context.Context, o ListOptions) (*Page[workspace.Workspace], error) {
	return list[workspace.Workspace](ctx, c, "/workspaces", o)
}

// Workspace by id or slug.
func (c *Client) Workspace(ctx context.Context, ref string) (*workspace.Workspace, error) {
	return one[workspace.Workspace](ctx, c, request{method: http.MethodGet, path: path("workspaces", ref)})
}

// UpdateWorkspace changes a workspace. With an ifIndex other than 0 it is refused
// with CodeTooOld unless that is still the workspace's modify index.
func (c *Client) UpdateWorkspace(ctx context.Context, ref string, change workspace.WorkspaceChange, ifIndex uint64) (*workspace.Workspace, error) {
	return one[workspace.Workspace](ctx, c, request{method: http.MethodPatch, path: path("workspaces", ref), header: ifMatch(ifIndex), body: change})
}

// ArchiveWorkspace ends a workspace for good: what runs in it is stopped.
func (c *Client) ArchiveWorkspace(ctx context.Context, ref string) (*workspace.Workspace, error) {
	return one[workspace.Workspace](ctx, c, request{method: http.MethodPost, path: path("workspaces", ref, "archive")})
}

// PutTemplate makes or replaces a template.
func (c *Client) PutTemplate(ctx context.Context, t workspace.Template) (*workspace.Template, error) {
	return one[workspace.Template](ctx, c, request{method: http.MethodPut, path: path("templates", t.Name), body: t})
}

// CreateTemplate makes a template. A name that another template has is refused;
// the very same template again is no error.
func (c *Client) CreateTemplate(ctx context.Context, t workspace.Template) (*workspace.Template, error) {
	return one[workspace.Template](ctx, c, request{method: http.MethodPost, path: "/templates", body: t})
}

// Templates in order of name.
func (c *Client) Templates(ctx context.Context, o ListOptions) (*Page[workspace.Template], error) {
	return list[workspace.Template](ctx, c, "/templates", o)
}

// Template by name.
func (c *Client) Template(ctx context.Context, name string) (*workspace.Template, error) {
	return one[workspace.Template](ctx, c, request{method: http.MethodGet, path: path("templates", name)})
}

// DeleteTemplate forgets a template; instances made from it stay.
func (c *Client) DeleteTemplate(ctx context.Context, name string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: path("templates", name)})
	return err
}

// path joins parts below the base, each escaped whole.
func path(parts ...string) string {
	joined := ""
	for _, p := range parts {
		joined += "/" + url.PathEscape(p)
	}
	return joined
}
