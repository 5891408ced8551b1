package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/state"
	"berth/workspace"
)

func TestLeadsWithinASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := startAsIs(t, Config{Dir: t.TempDir(), Name: "host-1"})
		before := c.Status()
		if before.Ready || before.Role != "follower" || before.Name != "host-1" {
			t.Errorf("before the election: %+v", before)
		}
		<-c.Ready()
		if took := time.Since(began); took >= time.Second {
			t.Errorf("the first leader came after %s", took)
		}
		if s := c.Status(); s.Role != "leader" || s.Leader != testNode || !s.Ready || s.Term == 0 || s.SinceLeader != 0 {
			t.Errorf("after the election: %+v", s)
		}
		c.stop()
		if s := c.Status(); s.Role != "stopped" || s.Ready {
			t.Errorf("after the end: %+v", s)
		}
	})
}

func TestRestartKeepsState(t *testing.T) {
	dir := t.TempDir()
	a := start(t, Config{Dir: dir})
	a.propose(initCluster(), system)
	for i := range 20 {
		a.propose(createWorkspace(fmt.Sprintf("ws-%d", i)), admin)
	}
	want := bytesOf(t, a.cfg.Store)
	a.stop()

	b := start(t, Config{Dir: dir})
	waitReady(t, b.Cluster)
	if !bytes.Equal(bytesOf(t, b.cfg.Store), want) {
		t.Error("the state after a restart isn't the one before")
	}
	b.propose(createWorkspace("ws-new"), admin)
}

func TestSnapshotAndLogTogetherGiveTheState(t *testing.T) {
	dir := t.TempDir()
	a := start(t, Config{Dir: dir})
	a.propose(initCluster(), system)
	a.propose(createWorkspace("ws-1"), admin)
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	snapshotAt := a.Status().LastSnapshotIndex
	if snapshotAt == 0 {
		t.Fatal("Status shows no snapshot")
	}
	a.propose(createWorkspace("ws-2"), admin)
	want := bytesOf(t, a.cfg.Store)
	a.stop()

	store := state.New()
	c, err := Open(Config{Dir: dir, NodeID: testNode, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v := c.View(); v.Workspace("ws-1") == nil || v.Workspace("ws-2") != nil {
		t.Error("before Run, the state isn't the snapshot's")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	waitReady(t, c)
	if !bytes.Equal(bytesOf(t, store), want) {
		t.Error("snapshot and log don't give the state from before the restart")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// What only a newer binary can follow ends this one, each time it is started.
func TestCommandBeyondThisBinaryEndsRun(t *testing.T) {
	dir := t.TempDir()
	c := start(t, Config{Dir: dir})
	c.propose(initCluster(), system)
	_, err := c.Propose(context.Background(), &state.RaiseVersion{To: state.Version + 1}, system)
	wantCode(t, err, workspace.CodeUnavailable)
	err = <-c.ended
	if err == nil || !strings.Contains(err.Error(), "newer berthd") {
		t.Errorf("Run ended with %v", err)
	}
	if _, err := c.fsm.Snapshot(); err == nil {
		t.Error("a snapshot was given of a state that didn't follow its log")
	}
	// The entry is in the log: the same binary must not get past it.
	again := start(t, Config{Dir: dir})
	if err := <-again.ended; err == nil || !strings.Contains(err.Error(), "newer berthd") {
		t.Errorf("the next Run ended with %v", err)
	}
}

func TestFailedWriteEndsRun(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.propose(initCluster(), system)
	if err := c.stores.bolt.Close(); err != nil { // every write fails from here on
		t.Fatal(err)
	}
	_, err := c.Propose(context.Background(), createWorkspace("ws-1"), admin)
	wantCode(t, err, workspace.CodeUnavailable)
	if !strings.Contains(err.Error(), "request id") {
		t.Errorf("the answer doesn't say how to retry: %v", err)
	}
	if err := <-c.ended; err == nil || !strings.Contains(err.Error(), "raft.db: database not open") {
		t.Errorf("Run ended with %v", err)
	}
	_, err = c.Propose(context.Background(), createWorkspace("ws-2"), admin)
	wantCode(t, err, workspace.CodeUnavailable)
}

// Raft panics when it can't write its term: that must not take the process down
// without a reason.
func TestFailedTermEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Dir: t.TempDir()})
		if err := c.stores.bolt.Close(); err != nil { // before the election writes one
			t.Fatal(err)
		}
		if err := <-c.ended; err == nil || !strings.Contains(err.Error(), "raft.db: database not open") {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestCloseWithoutRun(t *testing.T) {
	c, err := Open(Config{Dir: t.TempDir(), NodeID: testNode, Store: state.New()})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Run(context.Background()); err != nil {
		t.Errorf("Run after Close: %v", err)
	}
}

func TestLeaderWorkIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var starts []time.Time
		ended := make(chan struct{})
		c := start(t, Config{Dir: t.TempDir(), Lead: func(ctx context.Context, _ uint64) error {
			if starts = append(starts, time.Now()); len(starts) < 4 {
				return errors.New("no luck")
			}
			defer close(ended)
			<-ctx.Done()
			return ctx.Err()
		}})
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(starts) != 4 {
			t.Fatalf("leader work began %d times, want 4", len(starts))
		}
		for i, want := range []time.Duration{1, 2, 4} {
			if got := starts[i+1].Sub(starts[i]); got != want*time.Second {
				t.Errorf("pause %d was %s, want %s", i, got, want*time.Second)
			}
		}
		c.stop()
		select {
		case <-ended:
		default:
			t.Error("Run ended before the leader's work")
		}
	})
}

func TestLeaderWorkSeesEverythingCommitted(t *testing.T) {
	dir := t.TempDir()
	a := start(t, Config{Dir: dir})
	a.propose(initCluster(), system)
	a.propose(createWorkspace("ws-1"), admin)
	a.stop()

	store := state.New()
	saw := make(chan bool, 1)
	start(t, Config{Dir: dir, Store: store, Lead: func(context.Context, uint64) error {
		saw <- store.View().Workspace("ws-1") != nil
		return nil
	}})
	if !<-saw {
		t.Error("leader work began before the state was complete")
	}
}

// Leadership won again at once waits for the work of the term before.
func TestTermsFollowEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		terms := newTerms(context.Background(), func(ctx context.Context) {
			most.Store(max(most.Load(), now.Add(1)))
			<-ctx.Done()
			time.Sleep(time.Second) // work that takes a while to end
			now.Add(-1)
		})
		for range 3 {
			terms.change(true)
			synctest.Wait()
			terms.change(false)
		}
		<-terms.end()
		if now.Load() != 0 || most.Load() != 1 {
			t.Errorf("%d terms at once, %d left", most.Load(), now.Load())
		}
	})
}

// The end comes in order: nothing new is taken, then the leader's work ends,
// then Raft; what was taken before gets its outcome.
func TestEndInOrder(t *testing.T) {
	var c *running
	var opened, refused atomic.Bool
	began, proceed := make(chan struct{}), make(chan struct{})
	c = start(t, Config{
		Dir: t.TempDir(),
		Prepare: func(_ state.View, cmd state.Command) func() {
			if w, ok := cmd.(*state.CreateWorkspace); ok && w.ID == "ws-1" {
				close(began)
				<-proceed
			}
			return nil
		},
		Lead: func(ctx context.Context, _ uint64) error {
			<-ctx.Done()
			_, err := c.Propose(context.WithoutCancel(ctx), createWorkspace("ws-late"), system)
			refused.Store(workspace.CodeOf(err) == workspace.CodeUnavailable)
			opened.Store(c.raft.Barrier(0).Error() == nil)
			return nil
		},
	})
	c.propose(initCluster(), system)
	taken := make(chan error, 1)
	go func() {
		_, err := c.Propose(context.Background(), createWorkspace("ws-1"), admin)
		taken <- err
	}()
	<-began
	c.cancel()
	<-c.stopping
	close(proceed)
	if err := <-taken; err != nil {
		t.Errorf("a proposal taken before the end: %v", err)
	}
	c.stop()
	if !refused.Load() {
		t.Error("a proposal was taken after the end began")
	}
	if !opened.Load() {
		t.Error("Raft was closed before the leader's work ended")
	}
}

// A daemon that was killed while it made its first cluster makes it again.
func TestHalfBootstrapIsBegunAgain(t *testing.T) {
	dir := t.TempDir()
	half, err := openStores(filepath.Join(dir, "raft"), testNode, slog.New(slog.DiscardHandler), newFatal())
	if err != nil {
		t.Fatal(err)
	}
	if err := half.SetUint64(termKey, 1); err != nil {
		t.Fatal(err)
	}
	if err := half.close(); err != nil {
		t.Fatal(err)
	}
	c := start(t, Config{Dir: dir})
	waitReady(t, c.Cluster)
	c.propose(initCluster(), system)
}

// A command that can't be written down is refused, and nothing is proposed.
func TestUnwritableCommandIsRefused(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.propose(initCluster(), system)
	before := c.View().Index()
	_, err := c.Propose(t.Context(), &state.CreateInstance{ToBeDeletedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}, admin)
	if workspace.CodeOf(err) != workspace.CodeInvalid {
		t.Errorf("the answer is %v", err)
	}
	if after := c.View().Index(); after != before {
		t.Errorf("the log went from %d to %d", before, after)
	}
}
