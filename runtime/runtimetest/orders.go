package runtimetest

import (
	"context"
	"sync"
)

// orders is what a test has ordered of a fake's methods: to fail, or to wait. The
// zero value orders nothing.
type orders struct {
	mu       sync.Mutex
	failures map[string][]error
	gates    map[string]chan struct{}
}

// FailNext makes the next call of a method, such as "Create", return err and do
// nothing. Called twice, the next two calls fail.
func (o *orders) FailNext(method string, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.failures == nil {
		o.failures = map[string][]error{}
	}
	o.failures[method] = append(o.failures[method], err)
}

// Block makes calls of a method wait, before they do anything, until release is
// called or their context ends.
func (o *orders) Block(method string) (release func()) {
	gate := make(chan struct{})
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.gates == nil {
		o.gates = map[string]chan struct{}{}
	}
	o.gates[method] = gate
	return sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.gates, method)
		close(gate)
	})
}

// enter is the start of every method: it waits at the gate, and takes the
// failure that was ordered.
func (o *orders) enter(ctx context.Context, method string) error {
	o.mu.Lock()
	gate := o.gates[method]
	o.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if ordered := o.failures[method]; len(ordered) > 0 {
		o.failures[method] = ordered[1:]
		return ordered[0]
	}
	return nil
}
