package cluster

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"berth/state"
)

// childEnv names the data directory in which this test program, started again,
// writes until it is killed.
const childEnv = "BERTH_CLUSTER_TEST_CHILD"

func writeUntilKilled(dir string) {
	c, err := Open(Config{Dir: dir, NodeID: testNode, Store: state.New()})
	if err != nil {
		panic(err)
	}
	go c.Run(context.Background())
	if _, err := c.Propose(context.Background(), initCluster(), system); err != nil {
		panic(err)
	}
	var mu sync.Mutex
	for w := range 4 {
		go func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("ws-%d-%d-%d", os.Getpid(), w, i)
				if _, err := c.Propose(context.Background(), createWorkspace(id), admin); err != nil {
					panic(err)
				}
				mu.Lock()
				fmt.Println(id)
				mu.Unlock()
			}
		}()
	}
	select {}
}

func TestAcknowledgedWritesSurviveKill(t *testing.T) {
	dir := t.TempDir()
	var acknowledged []string
	for range 3 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+dir)
		child.Stderr = os.Stderr
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if n == 100 {
				child.Process.Kill()
			}
			acknowledged = append(acknowledged, lines.Text())
		}
		child.Wait()
	}
	if len(acknowledged) < 300 {
		t.Fatalf("only %d writes were acknowledged", len(acknowledged))
	}
	c := start(t, Config{Dir: dir})
	waitReady(t, c.Cluster)
	view := c.View()
	// The last line may be cut off by the kill: then it is an id nobody has.
	for _, id := range acknowledged {
		if strings.Count(id, "-") == 3 && view.Workspace(id) == nil {
			t.Errorf("%s was acknowledged and is gone", id)
		}
	}
}

// writtenLog makes a data directory whose log fills many pages.
func writtenLog(t *testing.T) (dir string, want []byte) {
	t.Helper()
	dir = t.TempDir()
	c := start(t, Config{Dir: dir})
	c.propose(initCluster(), system)
	var wg sync.WaitGroup
	for i := range 150 {
		wg.Go(func() { c.propose(createWorkspace(fmt.Sprintf("ws-%d", i)), admin) })
	}
	wg.Wait()
	want = bytesOf(t, c.cfg.Store)
	c.stop()
	return dir, want
}

// A damaged log is refused with what and where and what to do, and stays as it
// is; damage where nothing is stored does no harm. Nothing acknowledged is ever
// missing from what is served.
func TestDamagedLog(t *testing.T) {
	dir, want := writtenLog(t)
	path := filepath.Join(dir, "raft", "raft.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	pages := len(whole) / page
	cut := func(n int) []byte { return whole[:n] }
	random := rand.NewChaCha8([32]byte{1})
	garbage := func(from, n int) []byte {
		b := bytes.Clone(whole)
		random.Read(b[from : from+n])
		return b
	}
	type damage struct {
		name    string
		content []byte
		refused bool // must be; otherwise it may be
	}
	cases := []damage{
		{"empty", nil, true}, {"cut in the first page", cut(page / 2), true}, {"cut after the first page", cut(page), true},
		{"cut after three pages", cut(3 * page), true}, {"cut inside a page", cut(5*page + 100), true},
		{"all garbage", garbage(0, len(whole)), true},
		{"first head", garbage(0, page), true}, {"second head", garbage(page, page), true},
		{"one bit of a head", flip(whole, page+16+40), true},
		{"a text file", []byte("hello\n"), true},
	}
	for i := 2; i < pages; i += 2 {
		cases = append(cases, damage{fmt.Sprintf("garbage in page %d", i), garbage(i*page, page), false},
			damage{fmt.Sprintf("cut after page %d", i), cut(i * page), false})
	}
	refusals := 0
	for _, d := range cases {
		if err := os.WriteFile(path, d.content, 0o600); err != nil {
			t.Fatal(err)
		}
		synctest.Test(t, func(t *testing.T) {
			if refusedOrWhole(t, d.name, dir, d.content, want) {
				refusals++
			} else if d.refused {
				t.Errorf("%s: it was opened", d.name)
			}
		})
	}
	t.Logf("%d damaged logs, %d refused", len(cases), refusals)
	if refusals < len(cases)/2 {
		t.Errorf("only %d of %d were refused: the damage misses the log", refusals, len(cases))
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// refusedOrWhole opens a log: it must be refused in the right way, or give the
// whole state, or end Run with a reason.
func refusedOrWhole(t *testing.T, name, dir string, content, want []byte) (refused bool) {
	t.Helper()
	path := filepath.Join(dir, "raft", "raft.db")
	store := state.New()
	c, err := Open(Config{Dir: dir, NodeID: testNode, Store: store})
	if err != nil {
		if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), restoreAdvice) {
			t.Errorf("%s: the refusal doesn't help: %v", name, err)
		}
		if now, _ := os.ReadFile(path); !bytes.Equal(now, content) {
			t.Errorf("%s: the refused file was changed", name)
		}
		return true
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	select {
	case <-c.Ready():
		cancel()
		err = <-ended
	case err = <-ended:
	}
	if err != nil {
		return true
	}
	if !bytes.Equal(bytesOf(t, store), want) {
		t.Errorf("%s: it was opened and something acknowledged is missing", name)
	}
	return false
}

func TestFlippedBitInAnEntry(t *testing.T) {
	dir, _ := writtenLog(t)
	path := filepath.Join(dir, "raft", "raft.db")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Every copy of an id's first bytes: pages not in use may hold old ones.
	for at := 0; ; {
		i := bytes.Index(content[at:], []byte("ws-17"))
		if i < 0 {
			break
		}
		content[at+i] ^= 1
		at += i + 1
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, Config{Dir: dir})
	if err := <-c.ended; err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("Run ended with %v", err)
	}
}

func TestMissingLog(t *testing.T) {
	dir, _ := writtenLog(t)
	path := filepath.Join(dir, "raft", "raft.db")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := Open(Config{Dir: dir, NodeID: testNode, Store: state.New()})
	if err == nil || !strings.Contains(err.Error(), "gone or empty") {
		t.Errorf("a log that is gone gave %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a new log was made in place of the one that is gone")
	}
}

func TestLogOfAnotherNode(t *testing.T) {
	dir := t.TempDir()
	start(t, Config{Dir: dir}).stop()
	_, err := Open(Config{Dir: dir, NodeID: "node-2", Store: state.New()})
	if err == nil || !strings.Contains(err.Error(), "belongs to node node-1") {
		t.Errorf("the log of another node gave %v", err)
	}
}

func TestSecondOpen(t *testing.T) {
	dir := t.TempDir()
	start(t, Config{Dir: dir})
	_, err := Open(Config{Dir: dir, NodeID: testNode, Store: state.New()})
	if err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("a second open gave %v", err)
	}
}

func TestDamagedSnapshot(t *testing.T) {
	dir := t.TempDir()
	c := start(t, Config{Dir: dir})
	c.propose(initCluster(), system)
	if err := c.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	c.stop()
	files, err := filepath.Glob(filepath.Join(dir, "raft", "snapshots", "*", "state.bin"))
	if err != nil || len(files) != 1 {
		t.Fatalf("snapshots: %v, %v", files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(files[0], flip(content, len(content)/2), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{Dir: dir, NodeID: testNode, Store: state.New()})
	if err == nil || !strings.Contains(err.Error(), "snapshot") || !strings.Contains(err.Error(), restoreAdvice) {
		t.Errorf("a damaged snapshot gave %v", err)
	}
}
