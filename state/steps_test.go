package state

import (
	"bytes"
	"iter"

	"github.com/hashicorp/go-memdb"
)

// What an entry has changed, found without looking at all that it hasn't.

// unchanged: the table's root is the same, so all of it is.
func unchanged(before, after View, name string) bool {
	return root(before.txn, name) == root(after.txn, name)
}

func root(txn *memdb.Txn, name string) <-chan struct{} {
	return must(txn.Get(name, "id"+prefixed)).WatchCh()
}

// changes are the rows that differ, each as it was and as it is; nil where there
// was none, or is none any more.
func changes[T any](before, after View, of table[T]) iter.Seq2[*T, *T] {
	return func(yield func(*T, *T) bool) {
		if unchanged(before, after, of.name) {
			return
		}
		was, is := must(before.txn.Get(of.name, "id"+prefixed)), must(after.txn.Get(of.name, "id"+prefixed))
		a, b := was.Next(), is.Next()
		for a != nil || b != nil {
			if a == b {
				a, b = was.Next(), is.Next()
				continue
			}
			order := -1
			if a == nil {
				order = 1
			} else if b != nil {
				order = bytes.Compare(of.indexes[0].key(a.(*T)), of.indexes[0].key(b.(*T)))
			}
			var old, now *T
			if order <= 0 {
				old, a = a.(*T), was.Next()
			}
			if order >= 0 {
				now, b = b.(*T), is.Next()
			}
			if !yield(old, now) {
				return
			}
		}
	}
}
