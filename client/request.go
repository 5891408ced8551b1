package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"syscall"
	"time"

	"berth/workspace"
)

const (
	// continueTimeout is how long an upload waits for the daemon's word that it
	// is wanted before it is sent anyway.
	continueTimeout = 2 * time.Second
	// retries and longestPause bound how long a daemon without a leader is asked
	// again; an election takes a second or two.
	retries      = 5
	longestPause = 2 * time.Second
	// maxAnswer bounds what is read of an answer: 500 of the largest objects fit.
	maxAnswer = 256 << 20
)

// request to the daemon. At most one of body and stream is set.
type request struct {
	method string
	path   string // below the base of the native API
	root   bool   // path is below the server's root instead
	query  url.Values
	header http.Header
	body   any
	stream io.Reader // sent as it comes, never retried
	answer any       // where the JSON goes; nil: thrown away
}

// one asks for one object.
func one[T any](ctx context.Context, c *Client, r request) (*T, error) {
	answer := new(T)
	r.answer = answer
	if _, err := c.do(ctx, r); err != nil {
		return nil, err
	}
	return answer, nil
}

// do asks and reads the answer.
func (c *Client) do(ctx context.Context, r request) (http.Header, error) {
	res, err := c.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if r.answer == nil || res.StatusCode == http.StatusNoContent {
		return res.Header, nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(r.answer); err != nil {
		return nil, fmt.Errorf("read the answer to %s %s: %w", r.method, r.path, err)
	}
	return res.Header, nil
}

// open asks, again while the daemon says that it has no leader, and gives the
// answer when it is a success.
func (c *Client) open(ctx context.Context, r request) (*http.Response, error) {
	body, err := encode(r)
	if err != nil {
		return nil, err
	}
	header := c.header(ctx, r)
	for attempt := 1; ; attempt++ {
		res, err := c.once(ctx, r, header, body)
		if err != nil {
			return nil, err
		}
		if res.StatusCode < 300 {
			return res, nil
		}
		pause, again := retryAfter(res)
		err = problem(res)
		res.Body.Close()
		if !again || r.stream != nil || attempt == retries || !sleep(ctx, pause) {
			return nil, err
		}
	}
}

func encode(r request) ([]byte, error) {
	if r.body == nil {
		return nil, nil
	}
	body, err := json.Marshal(r.body)
	if err != nil {
		return nil, fmt.Errorf("encode the body of %s %s: %w", r.method, r.path, err)
	}
	return body, nil
}

func (c *Client) header(ctx context.Context, r request) http.Header {
	h := r.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	if c.options.Token != "" {
		h.Set("Authorization", "Bearer "+c.options.Token)
	}
	if c.options.Workspace != "" {
		h.Set("X-Berth-Workspace", c.options.Workspace)
	}
	if r.body != nil {
		h.Set("Content-Type", "application/json")
	}
	if r.stream != nil {
		h.Set("Content-Type", "application/x-tar")
		h.Set("Expect", "100-continue") // a refusal comes before gigabytes are sent
	}
	if r.method != http.MethodGet && r.stream == nil {
		key, ok := ctx.Value(idempotencyKey{}).(string)
		if !ok {
			key = rand.Text()
		}
		h.Set("Idempotency-Key", key)
	}
	return h
}

func (c *Client) once(ctx context.Context, r request, header http.Header, body []byte) (*http.Response, error) {
	reader := r.stream
	if body != nil {
		reader = bytes.NewReader(body)
	}
	address := c.base + base + r.path
	if r.root {
		address = c.base + r.path
	}
	if len(r.query) > 0 {
		address += "?" + r.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, reader)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", c.where(), err)
	}
	req.Header = header
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return res, nil
}

// unreachable says what to do about a daemon that doesn't answer.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the made-up URL
	}
	hint := "is it running? See: systemctl status berthd"
	switch {
	case c.options.Addr != "":
		hint = "is the address right, and is berthd running there?"
	case errors.Is(err, os.ErrPermission):
		return workspace.Errorf(workspace.CodeDenied,
			"you may not use berthd's socket %s: join its group (sudo usermod -aG berth $USER, then log in again), or be root", c.where())
	case errors.Is(err, os.ErrNotExist):
		hint = "there is no such socket; is berthd running (systemctl status berthd), or does it have another socket (BERTH_SOCKET)?"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "nobody listens there; see: systemctl status berthd"
	}
	return workspace.Errorf(workspace.CodeUnavailable, "can't reach berthd at %s: %v: %s", c.where(), err, hint)
}

// retryAfter says whether asking again may help, and when.
func retryAfter(res *http.Response) (time.Duration, bool) {
	seconds, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if res.StatusCode != http.StatusServiceUnavailable || err != nil {
		return 0, false
	}
	return min(time.Duration(seconds)*time.Second, longestPause), true
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// problem makes the error of an answer that is no success (RFC 9457).
func problem(res *http.Response) error {
	var p struct {
		Code      workspace.Code    `json:"code"`
		Detail    string            `json:"detail"`
		Fields    map[string]string `json:"fields"`
		Run       string            `json:"run"`
		RequestID string            `json:"request_id"`
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(text, &p) != nil || p.Code == "" {
		return workspace.Errorf(workspace.CodeInternal, "the answer was %s, and not berthd's: is this a berthd?", res.Status)
	}
	if p.Code == workspace.CodeInternal && p.RequestID != "" {
		p.Detail += " (request " + p.RequestID + " in berthd's log)"
	}
	if p.Run != "" {
		p.Detail += " (kept for a day as run " + p.Run + ")"
	}
	return &workspace.Error{Code: p.Code, Message: p.Detail, Fields: p.Fields}
}
