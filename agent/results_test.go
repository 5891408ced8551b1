package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/runtime"
	"berth/workspace"
)

// finished leaves a host on which run-1 has ended with output, results on a
// volume and a file of its user's.
func (h *host) finished(t *testing.T) {
	t.Helper()
	d := h.ready(t, nil)
	h.write(t, h.volumeDir(t, "volume-1"), "runs/run-1/deep/model", "runs/other/model", "data")
	h.write(t, filepath.Join(h.dir, "logs"), "run-1.log", "run-1.log.1", "run-10.log", "run-1.logs")
	h.cluster.stop("run-1", "user_stop")
	pass(time.Minute)
	d.stop(t)
}

func (h *host) write(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// files are those of a volume and the logs.
func (h *host) files(t *testing.T) (volume, logs []string) {
	t.Helper()
	dir, err := h.volumes.Mount(t.Context(), runtime.VolumeSpec{ID: "volume-1", SizeMiB: 64})
	if err != nil {
		t.Fatal(err)
	}
	volume = filesIn(t, dir)
	return volume, filesIn(t, filepath.Join(h.dir, "logs"))
}

func filesIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			name, _ := filepath.Rel(dir, path)
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// expire orders results to be deleted.
func (c *cluster) expire(claims ...workspace.ResultClaim) {
	c.entry(func() { c.expiries, c.purgeIndex = append(c.expiries, claims...), c.at.Index })
}

func (c *cluster) gone() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.expired)
}

var (
	resultsOfRun1 = workspace.ResultClaim{Run: "run-1", Volume: "volume-1"}
	volumeWithout = []string{"data", "runs/other/model"}
	logsWithout   = []string{"run-1.logs", "run-10.log"}
)

// onlyResultsWent checks that all of them and nothing else was deleted.
func (h *host) onlyResultsWent(t *testing.T) {
	t.Helper()
	volume, logs := h.files(t)
	if diff := cmp.Diff([][]string{volumeWithout, logsWithout}, [][]string{volume, logs}); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"run-1"}, h.cluster.gone()); diff != "" {
		t.Error("reported: " + diff)
	}
}

func TestResultsAreDeletedAsOrdered(t *testing.T) {
	for _, test := range []struct {
		name  string
		order func(h *host)
	}{
		{"at once", func(*host) {}},
		{"the volume can't be mounted at first", func(h *host) { h.volumes.FailNext("Mount", runtime.ErrUnavailable) }},
		{"the volumes can't be listed at first", func(h *host) { times(3, func() { h.volumes.FailNext("List", runtime.ErrUnavailable) }) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.finished(t)
				d := h.startDaemon("")
				settle()
				test.order(h)
				h.cluster.expire(resultsOfRun1)
				pass(3 * houseEvery)
				if left := h.left(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				h.onlyResultsWent(t)
				d.stop(t)
				h.cluster.check(t)
			})
		})
	}
}

// A daemon that died in the middle, or before it told, is followed by one that
// tells.
func TestACrashWhileResultsAreDeleted(t *testing.T) {
	for _, point := range []string{crashInResults, crashAfterResults} {
		t.Run(point, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.finished(t)
				first := h.startDaemon(point)
				settle()
				h.cluster.expire(resultsOfRun1)
				settle()
				<-first.done
				d := h.startDaemon("")
				pass(houseEvery)
				h.onlyResultsWent(t)
				d.stop(t)
				h.cluster.check(t)
			})
		})
	}
}

// While another run of the instance has the volume, it stays mounted for it.
func TestResultsOfAnEarlierRunAreDeletedBesideALiveOne(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.finished(t)
		d := h.startDaemon("")
		settle()
		h.networks.Serve("run-2", 8888, answer(200))
		c.place("run-2", both(complete, func(a *workspace.Assignment) { a.Volume.Made = true }), uuid(1))
		pass(time.Second)
		c.expire(resultsOfRun1)
		pass(houseEvery)
		c.is(t, "run-2", workspace.PhaseRunning, "running")
		if diff := cmp.Diff([]string{"network run-2", "volume volume-1"}, h.left()); diff != "" {
			t.Error(diff)
		}
		volume := filesIn(t, h.volumeDir(t, "volume-1"))
		if diff := cmp.Diff(volumeWithout, volume); diff != "" || len(c.gone()) != 1 {
			t.Error(diff, c.gone())
		}
		d.stop(t)
		c.check(t)
	})
}

// A run that comes while results are deleted waits for its volume.
func TestARunWaitsForTheDeletionOfResults(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.finished(t)
		d := h.startDaemon("")
		settle()
		release := h.volumes.Block("Mount")
		c.expire(resultsOfRun1)
		settle()
		h.networks.Serve("run-2", 8888, answer(200))
		c.place("run-2", both(complete, func(a *workspace.Assignment) { a.Volume.Made = true }), uuid(1))
		pass(time.Second)
		c.is(t, "run-2", workspace.PhasePulling, "in_use")
		release()
		pass(longestBackOff)
		c.is(t, "run-2", workspace.PhaseRunning, "running")
		if len(c.gone()) != 1 {
			t.Errorf("gone: %v", c.gone())
		}
		d.stop(t)
		c.check(t)
	})
}

// What was put in the place of results isn't followed, and what isn't there is
// as good as deleted; a run that lives keeps what it has.
func TestNothingButResultsIsDeleted(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.ready(t, nil)
		dir := h.volumeDir(t, "volume-1")
		h.write(t, dir, "data/run-0/model")
		if err := os.RemoveAll(filepath.Join(dir, "runs")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("data", filepath.Join(dir, "runs")); err != nil {
			t.Fatal(err)
		}
		c.expire(
			workspace.ResultClaim{Run: "run-0", Volume: "volume-1"}, workspace.ResultClaim{Run: "run-00", Volume: "no-such-volume"},
			workspace.ResultClaim{Run: "run-000"}, resultsOfRun1, workspace.ResultClaim{Run: "../logs"},
		)
		pass(houseEvery)
		if diff := cmp.Diff([]string{"run-0", "run-00", "run-000"}, c.gone()); diff != "" {
			t.Error(diff)
		}
		if got := filesIn(t, dir); !slices.Equal(got, []string{"data/run-0/model"}) {
			t.Errorf("left: %v", got)
		}
		if _, err := os.Stat(d.LogPath("run-1")); err != nil {
			t.Error(err)
		}
		d.stop(t)
		c.check(t)
	})
}
