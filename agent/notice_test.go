package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

// notice is what the container of a run can read; it ends a test that can't be
// read.
func (h *host) notice(run string) notice {
	h.t.Helper()
	dir := filepath.Join(h.dir, "notices", run)
	text, err := os.ReadFile(filepath.Join(dir, "notice.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	var n notice
	if err := json.Unmarshal(text, &n); err != nil {
		h.t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o755, filepath.Join(dir, "notice.json"): 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			h.t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	return n
}

func (h *host) noNotices(t *testing.T) {
	t.Helper()
	if left, _ := os.ReadDir(filepath.Join(h.dir, "notices")); len(left) > 0 {
		t.Errorf("notices left: %v", left)
	}
}

func TestAContainerReadsWhatIsToCome(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, command("ignore-term"))
		if diff := cmp.Diff(notice{Warnings: []workspace.Warning{}}, h.notice("run-1")); diff != "" {
			t.Error(diff)
		}
		soon := []workspace.Warning{{Reason: "max_duration", Message: "it ends in an hour", EndsAt: time.Now().UTC().Add(time.Hour)}}
		c.edit("run-1", func(r *clusterRun) { r.Warnings = soon })
		settle()
		if diff := cmp.Diff(notice{Warnings: soon}, h.notice("run-1")); diff != "" {
			t.Error(diff)
		}
		d.stop(t)
		c.edit("run-1", func(r *clusterRun) { r.Warnings = nil })
		d = h.startDaemon("")
		settle()
		if got := h.notice("run-1").Warnings; len(got) != 0 {
			t.Errorf("warnings that are over: %v", got)
		}
		c.edit("run-1", func(r *clusterRun) { r.Warnings = soon })
		c.stop("run-1", "kill_switch")
		settle()
		want := notice{Warnings: soon, Stopping: &stopping{
			Reason: "kill_switch", Message: "asked to end (TERM); killed after 30s", KillAt: time.Now().UTC().Add(30 * time.Second),
		}}
		if diff := cmp.Diff(want, h.notice("run-1")); diff != "" {
			t.Error(diff)
		}
		pass(time.Minute)
		c.is(t, "run-1", workspace.PhaseStopped, "kill_switch")
		h.noNotices(t)
		d.stop(t)
		c.check(t)
	})
}

// The end of a lease is in it too, whoever carries it out.
func TestAContainerReadsThatItsLeaseEnds(t *testing.T) {
	for name, alive := range map[string]bool{"by the agent": true, "by the guard": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				c := h.cluster
				c.granting(true)
				d := h.start(t, both(command("ignore-term"), leased(time.Minute), func(a *workspace.Assignment) {
					a.Warnings = []workspace.Warning{{Reason: "long", Message: strings.Repeat("x", noticeMost)}}
				}))
				c.granting(false)
				if !alive {
					d.stop(t)
				}
				pass(30 * time.Second)
				got := h.notice("run-1").Stopping
				if got == nil || got.Reason != "lease_expired" || !got.KillAt.Equal(time.Now().Add(30*time.Second)) ||
					!strings.Contains(got.Message, "paid until") {
					t.Errorf("%+v", got)
				}
				pass(time.Hour)
				if !alive {
					d = h.startDaemon("")
					pass(time.Minute)
				}
				c.is(t, "run-1", workspace.PhaseStopped, "lease_expired")
				h.noNotices(t)
				d.stop(t)
				c.check(t)
			})
		})
	}
}

func TestNoticesThatACrashLeftAreRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		if err := replaceNotice(filepath.Join(h.dir, "notices", "old", noticeName), "{}"); err != nil {
			t.Fatal(err)
		}
		d := h.start(t, nil)
		pass(houseEvery)
		h.notice("run-1")
		h.cluster.stop("run-1", "user_stop")
		pass(time.Minute)
		h.noNotices(t)
		d.stop(t)
		h.cluster.check(t)
	})
}
