package cluster

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"berth/state"
)

// fsm hands Raft's entries to the store. Once the store can't follow the log it
// applies nothing more and gives no snapshot: both would make this replica
// differ from the others.
type fsm struct {
	store *state.Store
	fatal *fatal

	mu   sync.Mutex
	wake chan struct{} // closed and replaced when the state has moved on
}

func newFSM(store *state.Store, f *fatal) *fsm {
	return &fsm{store: store, fatal: f, wake: make(chan struct{})}
}

// changed gives a channel that is closed at the next change of the state.
func (f *fsm) changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wake
}

func (f *fsm) moved() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.wake)
	f.wake = make(chan struct{})
}

// ApplyBatch answers each entry with a state.Result or an error.
func (f *fsm) ApplyBatch(entries []*raft.Log) []any {
	out := make([]any, len(entries))
	for i, entry := range entries {
		if entry.Type == raft.LogCommand {
			out[i] = f.apply(entry)
		}
	}
	f.moved()
	return out
}

// Apply is for a Raft that doesn't batch.
func (f *fsm) Apply(entry *raft.Log) any { return f.ApplyBatch([]*raft.Log{entry})[0] }

func (f *fsm) apply(entry *raft.Log) any {
	if err := f.fatal.err(); err != nil {
		return err
	}
	res, err := f.store.ApplyInTerm(entry.Index, entry.Term, entry.Data)
	if err != nil {
		f.fatal.fail(fmt.Errorf("this server can't follow the log and stops: %w", err))
		return err
	}
	return res
}

// Snapshot costs nothing; it is written while entries are applied.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if err := f.fatal.err(); err != nil {
		return nil, fmt.Errorf("no snapshot of a state that didn't follow its log: %w", err)
	}
	return snapshot{f.store.Snapshot()}, nil
}

// Restore replaces the state.
func (f *fsm) Restore(r io.ReadCloser) error {
	err := f.store.Restore(r)
	f.moved()
	return errors.Join(err, r.Close())
}

type snapshot struct{ *state.Snapshot }

// Persist writes the snapshot.
func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.Write(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release has nothing to give back: the view goes with the garbage.
func (s snapshot) Release() {}
