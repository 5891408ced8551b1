package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"berth/state"
	"berth/workspace"
)

// voters starts a cluster of three that are connected in memory.
func voters(t *testing.T, lead func(ctx context.Context, node string) error) []*running {
	t.Helper()
	var all raft.Configuration
	for i := range 3 {
		id := fmt.Sprintf("node-%d", i)
		all.Servers = append(all.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id)})
	}
	var out []*running
	for _, s := range all.Servers {
		id, dir := string(s.ID), t.TempDir()
		f := newFatal()
		c := &Cluster{cfg: Config{NodeID: id}.withDefaults(), fatal: f}
		stores, err := openStores(filepath.Join(dir, "raft"), id, c.cfg.Log, f)
		if err != nil {
			t.Fatal(err)
		}
		err = raft.BootstrapCluster(c.raftConfig(), stores, stores, stores.snapshots, newTransport(id), all)
		if err := errors.Join(err, stores.close()); err != nil {
			t.Fatal(err)
		}
		cfg := Config{Dir: dir, NodeID: id}
		if lead != nil {
			cfg.Lead = func(ctx context.Context, _ uint64) error { return lead(ctx, id) }
		}
		out = append(out, startAsIs(t, cfg))
	}
	for _, a := range out {
		connect(a, out)
	}
	return out
}

func connect(a *running, all []*running) {
	for _, b := range all {
		if a != b {
			a.trans.(*raft.InmemTransport).Connect(b.trans.LocalAddr(), b.trans)
			b.trans.(*raft.InmemTransport).Connect(a.trans.LocalAddr(), a.trans)
		}
	}
}

func cutOff(a *running, all []*running) {
	a.trans.(*raft.InmemTransport).DisconnectAll()
	for _, b := range all {
		b.trans.(*raft.InmemTransport).Disconnect(a.trans.LocalAddr())
	}
}

// leader waits until one of them leads and is ready for work.
func leader(t *testing.T, among []*running) *running {
	t.Helper()
	for range 1000 {
		for _, c := range among {
			if c.Status().Role == "leader" && c.Status().Ready {
				return c
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no leader in 10 s")
	return nil
}

func without(all []*running, c *running) (rest []*running) {
	for _, x := range all {
		if x != c {
			rest = append(rest, x)
		}
	}
	return rest
}

// A leader that was cut off answers nothing that must be current, acknowledges
// nothing, and its work has ended when the next one's begins.
func TestLeaderCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leading := make(chan string, 16)
		all := voters(t, func(ctx context.Context, node string) error {
			leading <- node
			<-ctx.Done()
			leading <- "not " + node
			return nil
		})
		old := leader(t, all)
		old.propose(initCluster(), system)
		old.propose(createWorkspace("ws-1"), admin)
		rest := without(all, old)
		cutOff(old, all)

		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, err := old.Consistent(ctx); err == nil {
			t.Error("a leader without a quorum gave a consistent view")
		}
		by := admin
		by.RequestID = "request-1"
		if _, err := old.Propose(context.Background(), createWorkspace("ws-2"), by); err == nil {
			t.Error("a leader without a quorum acknowledged a write")
		}
		next := leader(t, rest)
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the next leader came after %s", took)
		}
		if res := next.propose(createWorkspace("ws-2"), by); res.Object != "ws-2" {
			t.Errorf("the retry gave %+v", res)
		}
		if _, err := old.Local(old.cfg.NodeID).GoAhead(context.Background(), "run", workspace.Stamp{}); err == nil {
			t.Error("a server without a leader gave a go-ahead")
		}
		if s := old.Status(); s.Role == "leader" || s.SinceLeader < time.Second {
			t.Errorf("the server that was cut off: %+v", s)
		}
		got := []string{<-leading, <-leading, <-leading}
		if want := []string{old.cfg.NodeID, "not " + old.cfg.NodeID, next.cfg.NodeID}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("leader work went %v, want %v", got, want)
		}

		connect(old, all)
		if err := old.WaitIndex(context.Background(), next.View().Index()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(bytesOf(t, old.cfg.Store), bytesOf(t, next.cfg.Store)) {
			t.Error("the server that was cut off has another state")
		}
		for _, c := range all {
			c.stop()
		}
	})
}

func TestFailedLeaderWorkHandsLeadershipOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := ""
		all := voters(t, func(ctx context.Context, node string) error {
			if failed == "" {
				failed = node
				return errors.New("no luck")
			}
			<-ctx.Done()
			return nil
		})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		now := leader(t, all)
		if failed == "" || now.cfg.NodeID == failed {
			t.Errorf("%s failed, %s leads", failed, now.cfg.NodeID)
		}
		now.propose(initCluster(), system)
		if _, err := without(all, now)[0].Propose(context.Background(), &state.RaiseVersion{To: 1}, system); err == nil {
			t.Error("a follower took a proposal")
		}
		for _, c := range all {
			c.stop()
		}
	})
}
