package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
)

// processes is what the guard can do to a run's processes.
type processes interface {
	// check says, as ErrInvalid, why a directory is no run's cgroup. One that
	// doesn't exist is fine: it is empty.
	check(dir string) error
	// notice writes a file for the run's processes to read.
	notice(path, text string) error
	// term sends SIGTERM to the run's first process if that is still there.
	term(d *Deadline) error
	// kill sends SIGKILL to all that is in the cgroups, and says what was left
	// after that: signals take effect a little later.
	kill(dirs []string) (remains, error)
}

// remains is what is in a run's cgroups.
type remains int

const (
	remainsSome remains = iota
	remainsNone         // they are empty
	remainsGone         // they don't exist any more
)

// book holds the deadlines and sees to them: each has a goroutine of its own, so
// that one that is stuck in the kernel or on a disk keeps no other waiting.
type book struct {
	bootID string
	now    func() int64
	store  *store
	host   processes
	log    *slog.Logger

	// writing is held while a file is written. It comes before mu, which is
	// never held over anything that can hang: an end doesn't wait for a disk.
	writing sync.Mutex
	closed  bool // under writing: no deadline is taken any more

	mu        sync.Mutex
	watches   map[string]*watch
	dirty     map[string]bool // runs whose file is behind
	lastError string

	ctx      context.Context // of the watches
	watching sync.WaitGroup
	save     chan struct{} // something is dirty
}

// watch is one entry and the goroutine that sees to it.
type watch struct {
	entry   Entry // under book.mu
	changed chan struct{}
	end     context.CancelFunc
}

// open reads what is stored, and begins: what is overdue is ended at once. It
// goes on until ctx ends; wait waits for that.
func (b *book) open(ctx context.Context) error {
	entries, problems, err := b.store.load(b.bootID)
	if err != nil {
		return err
	}
	b.ctx = ctx
	b.watches, b.dirty, b.save = map[string]*watch{}, map[string]bool{}, make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range problems {
		b.log.Error("a stored deadline isn't in force", "err", p)
		b.lastError = p.Error()
	}
	for _, e := range entries {
		b.watch(e)
	}
	b.watching.Go(func() { b.saveDirty(ctx) })
	return nil
}

func (b *book) wait() { b.watching.Wait() }

// watch begins to see to an entry. The caller holds mu.
func (b *book) watch(e Entry) {
	ctx, end := context.WithCancel(b.ctx)
	w := &watch{entry: e, changed: make(chan struct{}, 1), end: end}
	b.watches[e.Run] = w
	b.watching.Go(func() {
		defer end()
		b.follow(ctx, w)
	})
}

// set stores a deadline, and acknowledges it by a nil error.
func (b *book) set(d *Deadline, stop bool) error {
	if d.BootID != b.bootID {
		return fmt.Errorf("%w: run %s: %q, this is %s", ErrOtherBoot, d.Run, d.BootID, b.bootID)
	}
	for _, dir := range d.Cgroups {
		if err := b.host.check(dir); err != nil {
			return fmt.Errorf("run %s: %w", d.Run, err)
		}
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.closed {
		return errors.New("the guard is about to end")
	}
	b.mu.Lock()
	_, known := b.watches[d.Run]
	full := !known && len(b.watches) >= maxEntries
	next, err := b.replaced(d, stop)
	b.mu.Unlock()
	if full {
		return fmt.Errorf("run %s: the guard holds %d deadlines, and takes no more", d.Run, maxEntries)
	}
	if err != nil {
		return err
	}
	if err := b.store.write(&next); err != nil {
		return b.failed(fmt.Errorf("store the deadline of run %s: %w", d.Run, err))
	}
	return b.commit(d, stop, &next)
}

// commit puts a deadline in force, as it was stored. The one before it went on
// meanwhile: its end may have come.
func (b *book) commit(d *Deadline, stop bool, stored *Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	next, err := b.replaced(d, stop)
	w := b.watches[d.Run]
	if w == nil {
		b.watch(next)
		return err
	}
	w.entry = next
	if next.Kill != stored.Kill || next.Termed != stored.Termed || next.Killed != stored.Killed || next.Emptied != stored.Emptied {
		b.soil(d.Run)
	}
	select {
	case w.changed <- struct{}{}:
	default:
	}
	return err
}

// replaced is the entry after a deadline has come. The caller holds mu.
func (b *book) replaced(d *Deadline, stop bool) (Entry, error) {
	var held *Entry
	if w := b.watches[d.Run]; w != nil {
		held = &w.entry
	}
	return replace(held, d, stop, b.now())
}

// clear forgets a run, here and on the disk.
func (b *book) clear(run string) error {
	if !runName.MatchString(run) || len(run) > maxRun {
		return fmt.Errorf("%w: run %.200q", ErrInvalid, run)
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := b.store.remove(run); err != nil {
		return b.failed(fmt.Errorf("forget run %s: %w", run, err))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.watches[run]; w != nil {
		w.end()
		delete(b.watches, run)
	}
	return nil
}

// close takes no more deadlines, unless there are any.
func (b *book) close() error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.watches); n > 0 {
		return fmt.Errorf("%w: %d", ErrBusy, n)
	}
	b.closed = true
	return nil
}

// list gives all entries by run.
func (b *book) list() []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Entry, 0, len(b.watches))
	for w := range maps.Values(b.watches) {
		all = append(all, w.entry)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Run, b.Run) })
	return all
}

func (b *book) fill(s *Status) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s.Entries, s.LastError = len(b.watches), b.lastError
}

// failed notes an error for the status, and gives it.
func (b *book) failed(err error) error {
	b.log.Error("the guard can't do its work", "err", err)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastError = err.Error()
	return err
}

// soil notes that a run's file is behind. The caller holds mu.
func (b *book) soil(run string) {
	b.dirty[run] = true
	select {
	case b.save <- struct{}{}:
	default:
	}
}

// saveDirty writes down what became of entries. It is for a guard that is
// started anew and for those who ask it; nothing waits for it.
func (b *book) saveDirty(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			b.saveAll() // a guard that ends in order tells the next one all
			return
		case <-b.save:
			b.saveAll()
		}
	}
}

func (b *book) saveAll() {
	b.mu.Lock()
	runs := slices.Sorted(maps.Keys(b.dirty))
	clear(b.dirty)
	b.mu.Unlock()
	for _, run := range runs {
		b.saveOne(run)
	}
}

func (b *book) saveOne(run string) {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	w := b.watches[run]
	var e Entry
	if w != nil {
		e = w.entry
	}
	b.mu.Unlock()
	if w == nil {
		return
	}
	if err := b.store.write(&e); err != nil {
		_ = b.failed(fmt.Errorf("note what became of run %s: %w", run, err))
	}
}
