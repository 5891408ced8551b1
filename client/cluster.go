package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"berth/gpu"
	"berth/workspace"
)

// Status of the cluster as this daemon sees it.
func (c *Client) Status(ctx context.Context) (*workspace.Overview, error) {
	return one[workspace.Overview](ctx, c, request{method: http.MethodGet, path: "/status"})
}

// Version of the daemon.
func (c *Client) Version(ctx context.Context) (*workspace.VersionInfo, error) {
	return one[workspace.VersionInfo](ctx, c, request{method: http.MethodGet, path: "/version", root: true})
}

// Nodes in order of id.
func (c *Client) Nodes(ctx context.Context, o ListOptions) (*Page[workspace.Node], error) {
	return list[workspace.Node](ctx, c, "/nodes", o)
}

// Node by id or host name.
func (c *Client) Node(ctx context.Context, ref string) (*workspace.Node, error) {
	return one[workspace.Node](ctx, c, request{method: http.MethodGet, path: path("nodes", ref)})
}

// Devices in order of UUID.
func (c *Client) Devices(ctx context.Context, o ListOptions) (*Page[gpu.Device], error) {
	return list[gpu.Device](ctx, c, "/devices", o)
}

// Device by UUID.
func (c *Client) Device(ctx context.Context, uuid string) (*gpu.Device, error) {
	return one[gpu.Device](ctx, c, request{method: http.MethodGet, path: path("devices", uuid)})
}

// Images that the nodes have, a row for each node that has one.
func (c *Client) Images(ctx context.Context, o ListOptions) (*Page[workspace.ImageOnNode], error) {
	return list[workspace.ImageOnNode](ctx, c, "/images", o)
}

// ImportOptions of an image archive.
type ImportOptions struct {
	Node string // id or name; empty: the daemon's own host
	Name string // reference to store it under; empty: what the archive says
}

// ImportImage sends an OCI archive to a node, without keeping it in memory, and
// gives the images stored. progress, which may be nil, is called with the bytes
// sent so far. It is never retried.
func (c *Client) ImportImage(ctx context.Context, archive io.Reader, o ImportOptions, progress func(sent int64)) ([]workspace.NodeImage, error) {
	query := url.Values{}
	if o.Node != "" {
		query.Set("node", o.Node)
	}
	if o.Name != "" {
		query.Set("name", o.Name)
	}
	if progress != nil {
		archive = &counter{Reader: archive, progress: progress}
	}
	page, err := one[Page[workspace.NodeImage]](ctx, c, request{
		method: http.MethodPost, path: "/images", query: query, stream: archive,
	})
	if err != nil {
		return nil, err
	}
	return page.Items, nil
}

type counter struct {
	io.Reader
	sent     int64
	progress func(int64)
}

func (r *counter) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.sent += int64(n)
	r.progress(r.sent)
	return n, err
}

// RemoveImage forgets a reference on a node (empty: the daemon's own host).
func (c *Client) RemoveImage(ctx context.Context, reference, node string) error {
	query := url.Values{"reference": {reference}}
	if node != "" {
		query.Set("node", node)
	}
	_, err := c.do(ctx, request{method: http.MethodDelete, path: "/images", query: query})
	return err
}
