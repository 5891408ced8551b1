package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"berth/workspace"
)

// Cluster with its limits.
func (c *Client) Cluster(ctx context.Context) (*workspace.Cluster, error) {
	return one[workspace.Cluster](ctx, c, request{method: http.MethodGet, path: "/cluster"})
}

// UpdateCluster changes the cluster; ifIndex is as for UpdateWorkspace.
func (c *Client) UpdateCluster(ctx context.Context, change workspace.ClusterChange, ifIndex uint64) (*workspace.Cluster, error) {
	return one[workspace.Cluster](ctx, c, request{method: http.MethodPatch, path: "/cluster", header: ifMatch(ifIndex), body: change})
}

// ifMatch is the header that names a modify index, nil for 0.
func ifMatch(index uint64) http.Header {
	if index == 0 {
		return nil
	}
	return http.Header{"If-Match": {fmt.Sprintf("%q", fmt.Sprint(index))}}
}

// KillSwitch of a workspace, with the runs that turning it on would stop now.
func (c *Client) KillSwitch(ctx context.Context, ref string) (*workspace.KillSwitch, error) {
	return one[workspace.KillSwitch](ctx, c, request{method: http.MethodGet, path: path("workspaces", ref, "kill-switch")})
}

// SetKillSwitch of a workspace gives the runs that this has stopped.
func (c *Client) SetKillSwitch(ctx context.Context, ref string, active bool) (*workspace.KillSwitch, error) {
	return one[workspace.KillSwitch](ctx, c, request{method: http.MethodPost, path: path("workspaces", ref, "kill-switch"),
		body: workspace.KillSwitchChange{Active: active}})
}

// ClusterKillSwitch is KillSwitch for all workspaces.
func (c *Client) ClusterKillSwitch(ctx context.Context) (*workspace.KillSwitch, error) {
	return one[workspace.KillSwitch](ctx, c, request{method: http.MethodGet, path: "/cluster/kill-switch"})
}

// SetClusterKillSwitch is SetKillSwitch for all workspaces.
func (c *Client) SetClusterKillSwitch(ctx context.Context, active bool) (*workspace.KillSwitch, error) {
	return one[workspace.KillSwitch](ctx, c, request{method: http.MethodPost, path: "/cluster/kill-switch",
		body: workspace.KillSwitchChange{Active: active}})
}

// BlockUser keeps a user from starting anything in a workspace, or lets them
// again. What runs goes on.
func (c *Client) BlockUser(ctx context.Context, ref, user string, blocked bool) (*workspace.Member, error) {
	verb := "unblock"
	if blocked {
		verb = "block"
	}
	return one[workspace.Member](ctx, c, request{method: http.MethodPost, path: path("workspaces", ref, "members", user, verb)})
}

// Prices of the whole price book.
func (c *Client) Prices(ctx context.Context) (*workspace.PriceBook, error) {
	return one[workspace.PriceBook](ctx, c, request{method: http.MethodGet, path: "/prices"})
}

// SetPrice sets the price of an hour of something. Its node may be given by
// name; the answer has the id.
func (c *Client) SetPrice(ctx context.Context, p workspace.Price) (*workspace.Price, error) {
	return one[workspace.Price](ctx, c, request{method: http.MethodPut, path: "/prices", body: p})
}

// RemovePrice takes a price out of the price book; its amount doesn't matter.
func (c *Client) RemovePrice(ctx context.Context, p workspace.Price) error {
	query := url.Values{"resource": {p.Resource}}
	if p.GPUType != "" {
		query.Set("gpu_type", p.GPUType)
	}
	if p.Node != "" {
		query.Set("node", p.Node)
	}
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/prices", query: query})
	return err
}
