package cluster

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

const (
	openTimeout       = time.Second // for the file lock of raft.db
	retainedSnapshots = 2
)

// stores are Raft's files. As a log and stable store they never let Raft go on
// after a failure: the file would take the next write even when the one before
// didn't reach the disk. The first error is fatal, and every later call gives it.
type stores struct {
	dir       string
	bolt      *raftboltdb.BoltStore
	snapshots *raft.FileSnapshotStore
	fatal     *fatal
	dead      chan struct{} // closed: a goroutine of Raft ended here
	die       func()
}

func openStores(dir, nodeID string, log *slog.Logger, f *fatal) (*stores, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the Raft log: %w", err)
	}
	path := filepath.Join(dir, logFile)
	if err := checkOwner(dir, nodeID); err != nil {
		return nil, err
	}
	if err := checkLog(path); err != nil {
		return nil, err
	}
	s := &stores{dir: dir, fatal: f, dead: make(chan struct{})}
	s.die = sync.OnceFunc(func() { close(s.dead) })
	err := guarded(func() (err error) {
		s.bolt, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
		return err
	})
	if err != nil {
		return nil, refuse(path, err)
	}
	s.snapshots, err = raft.NewFileSnapshotStoreWithLogger(dir, retainedSnapshots, raftLogger(log))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the snapshots in %s: %w", dir, err), s.bolt.Close())
	}
	return s, nil
}

// boltOptions keep the list of free pages in memory only: it is rebuilt at the
// next open, and each write to the log is one page shorter.
func boltOptions() *bbolt.Options {
	return &bbolt.Options{Timeout: openTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType}
}

// bootstrap makes a cluster of this one voter where there is none yet.
func (s *stores) bootstrap(conf *raft.Config, trans raft.Transport) error {
	if err := s.undoHalfBootstrap(); err != nil {
		return err
	}
	known, err := raft.HasExistingState(s, s, s.snapshots)
	if err != nil {
		return err
	}
	if !known {
		alone := raft.Configuration{Servers: []raft.Server{{ID: conf.LocalID, Address: trans.LocalAddr()}}}
		if err := raft.BootstrapCluster(conf, s, s, s.snapshots, trans, alone); err != nil {
			return fmt.Errorf("make a cluster of one voter: %w", err)
		}
	}
	return markOwner(s.dir, string(conf.LocalID))
}

// termKey is where Raft keeps its term.
var termKey = []byte("CurrentTerm")

// undoHalfBootstrap takes back the one thing that an interrupted bootstrap can
// have written: Raft writes its first term, then who votes. Left as it is, the
// term looks like a cluster that has lost its voters.
func (s *stores) undoHalfBootstrap() error {
	last, err := s.LastIndex()
	if err != nil || last > 0 {
		return err
	}
	snapshots, err := s.snapshots.List()
	if err != nil || len(snapshots) > 0 {
		return err
	}
	owned, err := isOwned(s.dir)
	if err != nil || owned {
		return err
	}
	if term, err := s.GetUint64(termKey); err != nil || term == 0 {
		return nil //nolint:nilerr // there is no term yet: nothing was begun
	}
	return s.SetUint64(termKey, 0)
}

func (s *stores) close() error { return s.bolt.Close() }

// do carries out one call; bbolt panics on pages it can't read.
func (s *stores) do(what string, call func() error) (err error) {
	if err := s.fatal.err(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
		if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return
		}
		err = fmt.Errorf("%s %s: %w", what, filepath.Join(s.dir, logFile), err)
		s.fatal.fail(fmt.Errorf("the Raft log can't be trusted any more and this server stops: %w: check the disk, then start berthd again", err))
	}()
	return call()
}

// doOrDie is do for calls after whose failure Raft would panic: the goroutine
// ends here instead, and Run with the reason.
func (s *stores) doOrDie(what string, call func() error) error {
	err := s.do(what, call)
	if s.fatal.err() != nil && err != nil {
		s.die()
		goruntime.Goexit()
	}
	return err
}

// FirstIndex of the log.
func (s *stores) FirstIndex() (index uint64, err error) {
	err = s.do("read", func() error { index, err = s.bolt.FirstIndex(); return err })
	return index, err
}

// LastIndex of the log.
func (s *stores) LastIndex() (index uint64, err error) {
	err = s.do("read", func() error { index, err = s.bolt.LastIndex(); return err })
	return index, err
}

// GetLog reads an entry; raft.ErrLogNotFound is no failure.
func (s *stores) GetLog(index uint64, entry *raft.Log) error {
	return s.doOrDie("read", func() error { return s.bolt.GetLog(index, entry) })
}

// StoreLog writes an entry.
func (s *stores) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }

// StoreLogs writes entries; they are on disk when it returns nil.
func (s *stores) StoreLogs(entries []*raft.Log) error {
	return s.do("write", func() error { return s.bolt.StoreLogs(entries) })
}

// DeleteRange deletes the entries of a range, both ends included.
func (s *stores) DeleteRange(from, to uint64) error {
	return s.do("shorten", func() error { return s.bolt.DeleteRange(from, to) })
}

// Set writes a value: a vote.
func (s *stores) Set(key, value []byte) error {
	return s.do("write", func() error { return s.bolt.Set(key, value) })
}

// Get reads a value; raftboltdb.ErrKeyNotFound is no failure.
func (s *stores) Get(key []byte) (value []byte, err error) {
	err = s.do("read", func() error { value, err = s.bolt.Get(key); return err })
	return value, err
}

// SetUint64 writes a number: a term.
func (s *stores) SetUint64(key []byte, value uint64) error {
	return s.doOrDie("write", func() error { return s.bolt.SetUint64(key, value) })
}

// GetUint64 reads a number.
func (s *stores) GetUint64(key []byte) (value uint64, err error) {
	err = s.do("read", func() error { value, err = s.bolt.GetUint64(key); return err })
	return value, err
}
