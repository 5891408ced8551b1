package state

import (
	"fmt"
	"iter"
	"slices"

	"github.com/hashicorp/go-memdb"
)

// anyTable is what the schema and the snapshot need of a table.
type anyTable interface {
	schema() *memdb.TableSchema
	title() string
	indexed() bool                      // it has more indexes than id
	keyIn(index string, row any) []byte // nil: the row isn't in the index
	count(txn *memdb.Txn) uint64
	encodeRows(txn *memdb.Txn) iter.Seq2[[]byte, error]
	decodeRow(txn *memdb.Txn, row []byte) error
}

// allTables in the order in which a snapshot holds them; new ones go last.
var allTables = []anyTable{
	meta, clusters, workspaces, members, templates, instances, runs, nodes, devices, events, outcomes,
	volumes, registries, prices, meters, days, accounts, ledger, usages, months, denials,
}

// derived tables are made of others, and in no snapshot.
var derived = []anyTable{tallies}

var tablesByName = func() map[string]anyTable {
	byName := map[string]anyTable{}
	for _, t := range slices.Concat(allTables, derived) {
		byName[t.title()] = t
	}
	return byName
}()

func (t table[T]) keyIn(index string, row any) []byte {
	for _, x := range t.indexes {
		if x.name == index {
			return x.key(row.(*T))
		}
	}
	panic(schemaError(t.name, fmt.Errorf("it has no index %q", index)))
}

func (t table[T]) title() string { return t.name }

func (t table[T]) indexed() bool { return len(t.indexes) > 1 }

func (t table[T]) count(txn *memdb.Txn) (n uint64) {
	for range t.each(txn, "id") {
		n++
	}
	return n
}

func (t table[T]) encodeRows(txn *memdb.Txn) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for row := range t.each(txn, "id") {
			if !yield(encoder.Marshal(row)) {
				return
			}
		}
	}
}

func (t table[T]) decodeRow(txn *memdb.Txn, row []byte) error {
	v := new(T)
	if err := decoder.Unmarshal(row, v); err != nil {
		return err
	}
	t.put(txn, v)
	return nil
}
