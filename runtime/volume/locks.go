package volume

import (
	"context"
	"sync"
)

// locks are one lock per volume that a call is about. Unlike a mutex, waiting
// for one ends with the context. The zero value is ready.
type locks struct {
	mu   sync.Mutex
	held map[string]*lock
}

type lock struct {
	token chan struct{} // full while somebody has the lock
	users int           // who have it or wait for it
}

func (l *locks) lock(ctx context.Context, id string) (unlock func(), err error) {
	l.mu.Lock()
	if l.held == nil {
		l.held = map[string]*lock{}
	}
	one := l.held[id]
	if one == nil {
		one = &lock{token: make(chan struct{}, 1)}
		l.held[id] = one
	}
	one.users++
	l.mu.Unlock()

	if ctx.Err() == nil {
		select {
		case one.token <- struct{}{}:
			return func() { <-one.token; l.leave(id, one) }, nil
		case <-ctx.Done():
		}
	}
	l.leave(id, one)
	return nil, ctx.Err()
}

func (l *locks) leave(id string, one *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(l.held, id)
	}
}
