package client

import (
	"context"
	"net/http"
	"net/url"

	"github.com/coder/websocket"
)

// upgrade opens a websocket. What the daemon refuses is its error.
func (c *Client) upgrade(ctx context.Context, path string, query url.Values) (*websocket.Conn, error) {
	address := c.base + base + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	answer := &upgrading{next: c.http.Transport}
	ws, res, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: answer},
		HTTPHeader: c.header(ctx, request{method: http.MethodGet}),
	})
	if res != nil && res.Body != nil && err != nil {
		res.Body.Close()
	}
	switch {
	case answer.refusal != nil:
		return nil, answer.refusal
	case err != nil && answer.broken != nil:
		return nil, c.unreachable(ctx, answer.broken)
	case err != nil:
		return nil, c.unreachable(ctx, err)
	}
	return ws, nil
}

// upgrading reads refusals whole: the websocket's library cuts them off.
type upgrading struct {
	next            http.RoundTripper
	refusal, broken error
}

func (u *upgrading) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := u.next.RoundTrip(r)
	if err != nil {
		u.broken = err
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		u.refusal = problem(res)
	}
	return res, nil
}
