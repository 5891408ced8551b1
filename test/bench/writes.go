package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"berth/cluster"
	"berth/state"
	"berth/workspace"
)

const (
	writeRounds = 7
	writeFor    = 250 * time.Millisecond // of a round
	writeNode   = "01980000-0000-7000-8000-00000000000b"
)

// measureWrites proposes small commands to a single voter on disk and, in turns
// with it, applies entries of the same size to a bare Raft with the same store
// and settings and a state machine that does nothing.
func (h *host) measureWrites(ctx context.Context) (results []result, err error) {
	ours, err := openCluster(ctx, filepath.Join(h.dir, "raft-berth"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ours.close()) }()
	size, err := ours.entrySize()
	if err != nil {
		return nil, err
	}
	bare, err := openBare(filepath.Join(h.dir, "raft-bare"), make([]byte, size))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, bare.close()) }()
	for _, clients := range []int{1, 16, 256} {
		var value, baseline []float64
		for range writeRounds {
			b, err := writesPerSecond(ctx, clients, bare.write)
			if err != nil {
				return nil, fmt.Errorf("bare Raft: %w", err)
			}
			v, err := writesPerSecond(ctx, clients, ours.write)
			if err != nil {
				return nil, err
			}
			value, baseline = append(value, v), append(baseline, b)
		}
		slices.Sort(value)
		slices.Sort(baseline)
		name := fmt.Sprintf("acknowledged writes, clients: %d", clients)
		results = append(results, newResult(name, value[writeRounds/2], "/s").beside(baseline[writeRounds/2]).ratioAtLeast(0.7))
	}
	return results, nil
}

// writesPerSecond lets so many clients write one after the other for a round.
func writesPerSecond(ctx context.Context, clients int, write func(context.Context) error) (float64, error) {
	var done atomic.Int64
	began := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	for range clients {
		group.Go(func() error {
			for time.Since(began) < writeFor && ctx.Err() == nil {
				if err := write(ctx); err != nil {
					return err
				}
				done.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return float64(done.Load()) / time.Since(began).Seconds(), err
}

// voter is berth's own, alone.
type voter struct {
	cluster *cluster.Cluster
	stop    context.CancelFunc
	ended   chan error
}

func openCluster(ctx context.Context, dir string) (*voter, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	c, err := cluster.Open(cluster.Config{Dir: dir, NodeID: writeNode, Store: state.New()})
	if err != nil {
		return nil, err
	}
	running, stop := context.WithCancel(context.Background())
	v := &voter{cluster: c, stop: stop, ended: make(chan error, 1)}
	go func() { v.ended <- c.Run(running) }()
	_, err = c.Propose(ctx, &state.InitCluster{ID: "cluster", Name: "bench", Workspace: "lab"}, state.Caller{Role: workspace.RoleSystem})
	if err != nil {
		return nil, errors.Join(err, v.close())
	}
	return v, nil
}

func (v *voter) close() error {
	v.stop()
	return <-v.ended
}

// smallCommand leaves the state as large as it was.
func smallCommand() *state.UpdateWorkspace {
	text := "a description of some length, as people write them into such fields, with a word or two about why it is there"
	return &state.UpdateWorkspace{ID: "lab", Description: &text}
}

func (v *voter) write(ctx context.Context) error {
	_, err := v.cluster.Propose(ctx, smallCommand(), user(""))
	return err
}

// entrySize is that of the log entries that write makes.
func (v *voter) entrySize() (int, error) {
	entry, err := state.Encode(smallCommand(), user(uuid.NewString()), time.Now())
	return len(entry), err
}

// bareRaft is a single voter with the settings and the store of package cluster.
type bareRaft struct {
	raft  *raft.Raft
	store *raftboltdb.BoltStore
	entry []byte
}

func openBare(dir string, entry []byte) (*bareRaft, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	store, err := raftboltdb.New(raftboltdb.Options{
		Path:        filepath.Join(dir, "raft.db"),
		BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
	if err != nil {
		return nil, err
	}
	b := &bareRaft{store: store, entry: entry}
	if err := b.open(dir); err != nil {
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *bareRaft) open(dir string) error {
	log := hclog.NewNullLogger()
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, log)
	if err != nil {
		return err
	}
	leads := make(chan bool, 1)
	conf := raft.DefaultConfig()
	conf.LocalID = writeNode
	conf.HeartbeatTimeout, conf.ElectionTimeout, conf.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 150*time.Millisecond
	conf.BatchApplyCh, conf.MaxAppendEntries = true, 512
	conf.SnapshotInterval, conf.SnapshotThreshold, conf.TrailingLogs = 30*time.Second, 8192, 8192
	conf.NotifyCh, conf.Logger = leads, log
	_, transport := raft.NewInmemTransport(writeNode)
	alone := raft.Configuration{Servers: []raft.Server{{ID: writeNode, Address: writeNode}}}
	if err := raft.BootstrapCluster(conf, b.store, b.store, snapshots, transport, alone); err != nil {
		return err
	}
	if b.raft, err = raft.NewRaft(conf, nothing{}, b.store, b.store, snapshots, transport); err != nil {
		return err
	}
	<-leads
	return nil
}

func (b *bareRaft) write(context.Context) error { return b.raft.Apply(b.entry, 0).Error() }

func (b *bareRaft) close() error {
	var err error
	if b.raft != nil {
		err = b.raft.Shutdown().Error()
	}
	return errors.Join(err, b.store.Close())
}

// nothing is a state machine that does as little as one can.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                  { return nil }
func (nothing) ApplyBatch(entries []*raft.Log) []any { return make([]any, len(entries)) }
func (nothing) Snapshot() (raft.FSMSnapshot, error)  { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error        { return r.Close() }
func (nothing) Persist(sink raft.SnapshotSink) error { return sink.Close() }
func (nothing) Release()                             {}
