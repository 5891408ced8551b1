package client

import (
	"context"
	"net/http"

	"berth/gpu"
	"berth/workspace"
)

// Volumes of a workspace, oldest first.
func (c *Client) Volumes(ctx context.Context, o ListOptions) (*Page[workspace.Volume], error) {
	return list[workspace.Volume](ctx, c, "/volumes", o)
}

// Volume by id.
func (c *Client) Volume(ctx context.Context, id string) (*workspace.Volume, error) {
	return one[workspace.Volume](ctx, c, request{method: http.MethodGet, path: path("volumes", id)})
}

// KeepVolume changes what becomes of a detached volume; an empty policy keeps it
// until someone removes it.
func (c *Client) KeepVolume(ctx context.Context, id, policy string) (*workspace.Volume, error) {
	return one[workspace.Volume](ctx, c, request{method: http.MethodPost, path: path("volumes", id, "keep"), body: workspace.KeepVolume{Policy: policy}})
}

// RemoveVolume orders a detached volume's deletion. It is gone once its node has
// deleted it.
func (c *Client) RemoveVolume(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: path("volumes", id)})
	return err
}

// Registries that the cluster logs in to, in order of host.
func (c *Client) Registries(ctx context.Context, o ListOptions) (*Page[workspace.Registry], error) {
	return list[workspace.Registry](ctx, c, "/registries", o)
}

// SetRegistry keeps the login to a registry.
func (c *Client) SetRegistry(ctx context.Context, host string, l workspace.RegistryLoginChange) (*workspace.Registry, error) {
	return one[workspace.Registry](ctx, c, request{method: http.MethodPut, path: path("registries", host), body: l})
}

// RemoveRegistry forgets the login to a registry.
func (c *Client) RemoveRegistry(ctx context.Context, host string) error {
	_, err := c.do(ctx, request{method: http.MethodDelete, path: path("registries", host)})
	return err
}

// Readings are what the devices of a node (empty: of all) measure now.
func (c *Client) Readings(ctx context.Context, o ListOptions) (*Page[gpu.Reading], error) {
	return list[gpu.Reading](ctx, c, "/devices/readings", o)
}
