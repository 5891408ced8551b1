package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"berth/state"
	"berth/workspace"
)

func TestRequestHappensOnce(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.propose(initCluster(), system)
	by := admin
	by.RequestID = "request-1"
	first := c.propose(createWorkspace("ws-1"), by)
	second := c.propose(createWorkspace("ws-2"), by)
	if !second.Replay || second.Object != "ws-1" || second.Index != first.Index {
		t.Errorf("the retry gave %+v, the first %+v", second, first)
	}
	if c.View().Workspace("ws-2") != nil {
		t.Error("the retry was applied")
	}
}

func TestRefusedCommand(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.propose(initCluster(), system)
	member := state.Caller{Role: workspace.RoleMember, Principal: "bob"}
	res, err := c.Propose(context.Background(), createWorkspace("ws-1"), member)
	wantCode(t, err, workspace.CodeDenied)
	if res.Err == nil || res.Index == 0 {
		t.Errorf("the result is missing: %+v", res)
	}
}

// Without a leader a request waits five seconds, and nothing has happened then.
func TestNoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := Open(Config{Dir: t.TempDir(), NodeID: testNode, Store: state.New()}) // no Run, so nobody leads
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		began := time.Now()
		_, err = c.Propose(context.Background(), initCluster(), system)
		wantCode(t, err, workspace.CodeUnavailable)
		if took := time.Since(began); took != leaderWait {
			t.Errorf("gave up after %s", took)
		}
		_, err = c.Consistent(context.Background())
		wantCode(t, err, workspace.CodeUnavailable)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err = c.Propose(ctx, initCluster(), system)
		wantCode(t, err, workspace.CodeUnavailable)
		if !strings.Contains(err.Error(), "nothing was done") {
			t.Errorf("the answer doesn't say that nothing was done: %v", err)
		}
	})
}

func TestUnknownOutcomeCanBeRetried(t *testing.T) {
	taken, proceed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c := start(t, Config{Dir: t.TempDir(), Prepare: func(_ state.View, cmd state.Command) func() {
		if _, ok := cmd.(*state.CreateWorkspace); ok {
			once.Do(func() { close(taken); <-proceed })
		}
		return nil
	}})
	c.propose(initCluster(), system)
	by := admin
	by.RequestID = "request-1"
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		_, err := c.Propose(ctx, createWorkspace("ws-1"), by)
		failed <- err
	}()
	<-taken
	cancel()
	err := <-failed
	wantCode(t, err, workspace.CodeUnavailable)
	if !strings.Contains(err.Error(), "same request id request-1 is safe") {
		t.Errorf("the answer doesn't say how to retry: %v", err)
	}
	close(proceed)
	if res := c.propose(createWorkspace("ws-2"), by); !res.Replay || res.Object != "ws-1" {
		t.Errorf("the retry gave %+v", res)
	}
}

// Prepare has one caller at a time, sees the state, and each of its releases is
// called once, when the entry has its outcome.
func TestPrepare(t *testing.T) {
	const writers, each = 16, 25
	var inside, held, released atomic.Int64
	prepared, ahead := 0, 0 // no lock: the race detector watches that there is one caller
	store := state.New()
	cfg := Config{Dir: t.TempDir(), Store: store, Prepare: func(view state.View, cmd state.Command) func() {
		if inside.Add(1) != 1 {
			t.Error("two calls of Prepare at once")
		}
		defer inside.Add(-1)
		prepared++
		w, ok := cmd.(*state.CreateWorkspace)
		if !ok {
			return nil
		}
		if view.Cluster() == nil {
			t.Error("Prepare's view is older than what was acknowledged")
		}
		if prepared > 2 && view.Workspace(fmt.Sprintf("ws-%d", prepared-1)) == nil {
			ahead++
		}
		held.Add(1)
		w.ID = fmt.Sprintf("ws-%d", prepared)
		id, once := w.ID, sync.Once{}
		return func() {
			if store.View().Workspace(id) == nil {
				t.Errorf("%s was released before it was applied", id)
			}
			held.Add(-1)
			once.Do(func() { released.Add(1) })
		}
	}}
	c := start(t, cfg)
	c.propose(initCluster(), system)
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				res, err := c.Propose(context.Background(), createWorkspace(""), admin)
				if err != nil || res.Object == "" {
					t.Errorf("propose: %+v, %v", res, err)
				}
			}
		})
	}
	wg.Wait()
	c.stop()
	if prepared != writers*each+1 || released.Load() != writers*each || held.Load() != 0 {
		t.Errorf("%d prepared, %d released, %d held", prepared, released.Load(), held.Load())
	}
	if ahead == 0 {
		t.Error("each command waited for the one before: nothing is batched")
	}
}

// Releases are called also for what fails.
func TestReleaseOfWhatFails(t *testing.T) {
	var held atomic.Int64
	c := start(t, Config{Dir: t.TempDir(), Prepare: func(state.View, state.Command) func() {
		held.Add(1)
		return func() { held.Add(-1) }
	}})
	c.propose(initCluster(), system)
	if err := c.stores.bolt.Close(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := c.Propose(context.Background(), createWorkspace("ws-1"), admin); err == nil {
			t.Error("a write that couldn't reach the disk was acknowledged")
		}
	}
	<-c.ended
	if held.Load() != 0 {
		t.Errorf("%d releases are missing", held.Load())
	}
}

func TestConsistentAndWaitIndex(t *testing.T) {
	c := start(t, Config{Dir: t.TempDir()})
	c.propose(initCluster(), system)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				id := fmt.Sprintf("ws-%d-%d", i, j)
				res := c.propose(createWorkspace(id), admin)
				view, err := c.Consistent(context.Background())
				if err != nil || view.Workspace(id) == nil {
					t.Errorf("a consistent view lacks %s: %v", id, err)
				}
				if err := c.WaitIndex(context.Background(), res.Index); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()

	next := c.View().Index() + 1
	waited := make(chan error, 1)
	go func() { waited <- c.WaitIndex(context.Background(), next) }()
	c.propose(createWorkspace("ws-next"), admin)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.WaitIndex(ctx, next+1000); err == nil {
		t.Error("an index that never came was waited for")
	}
}

// The times of entries go on with the clock that never steps.
func TestEntryTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Dir: t.TempDir()})
		c.propose(initCluster(), system)
		first := c.View().At()
		time.Sleep(time.Hour)
		c.propose(createWorkspace("ws-1"), admin)
		if got := c.View().At().Sub(first); got != time.Hour {
			t.Errorf("an hour is %s in the log", got)
		}
		if got := c.View().At(); !got.Equal(time.Now().Truncate(time.Microsecond)) {
			t.Errorf("the entry's time is %s", got)
		}
	})
}
