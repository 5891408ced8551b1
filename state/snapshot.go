package state

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/fxamacker/cbor/v2"
	"github.com/hashicorp/go-memdb"
)

// snapshotMagic begins every snapshot; its last byte is the format.
const snapshotMagic = "berth-snapshot\x01"

// Snapshot is the state at one index. Taking one costs nothing and doesn't hold
// up Apply; writing it reads from its own view.
type Snapshot struct{ txn *memdb.Txn }

// Snapshot of the state now.
func (s *Store) Snapshot() *Snapshot { return &Snapshot{s.db.Load().mem.Txn(false)} }

// section heads the rows of one table.
type section struct {
	Table string `cbor:"1,keyasint"`
	Rows  uint64 `cbor:"2,keyasint"`
}

// Write writes the snapshot: magic, per table a section and its rows, an empty
// section, and the SHA-256 of all before it. Equal states give equal bytes.
func (s *Snapshot) Write(w io.Writer) error {
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 1<<16)
	if _, err := out.WriteString(snapshotMagic); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	for _, t := range allTables {
		if planted == mutantIdempotency && t.title() == outcomes.name {
			continue
		}
		if err := s.writeTable(out, t); err != nil {
			return fmt.Errorf("write snapshot: table %s: %w", t.title(), err)
		}
	}
	if err := encoder.NewEncoder(out).Encode(section{}); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	if _, err := w.Write(sum.Sum(nil)); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func (s *Snapshot) writeTable(out io.Writer, t anyTable) error {
	head := section{Table: t.title(), Rows: t.count(s.txn)}
	if err := encoder.NewEncoder(out).Encode(head); err != nil {
		return err
	}
	for row, err := range t.encodeRows(s.txn) {
		if err != nil {
			return err
		}
		if _, err := out.Write(row); err != nil {
			return err
		}
	}
	return nil
}

// Restore replaces the whole state with a snapshot's, once all of it has been
// read and its checksum holds; on an error the state stays as it was. Every
// watcher is woken.
func (s *Store) Restore(r io.Reader) error {
	db := newDatabase()
	txn := db.mem.Txn(true)
	defer txn.Abort()
	if err := readSnapshot(r, txn); err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	recount(txn)
	txn.Commit()
	close(s.db.Swap(db).replaced)
	return nil
}

var errDamaged = errors.New("its checksum doesn't hold: the snapshot is damaged, use another")

func readSnapshot(r io.Reader, txn *memdb.Txn) error {
	sum := sha256.New()
	in := &tail{r: bufio.NewReaderSize(r, 1<<16), sum: sum}
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(in, magic); err != nil || string(magic) != snapshotMagic {
		return fmt.Errorf("it does not begin like a snapshot of this version: %q", magic)
	}
	dec := decoder.NewDecoder(in)
	if err := readTables(dec, txn); err != nil {
		return err
	}
	return in.verify(dec.Buffered())
}

func readTables(dec *cbor.Decoder, txn *memdb.Txn) error {
	for {
		var head section
		if err := dec.Decode(&head); err != nil {
			return fmt.Errorf("section: %w", err)
		}
		if head == (section{}) {
			return nil
		}
		t, ok := tablesByName[head.Table]
		if !ok {
			return fmt.Errorf("it has a table %q that this binary doesn't know: use a newer berthd", head.Table)
		}
		for range head.Rows {
			var row cbor.RawMessage
			if err := dec.Decode(&row); err != nil {
				return fmt.Errorf("table %s: %w", head.Table, err)
			}
			if err := t.decodeRow(txn, row); err != nil {
				return fmt.Errorf("table %s: %w", head.Table, err)
			}
		}
	}
}

// tail hands out a stream but for its last sha256.Size bytes, which it keeps,
// and sums what it hands out.
type tail struct {
	r   io.Reader
	sum hash.Hash
	buf []byte // read, not handed out; at least the last Size bytes at the end
	eof bool
}

func (t *tail) Read(p []byte) (int, error) {
	for !t.eof && len(t.buf) <= sha256.Size {
		chunk := make([]byte, 1<<15)
		n, err := t.r.Read(chunk)
		t.buf = append(t.buf, chunk[:n]...)
		if errors.Is(err, io.EOF) {
			t.eof = true
		} else if err != nil {
			return 0, err
		}
	}
	n := copy(p, t.buf[:max(0, len(t.buf)-sha256.Size)])
	if n == 0 {
		return 0, io.EOF
	}
	t.sum.Write(t.buf[:n])
	t.buf = t.buf[n:]
	return n, nil
}

// verify checks that nothing is left, neither here nor in what was read ahead,
// and that the checksum holds.
func (t *tail) verify(ahead io.Reader) error {
	if n, _ := io.Copy(io.Discard, io.MultiReader(ahead, t)); n > 0 {
		return fmt.Errorf("%d bytes follow its end: %w", n, errDamaged)
	}
	if !bytes.Equal(t.sum.Sum(nil), t.buf) {
		return errDamaged
	}
	return nil
}
