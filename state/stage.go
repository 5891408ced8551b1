package state

import (
	"bytes"

	"github.com/hashicorp/go-memdb"

	"berth/workspace"
)

// stagedMost bounds how many rows wait; it keeps the search among them short.
const stagedMost = 32

// stagedRow is a row that an entry has written and that isn't in the tables yet.
type stagedRow struct {
	table    anyTable
	name     string
	id       []byte
	mark     uint64
	old, row any // old is nil for a new row, and in a table without other indexes
}

// touches reports whether a read of an index may give this row, or what it was.
func (s *stagedRow) touches(index string, prefix []byte) bool {
	for _, row := range []any{s.old, s.row} {
		if row == nil {
			continue
		}
		if k := s.table.keyIn(index, row); k != nil && bytes.HasPrefix(k, prefix) {
			return true
		}
	}
	return false
}

// Insert stages a row. One entry writes the same rows several times, and each
// write to memdb costs as many tree insertions as the table has indexes; a read
// between two makes it copy the touched nodes again. Staged, each row is
// inserted once.
func (t *tx) Insert(table string, row any) error {
	if table == workspaces.name || table == clusters.name {
		t.books.payers = nil
	}
	of := tablesByName[table]
	id := of.keyIn("id", row)
	if s := t.stagedAt(table, id); s != nil {
		s.row = row
		return nil
	}
	if len(t.staged) == stagedMost {
		if err := t.flush(); err != nil {
			return err
		}
	}
	var old any
	if of.indexed() { // else it is under the same key as the row
		var err error
		if old, err = t.Txn.First(table, "id", id); err != nil {
			return err
		}
	}
	t.staged = append(t.staged, stagedRow{table: of, name: table, id: id, mark: mark(id), old: old, row: row})
	return nil
}

// Delete removes a row.
func (t *tx) Delete(table string, row any) error {
	if err := t.flush(); err != nil {
		return err
	}
	if run, ok := row.(*workspace.Run); ok {
		count(t.Txn, run, nil)
	}
	return t.Txn.Delete(table, row)
}

// First is memdb's, staged rows included.
func (t *tx) First(table, index string, parts ...any) (any, error) {
	if index == "id" {
		id := key(parts...)
		if s := t.stagedAt(table, id); s != nil {
			return s.row, nil
		}
		return t.Txn.First(table, index, id)
	}
	if err := t.flushFor(table, index, parts); err != nil {
		return nil, err
	}
	return t.Txn.First(table, index, parts...)
}

// Get is memdb's, staged rows included.
func (t *tx) Get(table, index string, parts ...any) (memdb.ResultIterator, error) {
	if err := t.flushFor(table, index[:len(index)-len(prefixed)], parts); err != nil {
		return nil, err
	}
	return t.Txn.Get(table, index, parts...)
}

// LowerBound is memdb's, staged rows included.
func (t *tx) LowerBound(table, index string, parts ...any) (memdb.ResultIterator, error) {
	if err := t.flushFor(table, index, nil); err != nil {
		return nil, err
	}
	return t.Txn.LowerBound(table, index, parts...)
}

func (t *tx) stagedAt(table string, id []byte) *stagedRow {
	m := mark(id)
	for i := range t.staged {
		if s := &t.staged[i]; s.mark == m && s.name == table && bytes.Equal(s.id, id) {
			return s
		}
	}
	return nil
}

// mark is the end of an id, which tells most apart.
func mark(id []byte) (m uint64) {
	for _, b := range id[max(0, len(id)-8):] {
		m = m<<8 | uint64(b)
	}
	return m
}

// flushFor writes the staged rows if a read of an index could miss one.
func (t *tx) flushFor(table, index string, parts []any) error {
	prefix := key(parts...)
	for i := range t.staged {
		if s := &t.staged[i]; s.name == table && s.touches(index, prefix) {
			return t.flush()
		}
	}
	return nil
}

// flush writes the staged rows, in the order in which they came.
func (t *tx) flush() error {
	for i := range t.staged {
		s := &t.staged[i]
		if run, ok := s.row.(*workspace.Run); ok {
			old, _ := s.old.(*workspace.Run)
			count(t.Txn, old, run)
		}
		if err := t.Txn.Insert(s.name, s.row); err != nil {
			return err
		}
	}
	t.staged = t.staged[:0]
	return nil
}
