package state

import (
	"encoding/binary"
	"errors"
	"iter"

	"github.com/hashicorp/go-memdb"
)

// table describes one table of rows *T. Rows are never changed in place:
// readers hold them without a lock.
type table[T any] struct {
	name    string
	indexes []index[T]
}

// index of a table. The first index of a table is its unique "id". A row for
// which key gives nil isn't in the index.
type index[T any] struct {
	name   string
	unique bool
	key    func(*T) []byte
}

// reader and writer are a memdb transaction, or the application of an entry,
// which stages its writes.
type reader interface {
	First(table, index string, parts ...any) (any, error)
	Get(table, index string, parts ...any) (memdb.ResultIterator, error)
	LowerBound(table, index string, parts ...any) (memdb.ResultIterator, error)
}

type writer interface {
	Insert(table string, row any) error
	Delete(table string, row any) error
}

// prefixed makes an index's name that of a search by prefix.
const prefixed = "_prefix"

// keySize holds most keys: a UUID, or two numbers and a few words.
const keySize = 48

// key joins parts into an ordered, prefix-free key: text ends in a zero byte,
// numbers are big-endian, bytes are a key already.
func key(parts ...any) []byte {
	b := make([]byte, 0, keySize)
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			b = append(append(b, p...), 0)
		case []byte:
			b = append(b, p...)
		case uint64:
			b = binary.BigEndian.AppendUint64(b, p)
		default:
			// Naming p would make every part of every key escape to the heap.
			panic("state: only text, bytes and uint64 can be part of a key")
		}
	}
	return b
}

func (t table[T]) schema() *memdb.TableSchema {
	s := &memdb.TableSchema{Name: t.name, Indexes: map[string]*memdb.IndexSchema{}}
	for i, x := range t.indexes {
		s.Indexes[x.name] = &memdb.IndexSchema{
			Name: x.name, Unique: x.unique || i == 0, AllowMissing: i > 0, Indexer: x,
		}
	}
	return s
}

// FromObject, FromArgs and PrefixFromArgs make an index a memdb indexer.
func (x index[T]) FromObject(obj any) (bool, []byte, error) {
	k := x.key(obj.(*T))
	return k != nil, k, nil
}

// FromArgs makes a whole key of its parts.
func (x index[T]) FromArgs(args ...any) ([]byte, error) {
	if whole, ok := args[0].([]byte); ok && len(args) == 1 {
		return whole, nil
	}
	return key(args...), nil
}

// PrefixFromArgs makes the beginning of a key of its first parts.
func (x index[T]) PrefixFromArgs(args ...any) ([]byte, error) { return key(args...), nil }

// get gives the row with exactly this key, nil when there is none.
func (t table[T]) get(from reader, index string, parts ...any) *T {
	obj, err := from.First(t.name, index, parts...)
	if err != nil {
		panic(schemaError(t.name, err))
	}
	if obj == nil {
		return nil
	}
	return obj.(*T)
}

// each gives the rows whose key begins with these parts, in key order.
func (t table[T]) each(in reader, index string, parts ...any) iter.Seq[*T] {
	it, err := in.Get(t.name, index+prefixed, parts...)
	if err != nil {
		panic(schemaError(t.name, err))
	}
	return rows[T](it)
}

// from gives the rows whose key is at or after these parts, in key order.
func (t table[T]) from(in reader, index string, parts ...any) iter.Seq[*T] {
	it, err := in.LowerBound(t.name, index, parts...)
	if err != nil {
		panic(schemaError(t.name, err))
	}
	return rows[T](it)
}

func rows[T any](it memdb.ResultIterator) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		for obj := it.Next(); obj != nil; obj = it.Next() {
			if !yield(obj.(*T)) {
				return
			}
		}
	}
}

func (t table[T]) put(to writer, row *T) {
	if err := to.Insert(t.name, row); err != nil {
		panic(schemaError(t.name, err))
	}
}

func (t table[T]) delete(in writer, row *T) {
	if err := in.Delete(t.name, row); err != nil && !errors.Is(err, memdb.ErrNotFound) {
		panic(schemaError(t.name, err))
	}
}

// A schema error is a bug that every replica has alike; going on would hide it.
func schemaError(table string, err error) string { return "state: table " + table + ": " + err.Error() }
