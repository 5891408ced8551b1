package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"berth/state"
)

var benchWriters = []int{1, 16, 256}

// spread does b.N calls in so many goroutines.
func spread(b *testing.B, writers int, call func(n int)) {
	b.ReportAllocs()
	work := make(chan int, b.N)
	for n := range b.N {
		work <- n
	}
	close(work)
	var wg sync.WaitGroup
	b.ResetTimer()
	for range writers {
		wg.Go(func() {
			for n := range work {
				call(n)
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
}

// BenchmarkPropose is to be compared with BenchmarkBareRaft: the same store on
// disk and entries of the same size, once with a state machine that does nothing
// and once with ours, whose part in the difference that shows.
func BenchmarkPropose(b *testing.B) {
	for _, writers := range benchWriters {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			c := start(b, Config{Dir: b.TempDir()})
			c.propose(initCluster(), system)
			spread(b, writers, func(int) {
				if _, err := c.Propose(context.Background(), benchCommand(), admin); err != nil {
					b.Error(err)
				}
			})
		})
	}
}

// benchCommand is a write of ordinary size that leaves the state as large as
// it was.
func benchCommand() *state.UpdateWorkspace {
	text := "a description of some length, as people write them into such fields, with a word or two about why it is there"
	return &state.UpdateWorkspace{ID: "ws-default", Description: &text}
}

type nullFSM struct{ raft.FSM }

func (nullFSM) Apply(*raft.Log) any                  { return nil }
func (nullFSM) ApplyBatch(entries []*raft.Log) []any { return make([]any, len(entries)) }

func BenchmarkBareRaft(b *testing.B) {
	for _, writers := range benchWriters {
		b.Run(fmt.Sprintf("nothing/%d", writers), func(b *testing.B) { benchBareRaft(b, writers, nullFSM{}) })
	}
	for _, writers := range benchWriters {
		b.Run(fmt.Sprintf("state/%d", writers), func(b *testing.B) {
			benchBareRaft(b, writers, newFSM(state.New(), newFatal()))
		})
	}
}

func benchBareRaft(b *testing.B, writers int, machine raft.FSM) {
	c := &Cluster{cfg: Config{NodeID: testNode}.withDefaults(), leads: make(chan bool, 8), fatal: newFatal()}
	stores, err := openStores(filepath.Join(b.TempDir(), "raft"), testNode, c.cfg.Log, c.fatal)
	if err != nil {
		b.Fatal(err)
	}
	conf, trans := c.raftConfig(), newTransport(testNode)
	if err := stores.bootstrap(conf, trans); err != nil {
		b.Fatal(err)
	}
	bare, err := raft.NewRaft(conf, machine, stores, stores, stores.snapshots, trans)
	if err != nil {
		b.Fatal(err)
	}
	<-c.leads
	write := func(cmd state.Command, by state.Caller) {
		entry, err := state.Encode(cmd, by, time.Now())
		if err == nil {
			err = bare.Apply(entry, 0).Error()
		}
		if err != nil {
			b.Error(err)
		}
	}
	write(initCluster(), system)
	spread(b, writers, func(n int) {
		by := admin
		by.RequestID = fmt.Sprintf("0192d3a0-0000-7000-8000-%012d", n)
		write(benchCommand(), by)
	})
	b.StopTimer()
	if err := bare.Shutdown().Error(); err != nil {
		b.Error(err)
	}
	if err := stores.close(); err != nil {
		b.Error(err)
	}
}
