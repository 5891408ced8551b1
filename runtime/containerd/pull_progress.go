package containerd

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/runtime"
)

// progressTick is between two calls of a pull's progress function.
const progressTick = 250 * time.Millisecond

// meter knows how far a pull is, and tells from a goroutine of its own.
type meter struct {
	tell func(runtime.PullProgress)
	quit chan struct{}
	gone chan struct{}

	follows atomic.Pointer[meter] // of the pull that this one waits for

	mu    sync.Mutex
	whole runtime.PullProgress // but for what is done
	done  map[digest.Digest]int64
	sizes map[digest.Digest]int64
	layer map[digest.Digest]bool
}

func startMeter(tell func(runtime.PullProgress)) *meter {
	m := &meter{
		tell: tell, quit: make(chan struct{}), gone: make(chan struct{}),
		done: map[digest.Digest]int64{}, sizes: map[digest.Digest]int64{}, layer: map[digest.Digest]bool{},
	}
	go m.run()
	return m
}

func (m *meter) run() {
	defer close(m.gone)
	ticker := time.NewTicker(progressTick)
	defer ticker.Stop()
	for m.tell != nil {
		select {
		case <-m.quit:
			m.tell(m.now())
			return
		case <-ticker.C:
			if first := m.follows.Load(); first != nil {
				m.tell(first.now())
				continue
			}
			m.tell(m.now())
		}
	}
}

// stop tells a last time.
func (m *meter) stop() {
	close(m.quit)
	<-m.gone
}

func (m *meter) now() runtime.PullProgress {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.whole
	for name, done := range m.done {
		p.DoneBytes += done
		if m.layer[name] && done == m.sizes[name] {
			p.LayersDone++
		}
	}
	return p
}

// found counts what is to be fetched.
func (m *meter) found(d ocispec.Descriptor, layer bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.sizes[d.Digest]; ok {
		return
	}
	m.sizes[d.Digest], m.layer[d.Digest] = d.Size, layer
	m.whole.TotalBytes += d.Size
	if layer {
		m.whole.Layers++
	}
}

// at says how much of a blob is here.
func (m *meter) at(name digest.Digest, done int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done[name] = min(done, m.sizes[name])
}

func (m *meter) unpacking() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.whole.Unpacking = true
}

// turns lets one pull of a name go on at a time. The zero value is ready.
type turns struct {
	mu     sync.Mutex
	byName map[string]*turn
}

type turn struct {
	users int           // that have it or wait for it
	busy  chan struct{} // holds the one that has it
	first atomic.Pointer[meter]
}

// take waits for the turn of a name. While it waits, the meter tells what the
// other pull's does.
func (t *turns) take(ctx context.Context, name string, m *meter) (release func(), err error) {
	t.mu.Lock()
	if t.byName == nil {
		t.byName = map[string]*turn{}
	}
	mine := t.byName[name]
	if mine == nil {
		mine = &turn{busy: make(chan struct{}, 1)}
		t.byName[name] = mine
	}
	mine.users++
	t.mu.Unlock()
	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if mine.users--; mine.users == 0 {
			delete(t.byName, name)
		}
	}
	m.follows.Store(mine.first.Load())
	select {
	case mine.busy <- struct{}{}:
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
	m.follows.Store(nil)
	mine.first.Store(m)
	return func() {
		<-mine.busy
		leave()
	}, nil
}
