package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
)

// ListOptions choose a page and filter it. A filter that a list doesn't know is
// refused by the daemon, with its name.
type ListOptions struct {
	Limit  int    // 0: the daemon's default (50); at most 500
	Cursor string // NextCursor of the page before

	Workspace string // instances, runs: id or slug; "*" for all
	Status    string // instances
	Name      string // instances
	Instance  string // runs: id
	Phase     string // runs
	Kind      string // instances, runs: interactive, job or external
	Latest    bool   // runs: only the latest of each instance there is
	Node      string // runs, devices, images: id or name
	State     string // devices
	Object    string // events: id of anything they are about
	After     string // events: id of the last one known

	Consistency string // "consistent", "default", "stale"
}

func (o ListOptions) query() url.Values {
	q := url.Values{}
	for name, value := range map[string]string{
		"cursor": o.Cursor, "workspace": o.Workspace, "status": o.Status, "name": o.Name, "instance": o.Instance,
		"phase": o.Phase, "kind": o.Kind, "node": o.Node, "state": o.State, "object": o.Object, "after": o.After,
		"consistency": o.Consistency,
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if o.Latest {
		q.Set("latest", "true")
	}
	if o.Limit != 0 {
		q.Set("limit", strconv.Itoa(o.Limit))
	}
	return q
}

// Page of a list.
type Page[T any] struct {
	Items      []T    `json:"items"`
	NextCursor string `json:"next_cursor"` // empty on the last page
	Total      int    `json:"-"`           // of the whole list; -1 when the daemon didn't say
}

// List is a method of Client that gives pages, such as (*Client).Instances.
type List[T any] func(context.Context, ListOptions) (*Page[T], error)

// All goes through all pages of a list: client.All(ctx, c.Instances, options).
// It ends after the first error.
func All[T any](ctx context.Context, list List[T], o ListOptions) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			page, err := list(ctx, o)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.NextCursor == "" {
				return
			}
			o.Cursor = page.NextCursor
		}
	}
}

func list[T any](ctx context.Context, c *Client, path string, o ListOptions) (*Page[T], error) {
	page := &Page[T]{Total: -1}
	header, err := c.do(ctx, request{method: http.MethodGet, path: path, query: o.query(), answer: page})
	if err != nil {
		return nil, err
	}
	if s := header.Get("X-Total-Count"); s != "" {
		if page.Total, err = strconv.Atoi(s); err != nil {
			return nil, fmt.Errorf("list %s: X-Total-Count: %w", path, err)
		}
	}
	return page, nil
}
