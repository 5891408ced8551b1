package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// Client speaks to a guard. Each call has a connection of its own, so a guard
// that was started anew is found. It is safe for concurrent use.
type Client struct{ socket string }

// NewClient is a client of the guard behind a unix socket. It needn't be there
// yet.
func NewClient(socket string) *Client { return &Client{socket: socket} }

// patience is how long a guard may take for one call. One that is dead is known
// at once; this is for one that is paused.
const patience = 2 * time.Second

// Set stores a deadline, or replaces the one held for its run by one that ends
// at the same time or later; a TERM whose moment is still to come is sent even
// if there was one before. It is on the guard's disk when the answer is nil.
// Errors: ErrEarlier, ErrEnded, ErrOtherBoot, ErrInvalid, ErrUnavailable, or what
// went wrong on the guard's disk: then the one it held goes on.
func (c *Client) Set(ctx context.Context, d Deadline) error {
	return c.do(ctx, request{Op: opSet, Deadline: &d})
}

// Stop is Set, but may move the end earlier, to now or before too.
func (c *Client) Stop(ctx context.Context, d Deadline) error {
	return c.do(ctx, request{Op: opStop, Deadline: &d})
}

// Clear makes the guard forget a run: nothing of it is ended any more. One that
// it doesn't know is no error.
func (c *Client) Clear(ctx context.Context, run string) error {
	return c.do(ctx, request{Op: opClear, Run: run})
}

// List gives what the guard holds, in the order of runs' names. Ended entries
// stay until they are cleared, but no longer than a day after they were empty.
func (c *Client) List(ctx context.Context) ([]Entry, error) {
	var all []Entry
	err := c.call(ctx, request{Op: opList}, func(r *reply) (more bool) {
		if r.Entry != nil {
			all = append(all, *r.Entry)
		}
		return r.Entry != nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// Status asks the guard for what it says of itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.call(ctx, request{Op: opStatus}, func(r *reply) (more bool) {
		if r.Status != nil {
			s = *r.Status
		}
		return false
	})
	return s, err
}

// Quit ends a guard that holds nothing. It gives ErrBusy when it does hold
// something: Clear that first.
func (c *Client) Quit(ctx context.Context) error { return c.do(ctx, request{Op: opQuit}) }

func (c *Client) do(ctx context.Context, r request) error {
	return c.call(ctx, r, func(*reply) bool { return false })
}

// call sends a request and hands out replies for as long as take wants more.
func (c *Client) call(ctx context.Context, r request, take func(*reply) (more bool)) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("guard: encode the request: %w", err)
	}
	if len(line) >= maxLine {
		return fmt.Errorf("guard: %w: a request of %d bytes: at most %d", ErrInvalid, len(line), maxLine)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return c.unavailable(ctx, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return c.unavailable(ctx, err)
	}
	replies := json.NewDecoder(bufio.NewReader(conn))
	for {
		var one reply
		if err := replies.Decode(&one); err != nil {
			return c.unavailable(ctx, err)
		}
		if err := one.err(); err != nil {
			return err
		}
		if !take(&one) {
			return nil
		}
	}
}

func (c *Client) unavailable(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("guard: %w at %s: %w", ErrUnavailable, c.socket, err)
}
