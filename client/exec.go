package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"

	"github.com/coder/websocket"

	"berth/stream"
	"berth/workspace"
)

// Exec runs a process in an instance's container and gives its exit code. It
// ends with ctx, and the process with it. A read of Stdin that is under way
// when the process ends is not waited for.
func (c *Client) Exec(ctx context.Context, ref string, spec workspace.ExecSpec, streams workspace.ExecStreams) (code int, err error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return 0, fmt.Errorf("encode what to run: %w", err)
	}
	ws, err := c.upgrade(ctx, path("instances", ref, "exec"), nil)
	if err != nil {
		return 0, err
	}
	if err := ws.Write(ctx, websocket.MessageText, text); err != nil {
		_ = ws.CloseNow() // it is broken already
		return 0, c.unreachable(ctx, err)
	}
	end := &ending{}
	s := stream.New(ws, stream.Config{
		Receive: []stream.Channel{stream.Stdout, stream.Stderr}, Send: []stream.Channel{stream.Stdin}, Note: end.note,
	})
	defer s.Close()
	defer context.AfterFunc(ctx, s.Abort)()
	go send(s, streams.Stdin)
	go resizing(s, streams.Resize)
	if err := receive(s, streams); err != nil {
		s.Abort()
		return 0, orDone(ctx, err)
	}
	return end.of(ctx, s)
}

// send copies input until it, or the session, ends.
func send(s *stream.Session, stdin io.Reader) {
	if stdin != nil {
		if _, err := io.Copy(s.Writer(stream.Stdin), stdin); err != nil {
			return // the session's own end says more
		}
	}
	_ = s.CloseWrite()
}

func resizing(s *stream.Session, sizes <-chan workspace.TerminalSize) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok || s.SendJSON(stream.Resize, size) != nil {
				return
			}
		case <-s.Done():
			return
		}
	}
}

// receive copies the output to its end.
func receive(s *stream.Session, streams workspace.ExecStreams) error {
	var copies sync.WaitGroup
	errs := make([]error, 2)
	for i, out := range []struct {
		channel stream.Channel
		w       io.Writer
	}{{stream.Stdout, streams.Stdout}, {stream.Stderr, streams.Stderr}} {
		if out.w == nil {
			out.w = io.Discard
		}
		copies.Go(func() {
			if _, errs[i] = io.Copy(out.w, s.Reader(out.channel)); errs[i] != nil {
				s.Interrupt(errs[i]) // a process whose output nobody takes would hang
			}
		})
	}
	copies.Wait()
	return cmp.Or(errs...)
}

// ending is what the server has said of a session's end.
type ending struct {
	mu  sync.Mutex
	end *stream.End
	err error
}

func (e *ending) note(c stream.Channel, content []byte) {
	if c != stream.Ended {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.end = &stream.End{}
	e.err = json.Unmarshal(content, e.end)
}

// of is how a session ended whose readers are at their end.
func (e *ending) of(ctx context.Context, s *stream.Session) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.err != nil:
		return 0, fmt.Errorf("read how it ended: %w", e.err)
	case e.end == nil:
		return 0, orDone(ctx, s.Err())
	case e.end.Error != nil:
		return 0, e.end.Error
	}
	return e.end.Code, nil
}

// orDone is why a session broke.
func orDone(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil:
		return workspace.Errorf(workspace.CodeUnavailable, "the connection to berthd ended")
	}
	return err
}

// Forward connects to a port inside an instance's container. The connection is
// the caller's to close; ctx bounds only its making.
func (c *Client) Forward(ctx context.Context, ref string, port int) (workspace.Stream, error) {
	ws, err := c.upgrade(ctx, path("instances", ref, "forward"), url.Values{"port": {strconv.Itoa(port)}})
	if err != nil {
		return nil, err
	}
	f := &forwarded{}
	f.session = stream.New(ws, stream.Config{Receive: []stream.Channel{stream.Data}, Send: []stream.Channel{stream.Data}, Note: f.end.note})
	f.reader, f.Writer = f.session.Reader(stream.Data), f.session.Writer(stream.Data)
	return f, nil
}

// forwarded is a connection to a container.
type forwarded struct {
	io.Writer
	session *stream.Session
	reader  io.Reader
	end     ending
}

// Read gives EOF only where the other side has ended well.
func (f *forwarded) Read(p []byte) (int, error) {
	n, err := f.reader.Read(p)
	if errors.Is(err, io.EOF) {
		f.end.mu.Lock()
		defer f.end.mu.Unlock()
		if f.end.end != nil && f.end.end.Error != nil {
			return n, f.end.end.Error
		}
	}
	return n, err
}

// CloseWrite says that nothing more is sent.
func (f *forwarded) CloseWrite() error { return f.session.CloseWrite() }

// Close ends the connection.
func (f *forwarded) Close() error {
	f.session.Close()
	return nil
}
