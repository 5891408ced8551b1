package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"berth/workspace"
)

// LogOptions choose which output of an instance is wanted. The zero value is
// all that is kept of its latest run.
type LogOptions struct {
	Run    string // id; empty: the latest
	Follow bool   // until the run has ended
	Tail   *int   // lines from the end; nil: all
}

// Logs writes an instance's output to w.
func (c *Client) Logs(ctx context.Context, ref string, o LogOptions, w io.Writer) error {
	query := url.Values{}
	if o.Run != "" {
		query.Set("run", o.Run)
	}
	if o.Follow {
		query.Set("follow", "true")
	}
	if o.Tail != nil {
		query.Set("tail", strconv.Itoa(*o.Tail))
	}
	return c.download(ctx, request{method: http.MethodGet, path: path("instances", ref, "logs"), query: query}, w)
}

// CopyFrom writes a file or directory of an instance's container to w, as a tar
// archive whose names begin with the last element of from.
func (c *Client) CopyFrom(ctx context.Context, ref, from string, w io.Writer) error {
	return c.download(ctx, request{method: http.MethodGet, path: path("instances", ref, "files"), query: url.Values{"path": {from}}}, w)
}

// CopyTo unpacks a tar archive into a directory of an instance's container. It
// is never retried.
func (c *Client) CopyTo(ctx context.Context, ref, dir string, archive io.Reader) error {
	_, err := c.do(ctx, request{method: http.MethodPut, path: path("instances", ref, "files"), query: url.Values{"path": {dir}}, stream: archive})
	return err
}

// download copies an answer to w as it comes.
func (c *Client) download(ctx context.Context, r request, w io.Writer) error {
	res, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	out := &destination{w: w}
	_, err = io.Copy(out, res.Body)
	switch {
	case out.err != nil:
		return out.err
	case err != nil:
		return brokenOff(ctx, c, err)
	}
	return trailerError(res)
}

// destination tells a writer that fails from a connection that does.
type destination struct {
	w   io.Writer
	err error
}

func (d *destination) Write(p []byte) (int, error) {
	n, err := d.w.Write(p)
	if err != nil {
		d.err = err
	}
	return n, err
}

func brokenOff(ctx context.Context, c *Client, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return workspace.Errorf(workspace.CodeUnavailable, "the answer of berthd at %s broke off: %v", c.where(), err)
}

// trailerError is what broke off an answer that had begun.
func trailerError(res *http.Response) error {
	quoted := res.Trailer.Get("X-Berth-Error")
	if quoted == "" {
		return nil
	}
	var e workspace.Error
	text, err := strconv.Unquote(quoted)
	if err == nil {
		err = json.Unmarshal([]byte(text), &e)
	}
	if err != nil {
		return fmt.Errorf("the answer broke off, and why can't be read: %w", err)
	}
	return &e
}

// Access is how to get into an instance, with the secrets that this takes.
func (c *Client) Access(ctx context.Context, ref string) (*workspace.Access, error) {
	return one[workspace.Access](ctx, c, request{method: http.MethodGet, path: path("instances", ref, "access")})
}

// PullImage lets a node fetch an image from its registry and gives the image.
// progress, which may be nil, is called with how far it is.
func (c *Client) PullImage(ctx context.Context, p workspace.PullRequest, progress func(workspace.PullProgress)) (*workspace.NodeImage, error) {
	res, err := c.open(ctx, request{method: http.MethodPost, path: "/images/pull", body: p})
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	for lines := json.NewDecoder(res.Body); ; {
		var e workspace.PullEvent
		if err := lines.Decode(&e); err != nil {
			if told := trailerError(res); told != nil {
				return nil, told
			}
			return nil, brokenOff(ctx, c, err)
		}
		switch {
		case e.Error != nil:
			return nil, e.Error
		case e.Image != nil:
			return e.Image, nil
		case e.Progress != nil && progress != nil:
			progress(*e.Progress)
		}
	}
}
