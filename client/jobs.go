package client

import (
	"context"
	"net/http"
	"time"

	"berth/workspace"
)

// Extend moves the time at which an instance is deleted; zero: never.
func (c *Client) Extend(ctx context.Context, ref string, until time.Time) (*workspace.Instance, error) {
	body := workspace.Extension{ToBeDeletedAt: workspace.Optional[time.Time]{Set: true}}
	if !until.IsZero() {
		until = until.UTC()
		body.ToBeDeletedAt.Value = &until
	}
	return one[workspace.Instance](ctx, c, request{method: http.MethodPost, path: path("instances", ref, "extend"), body: body})
}

// StartExternal asks for leave to run something elsewhere. A denial is an error
// with the code of the rule that denies; it names the run that is kept of it.
func (c *Client) StartExternal(ctx context.Context, n workspace.NewExternalRun) (*workspace.Run, error) {
	return one[workspace.Run](ctx, c, request{method: http.MethodPost, path: "/external-runs", body: n})
}

// RenewExternal begins the lease of an external run anew. Reading the run
// doesn't.
func (c *Client) RenewExternal(ctx context.Context, id string) (*workspace.Run, error) {
	return one[workspace.Run](ctx, c, request{method: http.MethodPost, path: path("external-runs", id, "renew")})
}

// EndExternal says how an external run has ended.
func (c *Client) EndExternal(ctx context.Context, id string, end workspace.ExternalEnd) (*workspace.Run, error) {
	return one[workspace.Run](ctx, c, request{method: http.MethodPost, path: path("external-runs", id, "end"), body: end})
}

// DeleteWorkspace archives a workspace and takes it out of lists; its ledger
// and its slug stay.
func (c *Client) DeleteWorkspace(ctx context.Context, ref string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: path("workspaces", ref)})
	return err
}
