package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"time"

	"berth/workspace"
)

// ListEvents are the events kept, oldest first.
func (c *Client) ListEvents(ctx context.Context, o ListOptions) (*Page[workspace.Event], error) {
	return list[workspace.Event](ctx, c, "/events", o)
}

// EventFilter chooses what Events gives.
type EventFilter struct {
	After  string // id of the last event known; "now": only new ones; empty: all that are kept, then new ones
	Object string // id of anything they are about; empty: all
}

// maxEvent bounds one line of the stream.
const maxEvent = 1 << 20

// Events follows what happens until ctx ends (with its error) or the caller
// stops. A connection that breaks is made again, for a minute, and goes on after
// the last event given. A daemon that refuses, or isn't there from the start,
// ends it with the error.
func (c *Client) Events(ctx context.Context, f EventFilter) iter.Seq2[workspace.Event, error] {
	return func(yield func(workspace.Event, error) bool) {
		give := func(e workspace.Event) bool {
			f.After = e.ID
			return yield(e, nil)
		}
		var connected time.Time // of the latest connection that was answered
		for {
			opened, err := c.follow(ctx, f, give)
			if errors.Is(err, errStopped) {
				return
			}
			if opened {
				connected = time.Now()
			}
			gone := workspace.CodeOf(err) != workspace.CodeUnavailable || time.Since(connected) > time.Minute
			if err != nil && gone || ctx.Err() != nil || !sleep(ctx, reconnectPause) {
				if ctx.Err() != nil {
					err = ctx.Err()
				}
				yield(workspace.Event{}, err)
				return
			}
		}
	}
}

const reconnectPause = 500 * time.Millisecond

var errStopped = errors.New("the reader of events has had enough")

// follow reads one connection to its end. opened says that the daemon answered.
func (c *Client) follow(ctx context.Context, f EventFilter, give func(workspace.Event) bool) (opened bool, err error) {
	query := url.Values{}
	if f.After != "" {
		query.Set("after", f.After)
	}
	if f.Object != "" {
		query.Set("object", f.Object)
	}
	res, err := c.open(ctx, request{
		method: http.MethodGet, path: "/events", query: query, header: http.Header{"Accept": {"text/event-stream"}},
	})
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	return true, readEvents(res.Body, give)
}

// readEvents takes the data lines of a stream of server-sent events; ours have
// one each. A stream that just ends is no error: the caller asks again.
func readEvents(r io.Reader, give func(workspace.Event) bool) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data:"))
		if !ok {
			continue
		}
		var e workspace.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		if !give(e) {
			return errStopped
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("read events: %w", lines.Err())
	}
	return nil
}
