package state

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"berth/workspace"
)

// storied is a store with something in every table.
func storied(t testing.TB) *world {
	w := newWorld(t)
	w.play(`init req=q1
template mine
report n1 facts ready gpus=GPU-0,GPU-1,MIG-1<GPU-1 orphans=c1:GPU-1
create i1 name=dev gpus=1 run=r1 on=n1/GPU-0
report n1 run=r1:failed exit=0
create i2 gpus=1 share=500 run=r2 why="waiting_for_gpu|later" idem=k/b
create i3 home=/home policy=retain:3 restart=always:2 run=r3 on=n1
report n1 run=r3:running volume=r3:made
report n1 run=r3:failed
create i4 home=/home run=r4 on=n1
delete i4
login ghcr.io`)
	return w
}

// shown is what tests of golden snapshots look at.
const shown = "cluster\nworkspaces\ntemplates\nnodes\ndevices\ninstance i1\ninstance i2\ninstance i3\nruns\nvolumes\nregistries\nevents"

// TestOldSnapshot: a snapshot from before a table or a field came is read as
// what it was.
func TestOldSnapshot(t *testing.T) {
	old, err := os.ReadFile("testdata/golden/snapshot-0.bin")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	if err := w.store.Restore(bytes.NewReader(old)); err != nil {
		t.Fatal(err)
	}
	got := w.play("cluster\nworkspaces\ntemplates\nnodes\ndevices\ninstance i1\ninstance i2\nruns\nevents")
	if want := goldenFile(t, "testdata/golden/snapshot-0.txt", []byte(got)); string(want) != got {
		t.Errorf("the old snapshot reads as\n%swant\n%s", got, want)
	}
	if err := invariants(w.store.View(), w.store.View(), nil); err != nil {
		t.Error(err)
	}
}

// TestSnapshotRoundTrip: a restored store has the same bytes, answers and
// indexes, however the bytes arrive.
func TestSnapshotRoundTrip(t *testing.T) {
	w := storied(t)
	want := snapshotOf(t, w.store)
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(want), "byte by byte": iotest.OneByteReader(bytes.NewReader(want)),
		"with its end": iotest.DataErrReader(bytes.NewReader(want)),
	} {
		s := New()
		if err := s.Restore(r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := snapshotOf(t, s); !bytes.Equal(got, want) {
			t.Errorf("%s: the snapshot of the restored store differs", name)
		}
		if err := invariants(s.View(), s.View(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGoldenSnapshot: a snapshot that an earlier binary wrote is read as what it
// was, and today's binary writes the same.
func TestGoldenSnapshot(t *testing.T) {
	w := storied(t)
	golden := goldenFile(t, "testdata/golden/snapshot.bin", snapshotOf(t, w.store))
	s := New()
	if err := s.Restore(bytes.NewReader(golden)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(snapshotOf(t, s), golden) || !bytes.Equal(snapshotOf(t, w.store), golden) {
		t.Error("the same state has other bytes now: old snapshots must stay readable, and replicas of two versions equal")
	}
	w.store = s
	got := w.play(shown)
	if want := goldenFile(t, "testdata/golden/snapshot.txt", []byte(got)); string(want) != got {
		t.Errorf("the golden snapshot reads as\n%swant\n%s", got, want)
	}
}

// TestDamagedSnapshot: whatever is wrong with a snapshot, it is refused and the
// state stays as it was.
func TestDamagedSnapshot(t *testing.T) {
	w := storied(t)
	good := snapshotOf(t, w.store)
	sealed := func(content []byte) []byte {
		sum := sha256.Sum256(content)
		return append(bytes.Clone(content), sum[:]...)
	}
	content := good[:len(good)-sha256.Size]
	head := func(s section) []byte { return must(encoder.Marshal(s)) }
	cases := map[string][]byte{
		"empty":            nil,
		"not a snapshot":   []byte(strings.Repeat("text ", 20)),
		"of another form":  append([]byte("berth-snapshot\x02"), good[len(snapshotMagic):]...),
		"more follows":     append(bytes.Clone(good), 0),
		"more, sealed":     sealed(append(bytes.Clone(content), "more"...)),
		"unknown table":    sealed(append([]byte(snapshotMagic), head(section{Table: "novelties", Rows: 1})...)),
		"rows missing":     sealed(append([]byte(snapshotMagic), head(section{Table: "runs", Rows: 1 << 40})...)),
		"no last section":  sealed([]byte(snapshotMagic)),
		"row of bad shape": sealed(append(append([]byte(snapshotMagic), head(section{Table: "runs", Rows: 1})...), 0x01)),
	}
	for i := 0; i < len(good); i += 1 + len(good)/257 {
		cases[fmt.Sprintf("cut to %d", i)] = good[:i]
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x10
		cases[fmt.Sprintf("byte %d flipped", i)] = flipped
	}
	for name, damaged := range cases {
		if err := w.store.Restore(bytes.NewReader(damaged)); err == nil {
			t.Errorf("%s: was restored", name)
		}
	}
	if err := w.store.Restore(iotest.ErrReader(io.ErrClosedPipe)); err == nil {
		t.Error("a snapshot that can't be read was restored")
	}
	if !bytes.Equal(snapshotOf(t, w.store), good) {
		t.Error("a refused snapshot changed the state")
	}
	for name, want := range map[string]string{"more follows": "damaged, use another", "more, sealed": "4 bytes follow its end",
		"unknown table": `a table "novelties" that this binary doesn't know: use a newer berthd`, "not a snapshot": "does not begin like a snapshot"} {
		if err := New().Restore(bytes.NewReader(cases[name])); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

type fullDisk struct{ room int }

func (f *fullDisk) Write(p []byte) (int, error) {
	if f.room -= len(p); f.room < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(p), nil
}

// TestSnapshotWriteFails: a snapshot that couldn't be written whole is an error.
func TestSnapshotWriteFails(t *testing.T) {
	w := storied(t)
	whole := len(snapshotOf(t, w.store))
	for _, room := range []int{0, 10, whole - 33, whole - 1} {
		if err := w.store.Snapshot().Write(&fullDisk{room}); err == nil {
			t.Errorf("with room for %d of %d bytes it was written", room, whole)
		}
	}
}

// TestSnapshotDuringApply: a snapshot holds the index at which it was taken,
// however much is applied while it is written.
func TestSnapshotDuringApply(t *testing.T) {
	w := storied(t)
	var wg sync.WaitGroup
	defer wg.Wait()
	for n := range 20 {
		snapshot, index := w.store.Snapshot(), w.index
		wg.Go(func() {
			var b bytes.Buffer
			s := New()
			if err := errors.Join(snapshot.Write(&b), s.Restore(&b)); err != nil {
				t.Error(err)
			}
			if got := s.View().Index(); got != index {
				t.Errorf("the snapshot taken at index %d holds %d", index, got)
			}
		})
		w.command(parseLine(t, fmt.Sprintf("create more%d gpus=1 run=rm%d why=full|full", n, n)))
		w.command(parseLine(t, fmt.Sprintf("delete more%d", n)))
	}
}

// TestWait: a watcher wakes when its topic changes or the state is restored,
// and not before.
func TestWait(t *testing.T) {
	for name, c := range map[string]struct {
		wake  string
		wakes bool
	}{
		"its topic": {"create i9 run=r9 why=full|full", true},
		"another":   {"update w0 max=5", false},
		"restore":   {"", true},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := storied(t)
			ctx, cancel := context.WithCancel(t.Context())
			woken := make(chan error, 1)
			view := w.store.View()
			go func() { woken <- view.Wait(ctx, TopicRuns, TopicDevices) }()
			synctest.Wait()
			select {
			case err := <-woken:
				t.Fatalf("%s: woken before anything happened: %v", name, err)
			default:
			}
			if c.wake != "" {
				w.command(parseLine(t, c.wake))
			} else if err := w.store.Restore(bytes.NewReader(snapshotOf(t, w.store))); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			cancel()
			if err := <-woken; (err == nil) != c.wakes {
				t.Errorf("%s: Wait gave %v", name, err)
			}
			if name == "restore" && view.Wait(context.Background(), TopicRuns) != nil {
				t.Error("a view of the replaced state waits on")
			}
		})
	}
}

// TestEventRing: the latest 10 000 events are kept, the oldest go.
func TestEventRing(t *testing.T) {
	s := New()
	entry := func(index uint64, cmd Command) {
		t.Helper()
		e, err := Encode(cmd, Caller{Role: workspace.RoleSystem}, sampleTime)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Apply(index, e); err != nil {
			t.Fatal(err)
		}
	}
	entry(1, &InitCluster{ID: "c", Workspace: "w"})
	last := uint64(EventRing + 50)
	for i := uint64(2); i <= last; i++ {
		entry(i, &UpdateWorkspace{ID: "w"})
	}
	// Refused after it had made an event, which must push none out.
	entry(last+1, &CreateInstance{ID: "i", Workspace: "w", Name: "i", Kind: workspace.KindJob, Spec: workspace.RunSpec{Image: "i"},
		Resources: workspace.Resources{CPUMilli: 1000, MemoryMiB: 1000}, Start: true, Run: ""})
	for _, s := range []*Store{s, restored(t, s)} {
		seq, err := s.View().Events("")
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for e := range seq {
			ids = append(ids, e.ID)
		}
		if len(ids) != EventRing || ids[0] != "51.0" || ids[len(ids)-1] != fmt.Sprintf("%d.0", last) {
			t.Errorf("%d events are kept, from %s to %s", len(ids), ids[0], ids[len(ids)-1])
		}
	}
}
