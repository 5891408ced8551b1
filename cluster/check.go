package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	logFile   = "raft.db"
	ownerFile = "owner"
)

// restoreAdvice is what can be done about a log that is refused.
const restoreAdvice = "put back a copy of the data directory, or move its folder raft away to begin an empty cluster"

func refuse(path string, err error) error {
	if errors.Is(err, berrors.ErrTimeout) {
		return fmt.Errorf("open the Raft log %s: another process has it open: stop that berthd first", path)
	}
	return fmt.Errorf("the Raft log %s is damaged and was left as it is: %w: %s", path, err, restoreAdvice)
}

var errAborted = errors.New("aborted")

// guarded runs f in a goroutine of its own and makes an error of every way in
// which reading a damaged file can end it: a panic, a fault beyond the file's
// end, and a store that ended the goroutine.
func guarded(f func() error) error {
	done := make(chan error, 1)
	go func() {
		debug.SetPanicOnFault(true)
		err := errAborted
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%v", p)
			}
			done <- err
		}()
		err = f()
	}()
	return <-done
}

// checkLog reads the whole log without writing, before it is opened for
// writing: that would take the older of two states for the truth when the newer
// one is damaged, and faults in a goroutine nobody can guard.
func checkLog(path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil // checkOwner has seen that it may be fresh
	}
	if err != nil {
		return fmt.Errorf("open the Raft log: %w", err)
	}
	if err := checkMetas(path); err != nil {
		return refuse(path, err)
	}
	if err := guarded(func() error { return readLog(path) }); err != nil {
		return refuse(path, err)
	}
	return nil
}

func readLog(path string) error {
	options := boltOptions()
	options.ReadOnly = true
	log, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: options})
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // nothing was written
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	if err != nil || last == 0 {
		return err
	}
	for i := first; i <= last; i++ {
		var entry raft.Log
		if err := log.GetLog(i, &entry); err != nil {
			return fmt.Errorf("entry %d of %d to %d: %w", i, first, last, err)
		}
		if entry.Index != i {
			return fmt.Errorf("entry %d says it is entry %d", i, entry.Index)
		}
	}
	return nil
}

// Layout of the two head pages of a bbolt file: each write of the log ends with
// one of them in turn, the newer names what is in the file.
const (
	metaOffset   = 16 // behind the page's own head
	metaLen      = 64
	metaMagic    = 0xED0CDAED
	metaChecksum = 56 // offset in the meta of FNV-1a of what is before
	metaPageSize = 8
)

// checkMetas requires both head pages. The file opens with one of them, but if
// the newer is the damaged one, the last acknowledged write is gone. A write
// cut off by a power failure doesn't look like this: a head fits in a sector.
func checkMetas(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	size := int64(os.Getpagesize())
	if first, err := readMeta(f, 0); err == nil {
		size = int64(binary.LittleEndian.Uint32(first[metaPageSize:]))
	}
	for page := range int64(2) {
		if _, err := readMeta(f, page*size); err != nil {
			return fmt.Errorf("head page %d: %w", page, err)
		}
	}
	return nil
}

func readMeta(f *os.File, page int64) ([]byte, error) {
	meta := make([]byte, metaLen)
	if _, err := f.ReadAt(meta, page+metaOffset); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the file ends before it")
		}
		return nil, err
	}
	sum := fnv.New64a()
	sum.Write(meta[:metaChecksum])
	if binary.LittleEndian.Uint32(meta) != metaMagic || binary.LittleEndian.Uint64(meta[metaChecksum:]) != sum.Sum64() {
		return nil, errors.New("its checksum doesn't hold")
	}
	return meta, nil
}

// checkOwner looks at the mark that says whose log this folder holds. With it, a
// log that is gone isn't taken for a fresh start, nor another node's log for
// this one's.
func checkOwner(dir, nodeID string) error {
	mark, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read whose Raft log this is: %w", err)
	}
	if owner := strings.TrimSpace(string(mark)); owner != nodeID {
		return fmt.Errorf("the Raft log in %s belongs to node %s, this is node %s: put back the file node-id", dir, owner, nodeID)
	}
	path := filepath.Join(dir, logFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
		return fmt.Errorf("the Raft log %s is gone or empty, but this node has had one: %s", path, restoreAdvice)
	}
	return err
}

// isOwned reports whether the folder has ever held a whole cluster.
func isOwned(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, ownerFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// markOwner writes the mark once the folder holds a cluster.
func markOwner(dir, nodeID string) error {
	path := filepath.Join(dir, ownerFile)
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return writeDurably(path, []byte(nodeID+"\n"))
}
