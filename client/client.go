// Package client is the typed Go client of berth's native API. Every method
// asks the daemon once (again, for a short while, when it says that no leader
// is known) and gives *workspace.Error for whatever the daemon refuses, so that
// callers look at one kind of error whether it came from near or far.
package client

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"strings"

	"berth/workspace"
)

// DefaultSocket is where berthd listens when nothing else was configured.
const DefaultSocket = "/run/berth/berth.sock"

const base = "/berth/v1"

// Options say where the daemon is and who asks. The zero value is the control
// socket in its usual place.
type Options struct {
	Socket    string // path of the control socket; used when Addr is empty
	Addr      string // "http://host:port" or "https://host:port"
	Token     string // sent as a bearer token
	Workspace string // id or slug that requests which name none are about
}

// Client asks one daemon. It is safe for concurrent use.
type Client struct {
	options Options
	base    string
	http    *http.Client
}

// New makes a client; it doesn't connect.
func New(o Options) (*Client, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: 8, ExpectContinueTimeout: continueTimeout}
	c := &Client{options: o, base: strings.TrimRight(o.Addr, "/"), http: &http.Client{Transport: transport}}
	if o.Addr != "" {
		u, err := url.Parse(o.Addr)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, workspace.Errorf(workspace.CodeInvalid, "%q is no daemon's address: it looks like http://host:7180", o.Addr)
		}
		return c, nil
	}
	if o.Socket == "" {
		c.options.Socket = DefaultSocket
	}
	c.base = "http://berthd" // the host is never looked up: the dialer goes to the socket
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", c.options.Socket)
	}
	return c, nil
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Address of the daemon as it was given; empty: it is on this host's socket.
func (c *Client) Address() string { return c.options.Addr }

// where names the daemon for people.
func (c *Client) where() string {
	if c.options.Addr != "" {
		return c.options.Addr
	}
	return c.options.Socket
}

type idempotencyKey struct{}

// WithIdempotencyKey makes the one write that ctx is used for safe to repeat
// for 24 h, also from another process: the same key does it once. Without it
// each write gets a key of its own, which covers the client's own retries.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, idempotencyKey{}, key)
}
