package nvml

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"berth/gpu"
)

// call asks the child and waits at most timeout, or until ctx ends. Its answer
// is then dropped when it comes; the lane stays held until it has, or until the
// timeout has the child killed.
func (d *Driver) call(ctx context.Context, lane chan struct{}, method string, timeout time.Duration, args, reply any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	deadline := time.NewTimer(timeout)
	select {
	case lane <- struct{}{}:
	case <-ctx.Done():
		deadline.Stop()
		return ctx.Err()
	case <-d.closed:
		deadline.Stop()
		return errClosed
	case <-deadline.C:
		return fmt.Errorf("%w: an earlier call is under way for more than %s", gpu.ErrUnresponsive, timeout)
	}
	if err := d.enter(); err != nil {
		deadline.Stop()
		<-lane
		return err
	}
	type outcome struct {
		result json.RawMessage
		err    error
	}
	answered := make(chan outcome, 1)
	go func() {
		defer d.calls.Done()
		result, err := d.perform(method, timeout, deadline, args)
		deadline.Stop()
		<-lane
		answered <- outcome{result, err}
	}()
	select {
	case o := <-answered:
		if o.err != nil || len(o.result) == 0 {
			return o.err
		}
		return json.Unmarshal(o.result, reply)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter counts a call, unless the Driver is closed.
func (d *Driver) enter() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.closed:
		return errClosed
	default:
		d.calls.Add(1)
		return nil
	}
}

// perform is one request to the child, which it starts when there is none.
func (d *Driver) perform(method string, timeout time.Duration, deadline *time.Timer, args any) (json.RawMessage, error) {
	c, err := d.current()
	if err != nil {
		return nil, err
	}
	select {
	case <-c.ready:
	case <-c.dead:
		return nil, d.unresponsive(c.why())
	case <-deadline.C: // hello's own timeout decides about the child
		return nil, fmt.Errorf("%w: it hasn't started after %s", gpu.ErrUnresponsive, timeout)
	}
	return d.exchange(c, method, timeout, deadline, args)
}

func (d *Driver) exchange(c *child, method string, timeout time.Duration, deadline *time.Timer, args any) (json.RawMessage, error) {
	answer, err := c.send(method, args)
	if err != nil {
		return nil, d.giveUp(c, err)
	}
	select {
	case r := <-answer:
		return d.accept(r)
	case <-c.dead:
		return nil, d.unresponsive(c.why())
	case <-deadline.C:
		return nil, d.giveUp(c, fmt.Errorf("no answer to %q within %s", method, timeout))
	}
}

// accept notes that the driver answers, be it with an error.
func (d *Driver) accept(r response) (json.RawMessage, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status.Unresponsive, d.status.Message = false, r.Error
	if r.Error != "" {
		return nil, fmt.Errorf("GPU driver: %s", r.Error)
	}
	d.status.LastSuccess = time.Now()
	return r.Result, nil
}

// giveUp kills a child that is of no use any more.
func (d *Driver) giveUp(c *child, reason error) error {
	if c.kill(reason) {
		d.cfg.Log.Warn("the GPU driver does not answer, its process is killed", "pid", c.pid(), "reason", reason)
	}
	return d.unresponsive(c.why())
}

func (d *Driver) unresponsive(reason error) error {
	if errors.Is(reason, errClosed) {
		return errClosed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status.Unresponsive, d.status.Message = true, reason.Error()
	return fmt.Errorf("%w: %w", gpu.ErrUnresponsive, reason)
}

// current gives the child, and starts one where that is allowed: never beside
// one that isn't gone yet, and not before the wait after a failure is over.
func (d *Driver) current() (*child, error) {
	version := Detect(d.cfg.Root).Version
	d.mu.Lock()
	c, wait := d.child, time.Until(d.retry)
	defer d.mu.Unlock()
	if c != nil {
		if c.version != version { // the loader keeps the library of the old one
			c.kill(fmt.Errorf("driver %s was replaced by %s", c.version, version))
		}
		return c, nil
	}
	select {
	case <-d.closed:
		return nil, errClosed
	default:
	}
	if wait > 0 {
		return nil, fmt.Errorf("%w: %s; the next try is in %s", gpu.ErrUnresponsive, d.status.Message, wait.Round(time.Millisecond))
	}
	c, err := startChild(d.cfg.Command, d.ended)
	if err != nil {
		d.postpone()
		d.status.Unresponsive, d.status.Message = true, err.Error()
		return nil, fmt.Errorf("%w: %w", gpu.ErrUnresponsive, err)
	}
	if d.starts++; d.starts > 1 {
		d.status.Restarts++
	}
	c.version, d.child = version, c
	d.calls.Add(1) // mu is held and the Driver isn't closed
	go d.greet(c)
	return c, nil
}

// greet gives a new child its settings; the library's start may take long.
func (d *Driver) greet(c *child) {
	defer d.calls.Done()
	deadline := time.NewTimer(d.cfg.InventoryTimeout)
	defer deadline.Stop()
	hello := settings{LibraryPath: d.cfg.LibraryPath, Root: d.cfg.Root}
	answer, err := c.send(methodHello, hello)
	if err != nil {
		_ = d.giveUp(c, err)
		return
	}
	select {
	case r := <-answer:
		if r.Error != "" { // a library that doesn't start needs a new process to be tried again
			c.kill(errors.New(r.Error))
			return
		}
		close(c.ready)
	case <-c.dead:
	case <-deadline.C:
		_ = d.giveUp(c, fmt.Errorf("its library hasn't started within %s", d.cfg.InventoryTimeout))
	}
}

// ended is called once a child's process is gone.
func (d *Driver) ended(c *child) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.child = nil
	if time.Since(c.started) > d.cfg.MaxBackoff {
		d.backoff = 0
	}
	d.postpone()
	if reason := c.why(); !errors.Is(reason, errClosed) {
		d.status.Unresponsive, d.status.Message = true, reason.Error()
		d.cfg.Log.Warn("the process that asks the GPU driver has ended", "reason", reason, "retry_in", d.backoff)
	}
}

// postpone doubles the wait before the next start. A child that lives long
// resets it: one that only answers may crash with every second call.
func (d *Driver) postpone() {
	d.backoff = min(max(2*d.backoff, d.cfg.MinBackoff), d.cfg.MaxBackoff)
	d.retry = time.Now().Add(d.backoff)
}
