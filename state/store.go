package state

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-memdb"

	"berth/workspace"
)

// EventRing is how many events are kept.
const EventRing = 10_000

// Store is one replica of the state. Apply and Restore are called by one
// goroutine at a time (Raft's); View and Snapshot by any.
type Store struct {
	db atomic.Pointer[database]
}

// database is one generation of the tables; a restore makes a new one.
type database struct {
	mem      *memdb.MemDB
	replaced chan struct{} // closed when a restore has put another in place
}

// New makes an empty replica.
func New() *Store {
	s := &Store{}
	s.db.Store(newDatabase())
	return s
}

func newDatabase() *database {
	return &database{mem: must(memdb.NewMemDB(schema())), replaced: make(chan struct{})}
}

func schema() *memdb.DBSchema {
	s := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, t := range slices.Concat(allTables, derived) {
		ts := t.schema()
		s.Tables[ts.Name] = ts
	}
	return s
}

// Result is the outcome of one entry. Err is the answer to the one who asked;
// the entry is applied either way.
type Result struct {
	Index  uint64           `cbor:"1,keyasint"`
	Object string           `cbor:"2,keyasint,omitempty"` // id of what was made or changed
	Run    string           `cbor:"3,keyasint,omitempty"` // id of the run made, if any
	Err    *workspace.Error `cbor:"4,keyasint,omitempty"`
	Replay bool             `cbor:"-"` // answered from an earlier entry
}

// Apply carries out one log entry. An error means that this replica can't
// follow the log (damaged entry, unknown command): the daemon must stop.
// An entry at or below the last applied index is skipped.
func (s *Store) Apply(index uint64, entry []byte) (Result, error) {
	return s.ApplyInTerm(index, 0, entry)
}

// ApplyInTerm is Apply for a log that knows in which leader's term the entry was
// written.
func (s *Store) ApplyInTerm(index, term uint64, entry []byte) (Result, error) {
	env, cmd, err := decode(entry)
	if err == nil {
		err = supported(cmd)
	}
	if err != nil {
		return Result{}, fmt.Errorf("apply index %d: %w", index, err)
	}
	txn := s.db.Load().mem.Txn(true)
	defer txn.Abort()
	before := meta.get(txn, "id", metaKey)
	if before == nil {
		before = &position{}
	}
	if index <= before.Index {
		return Result{Index: before.Index}, nil
	}
	now := &position{Index: index, At: max(before.At, env.At), Sweep: before.Sweep}
	tx := &tx{Txn: txn, env: env, index: index, term: term, at: time.UnixMicro(now.At).UTC(), position: now}
	res := tx.run(cmd)
	if res.Err != nil {
		// Nothing of a refused command is kept; only its outcome is.
		txn.Abort()
		txn = s.db.Load().mem.Txn(true)
		defer txn.Abort()
		tx.Txn, tx.staged, tx.events, tx.books = txn, nil, nil, openBooks{}
		tx.countDenial(tx.deniedIn, res.Err.Code)
	}
	tx.remember(res)
	tx.keepBooks()
	if err := tx.flush(); err != nil {
		panic(err.Error()) // as any schema error
	}
	tx.keepEvents()
	meta.put(txn, now)
	txn.Commit()
	return res, nil
}

// tx is the application of one entry.
type tx struct {
	*memdb.Txn
	env      Envelope
	index    uint64
	term     uint64
	at       time.Time
	events   []workspace.Event // made by this entry so far
	result   Result
	staged   []stagedRow
	position *position // after this entry
	books    openBooks
	deniedIn string // workspace of the latest denial
	anew     bool   // a retry is judged anew, though nothing was refused
	derived  uint64 // ids made by derivedID so far
}

func (t *tx) run(cmd Command) Result {
	if old, ok := t.recall(); ok {
		return old
	}
	t.result = Result{Index: t.index}
	if err := t.carryOut(cmd); err != nil {
		var e *workspace.Error
		if !errors.As(err, &e) {
			e = workspace.Errorf(workspace.CodeInternal, "%v", err)
		}
		return Result{Index: t.index, Err: e}
	}
	return t.result
}

// carryOut applies a command; before the cluster has its id there is but one.
func (t *tx) carryOut(cmd Command) error {
	if t.cluster() == nil && cmd.Type() != TypeInitCluster {
		return workspace.Errorf(workspace.CodeUnavailable, "the cluster isn't initialised yet: try again in a moment")
	}
	return cmd.apply(t)
}

// position is where in the log, and in time, the state is.
type position struct {
	Index uint64 `cbor:"1,keyasint"`
	At    int64  `cbor:"2,keyasint"`           // µs since 1970; never goes back
	Sweep string `cbor:"3,keyasint,omitempty"` // outcome at which the search for old ones goes on
}

const metaKey = "position"

var meta = table[position]{name: "meta", indexes: []index[position]{
	{name: "id", key: func(*position) []byte { return key(metaKey) }},
}}
