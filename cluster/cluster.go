// Package cluster agrees on the replicated state: it keeps the Raft log and its
// snapshots on disk, runs what only a leader may do, takes proposals, answers
// consistent reads, and is the port through which a node's agent is served.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"berth/state"
	"berth/workspace"
)

// Prepare completes a command just before it enters the log: ids, and for a
// start the scheduler's suggestion. It is called by one goroutine at a time, on
// the leader only, and again for a command that has to enter the log of a later
// term. release, which may be nil, is called once when the entry has been
// applied or has failed: until then the view of later calls doesn't show it.
type Prepare func(view state.View, cmd state.Command) (release func())

// Config says what a Cluster is made of. Dir, NodeID and Store are needed.
type Config struct {
	Dir    string       // data directory; the log and snapshots are in its folder raft
	NodeID string       // of this server, see LoadNodeID; never changes
	Name   string       // of this server, for people
	Store  *state.Store // empty; filled from the snapshot and the log
	Log    *slog.Logger // default: nothing is logged

	Prepare Prepare // default: commands enter the log as they are
	// Lead is the work of a leader in a term. It starts once the state holds
	// everything that earlier leaders committed, and its context ends with
	// leadership. An error hands leadership to another voter; where there is none,
	// Lead is run again after a while. Returning nil says that there is nothing
	// left to do until the next term.
	Lead func(ctx context.Context, term uint64) error
	// Beats takes the beats of nodes, for the leader's work. Default: nobody does.
	Beats func(workspace.Beat)

	Now    func() time.Time // default time.Now
	Timers Timers
}

// Timers of the elections. The zero value of each is its default.
type Timers struct {
	Heartbeat time.Duration // a follower that hears nothing so long asks for votes; default 200 ms
	Election  time.Duration // a candidate tries again after this; default 200 ms
	Lease     time.Duration // a leader without a quorum steps down after this; default 150 ms
}

// Cluster is this server's part of the cluster. Its methods may be called by
// any goroutine.
type Cluster struct {
	cfg    Config
	log    *slog.Logger
	raft   *raft.Raft
	trans  raft.Transport
	stores *stores
	fsm    *fsm
	keys   *keyring
	nodes  registry
	opened time.Time
	led    atomic.Uint64 // terms

	leads     chan bool // leadership won and lost, in order
	proposals chan *proposal
	reads     chan chan<- error

	fatal    *fatal
	ready    chan struct{}
	setReady func()
	stopping chan struct{} // closed: nothing new is taken
	stop     func()
	closed   chan struct{} // closed: Raft is down, nothing more is answered
	shutdown func() error
}

// Open reads the log and the newest snapshot from cfg.Dir and starts Raft; on a
// fresh directory it makes a cluster of one voter. A log that can't be trusted
// is refused and left as it is. The caller runs Run next, or Close.
func Open(cfg Config) (*Cluster, error) {
	if cfg.Dir == "" || cfg.NodeID == "" || cfg.Store == nil {
		return nil, errors.New("cluster: Config needs Dir, NodeID and Store")
	}
	cfg = cfg.withDefaults()
	c := &Cluster{
		cfg: cfg, log: cfg.Log, opened: cfg.Now(), fatal: newFatal(),
		leads: make(chan bool, 8), proposals: make(chan *proposal), reads: make(chan chan<- error),
		ready: make(chan struct{}), stopping: make(chan struct{}), closed: make(chan struct{}),
	}
	c.setReady = sync.OnceFunc(func() { close(c.ready) })
	c.stop = sync.OnceFunc(func() { close(c.stopping) })
	c.shutdown = sync.OnceValue(c.closeAll)
	c.fsm = newFSM(cfg.Store, c.fatal)
	var err error
	if c.keys, err = openKeyring(filepath.Join(cfg.Dir, "secret.key")); err != nil {
		return nil, err
	}
	if c.stores, err = openStores(filepath.Join(cfg.Dir, "raft"), cfg.NodeID, c.log, c.fatal); err != nil {
		return nil, err
	}
	if err := c.startRaft(); err != nil {
		return nil, errors.Join(err, c.stores.close())
	}
	return c, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Prepare == nil {
		cfg.Prepare = func(state.View, state.Command) func() { return nil }
	}
	if cfg.Lead == nil {
		cfg.Lead = func(context.Context, uint64) error { return nil }
	}
	if cfg.Beats == nil {
		cfg.Beats = func(workspace.Beat) {}
	}
	t := &cfg.Timers
	t.Heartbeat = orDefault(t.Heartbeat, 200*time.Millisecond)
	t.Election = orDefault(t.Election, 200*time.Millisecond)
	t.Lease = orDefault(t.Lease, 150*time.Millisecond)
	return cfg
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return d
}

// How much of the log is kept and how it is batched.
const (
	maxBatch          = 512 // entries in one write to the log
	snapshotInterval  = 15 * time.Second
	snapshotThreshold = 4096
	trailingLogs      = 4096 // kept behind a snapshot for servers that lag
)

func (c *Cluster) raftConfig() *raft.Config {
	conf := raft.DefaultConfig()
	conf.LocalID = raft.ServerID(c.cfg.NodeID)
	conf.HeartbeatTimeout = c.cfg.Timers.Heartbeat
	conf.ElectionTimeout = c.cfg.Timers.Election
	conf.LeaderLeaseTimeout = c.cfg.Timers.Lease
	conf.BatchApplyCh = true
	conf.MaxAppendEntries = maxBatch
	conf.SnapshotInterval = snapshotInterval
	conf.SnapshotThreshold = snapshotThreshold
	conf.TrailingLogs = trailingLogs
	conf.NotifyCh = c.leads
	conf.Logger = raftLogger(c.cfg.Log)
	return conf
}

// newTransport makes the way to the other servers. A server's address is its
// node id.
func newTransport(nodeID string) raft.Transport {
	_, t := raft.NewInmemTransport(raft.ServerAddress(nodeID))
	return t
}

func (c *Cluster) startRaft() error {
	c.trans = newTransport(c.cfg.NodeID)
	conf := c.raftConfig()
	err := guarded(func() (err error) {
		if err := c.stores.bootstrap(conf, c.trans); err != nil {
			return err
		}
		c.raft, err = raft.NewRaft(conf, c.fsm, c.stores, c.stores, c.stores.snapshots, c.trans)
		return err
	})
	if err != nil {
		if reason := c.fatal.err(); reason != nil {
			err = reason
		}
		return fmt.Errorf("start Raft from %s: %w: %s", c.stores.dir, err, restoreAdvice)
	}
	return nil
}

// Run does this server's part until ctx ends, which gives nil, or until it must
// not go on: the log couldn't be written or followed. Then the daemon must end
// with the error. It stops taking proposals, ends the leader's work, closes
// Raft and then its stores, in this order.
func (c *Cluster) Run(ctx context.Context) error {
	terms := newTerms(ctx, c.runTerm)
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-c.fatal.done:
			done = true
		case <-c.closed:
			done = true
		case leads := <-c.leads:
			terms.change(leads)
		}
	}
	c.stop()
	c.await(terms.end())
	return errors.Join(c.fatal.err(), c.Close())
}

// await waits for something that Raft answers; a Raft whose main goroutine
// ended with its store answers nothing.
func (c *Cluster) await(done <-chan struct{}) {
	select {
	case <-done:
	case <-c.stores.dead:
	}
}

// Close ends Raft and closes its stores; Run does so by itself. Everything
// acknowledged is on disk already.
func (c *Cluster) Close() error { return c.shutdown() }

func (c *Cluster) closeAll() error {
	c.stop()
	err := c.raft.Shutdown().Error()
	if t, ok := c.trans.(raft.WithClose); ok {
		err = errors.Join(err, t.Close())
	}
	err = errors.Join(err, c.stores.close())
	close(c.closed)
	if err != nil {
		return fmt.Errorf("close the cluster: %w", err)
	}
	return nil
}

// fatal keeps the first reason for which the daemon must end.
type fatal struct {
	once   sync.Once
	done   chan struct{}
	reason error
}

func newFatal() *fatal { return &fatal{done: make(chan struct{})} }

func (f *fatal) fail(err error) {
	f.once.Do(func() {
		f.reason = err
		close(f.done)
	})
}

// err is nil while there is no reason.
func (f *fatal) err() error {
	select {
	case <-f.done:
		return f.reason
	default:
		return nil
	}
}
