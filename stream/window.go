package stream

import (
	"errors"
	"io"
	"sync"
)

// inbox holds at most a window of bytes that were not read yet.
type inbox struct {
	mu    sync.Mutex
	wake  sync.Cond
	bytes []byte
	taken int // read, and not yet said so
	ended bool
	err   error // after all bytes; nil: EOF
}

func newInbox() *inbox {
	i := &inbox{}
	i.wake.L = &i.mu
	return i
}

func (i *inbox) put(p []byte) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.bytes)+len(p) > Window {
		return errors.New("more was sent than the window allows")
	}
	if !i.ended {
		i.bytes = append(i.bytes, p...)
		i.wake.Broadcast()
	}
	return nil
}

// get waits for bytes. taken is what the other end should be told, which is
// done a few times per window.
func (i *inbox) get(p []byte) (n, taken int, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.bytes) == 0 && !i.ended && len(p) > 0 {
		i.wake.Wait()
	}
	if len(i.bytes) == 0 && i.ended {
		if i.err != nil {
			return 0, 0, i.err
		}
		return 0, 0, io.EOF
	}
	n = copy(p, i.bytes)
	i.bytes = i.bytes[n:]
	if len(i.bytes) == 0 {
		i.bytes = nil // a quiet channel holds no memory
	}
	if i.taken += n; i.taken >= Window/4 && !i.ended {
		taken, i.taken = i.taken, 0
	}
	return n, taken, nil
}

func (i *inbox) close(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.ended {
		i.ended, i.err = true, err
		i.wake.Broadcast()
	}
}

// credit is how many bytes of a channel may still be sent.
type credit struct {
	mu   sync.Mutex
	wake sync.Cond
	left int
	end  error
}

func newCredit() *credit {
	c := &credit{left: Window}
	c.wake.L = &c.mu
	return c
}

// take waits until something may be sent and gives how much: at most what is
// asked for.
func (c *credit) take(most int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.left == 0 && c.end == nil {
		c.wake.Wait()
	}
	if c.end != nil {
		return 0, c.end
	}
	n := min(most, c.left)
	c.left -= n
	return n, nil
}

func (c *credit) add(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left += n
	c.wake.Broadcast()
}

func (c *credit) close(err error) {
	if err == nil {
		err = io.ErrClosedPipe
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil {
		c.end = err
	}
	c.wake.Broadcast()
}
