// Package stream carries the bytes of a process or of a connection over one
// websocket. Each binary message is a frame: a byte for its channel, then its
// content. Both ends always read and keep at most a window of each channel until
// its reader takes it, so that one that is slow holds up nothing else: the end
// of the other side, and the answer to a ping, are seen at once.
package stream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/coder/websocket"

	"berth/workspace"
)

// Channel is what a frame is about.
type Channel byte

// The channels. Numbers are part of the API.
const (
	Stdin      Channel = 0 // bytes to a process; both ways of a forwarded connection
	Stdout     Channel = 1
	Stderr     Channel = 2
	Resize     Channel = 3 // a workspace.TerminalSize as JSON
	EndOfInput Channel = 4 // empty: nothing more comes on channel 0
	Ended      Channel = 5 // an End as JSON; the last frame of a server
	Taken      Channel = 6 // a channel, then a uint32 (big endian): so many of its bytes were read

	Data = Stdin // of a forwarded connection
)

// Window is how many bytes of a channel may be on their way: sent, and not yet
// said to be taken.
const Window = 512 << 10

// Sizes of messages.
const (
	maxFrame   = 32 << 10 // bytes of a channel in a frame that we send
	maxMessage = 1 << 20  // that we read: a command with its environment fits
)

// End is how a process or a connection ended. Without an error the code is the
// process's exit code.
type End struct {
	Code  int              `json:"code"`
	Error *workspace.Error `json:"error,omitempty"`
}

// Config of a Session.
type Config struct {
	Receive []Channel // whose bytes the other end sends: each has a Reader
	Send    []Channel // whose bytes this end sends: each has a Writer
	// Note takes frames of other channels, in order. It must not block, and not
	// keep the content.
	Note func(c Channel, content []byte)
	// Ping is the time between pings; zero is 30 s.
	Ping time.Duration
	// Patience is the longest that the answer to a ping may take; zero is as long
	// as Ping.
	Patience time.Duration
}

// Session is one end of a websocket. All methods are safe for concurrent use.
type Session struct {
	ws    *websocket.Conn
	note  func(Channel, []byte)
	in    map[Channel]*inbox
	out   map[Channel]*credit
	tasks sync.WaitGroup

	writing sync.Mutex
	frame   []byte

	ended chan struct{}
	end   sync.Once
	err   error // once ended is closed
}

// New takes a websocket over. The caller ends it with Close.
func New(ws *websocket.Conn, c Config) *Session {
	s := &Session{
		ws: ws, note: c.Note, in: map[Channel]*inbox{}, out: map[Channel]*credit{},
		frame: make([]byte, 0, maxFrame+1), ended: make(chan struct{}),
	}
	for _, channel := range c.Receive {
		s.in[channel] = newInbox()
	}
	for _, channel := range c.Send {
		s.out[channel] = newCredit()
	}
	if c.Ping == 0 {
		c.Ping = 30 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = c.Ping
	}
	ws.SetReadLimit(maxMessage)
	s.tasks.Go(s.read)
	s.tasks.Go(func() { s.ping(c.Ping, c.Patience) })
	return s
}

// Done is closed once nothing more can be sent: the other end is gone, has
// ended the session, or Close was called.
func (s *Session) Done() <-chan struct{} { return s.ended }

// Err says why Done is closed: nil when the other end said that all is done.
func (s *Session) Err() error {
	<-s.ended
	return s.err
}

// Close ends the session and waits for its goroutines. What Note has sent
// arrives before.
func (s *Session) Close() {
	_ = s.ws.Close(websocket.StatusNormalClosure, "") // the other end may be gone
	s.finish(errClosed)
	s.tasks.Wait()
}

// Abort ends the session at once; the other end sees a broken connection.
func (s *Session) Abort() {
	s.finish(errClosed)
	_ = s.ws.CloseNow() // there is no gentler way left
}

// Interrupt makes all Readers and Writers fail with err, those that wait too.
// Frames can still be sent.
func (s *Session) Interrupt(err error) {
	for _, c := range s.out {
		c.close(err)
	}
	for _, i := range s.in {
		i.close(err)
	}
}

var errClosed = fmt.Errorf("the connection was closed: %w", io.ErrClosedPipe)

// finish notes the first cause of the end and wakes whoever waits.
func (s *Session) finish(err error) {
	s.end.Do(func() {
		s.err = err
		close(s.ended)
		s.Interrupt(err)
	})
}

func (s *Session) read() {
	for {
		kind, message, err := s.ws.Read(context.Background())
		if err == nil && (kind != websocket.MessageBinary || len(message) == 0) {
			err = errors.New("a message is no frame: a byte for its channel, then its content")
		}
		if err == nil {
			err = s.take(Channel(message[0]), message[1:])
		}
		if err == nil {
			continue
		}
		if websocket.CloseStatus(err) == websocket.StatusNormalClosure {
			s.finish(nil)
		} else {
			s.finish(fmt.Errorf("the connection broke: %w", err))
		}
		_ = s.ws.Close(websocket.StatusPolicyViolation, "") // of no use when it broke
		return
	}
}

func (s *Session) take(c Channel, content []byte) error {
	switch inbox := s.in[c]; {
	case inbox != nil:
		return inbox.put(content)
	case c == EndOfInput && s.in[Data] != nil:
		s.in[Data].close(nil)
	case c == Taken:
		return s.taken(content)
	default:
		if s.note != nil {
			s.note(c, content)
		}
		if c == Ended { // after Note, so that who reads to EOF knows the end
			for _, i := range s.in {
				i.close(nil)
			}
		}
	}
	return nil
}

func (s *Session) taken(content []byte) error {
	if len(content) != 5 || s.out[Channel(content[0])] == nil {
		return errors.New("a frame says that bytes were taken which were never sent")
	}
	s.out[Channel(content[0])].add(int(binary.BigEndian.Uint32(content[1:])))
	return nil
}

// ping keeps proxies from taking the connection for dead, and finds out when it
// is.
func (s *Session) ping(every, patience time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		err := s.ws.Ping(ctx)
		cancel()
		if err != nil {
			s.finish(fmt.Errorf("the other end doesn't answer: %w", err))
			_ = s.ws.CloseNow() // it wouldn't answer that either
			return
		}
	}
}

// Send sends one frame of a channel that has no Writer, such as Resize.
func (s *Session) Send(c Channel, content []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.frame = append(append(s.frame[:0], byte(c)), content...)
	if err := s.ws.Write(context.Background(), websocket.MessageBinary, s.frame); err != nil {
		return fmt.Errorf("the connection broke: %w", err)
	}
	return nil
}

// SendJSON is Send of a value as JSON.
func (s *Session) SendJSON(c Channel, v any) error {
	content, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a frame: %w", err)
	}
	return s.Send(c, content)
}

// CloseWrite says that nothing more comes on channel 0.
func (s *Session) CloseWrite() error { return s.Send(EndOfInput, nil) }

// Writer of a channel that this end sends. It blocks while the window is full.
func (s *Session) Writer(c Channel) io.Writer { return &writer{s, c, s.out[c]} }

type writer struct {
	s       *Session
	channel Channel
	credit  *credit
}

func (w *writer) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		n, err := w.credit.take(min(len(p), maxFrame))
		if err == nil {
			err = w.s.Send(w.channel, p[:n])
		}
		if err != nil {
			return written, err
		}
		p, written = p[n:], written+n
	}
	return written, nil
}

// Reader of a channel that the other end sends. It gives EOF where that says
// so, and an error where the connection broke.
func (s *Session) Reader(c Channel) io.Reader { return &reader{s, c, s.in[c]} }

type reader struct {
	s       *Session
	channel Channel
	inbox   *inbox
}

func (r *reader) Read(p []byte) (int, error) {
	n, taken, err := r.inbox.get(p)
	if taken > 0 {
		// Where it can't be said any more, nobody waits for it.
		_ = r.s.Send(Taken, binary.BigEndian.AppendUint32([]byte{byte(r.channel)}, uint32(taken)))
	}
	return n, err
}
