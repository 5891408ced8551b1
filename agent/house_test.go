package agent

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"berth/gpu"
	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/workspace"
)

// What a crash or a boot left is taken away; what somebody has, or may have, and
// all data, stays.
func TestLeftoversAreTakenAway(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		for _, id := range []string{"gone", "unknown"} {
			if _, err := h.networks.Attach(t.Context(), runtime.NetworkSpec{ID: id}); err != nil {
				t.Fatal(err)
			}
			if _, err := h.volumes.Mount(t.Context(), runtime.VolumeSpec{ID: "volume-of-" + id, SizeMiB: 8}); err != nil {
				t.Fatal(err)
			}
		}
		a := &workspace.Assignment{Run: "unknown", Epoch: gpu.Epoch{Incarnation: 1, Index: 5}, Volume: &workspace.VolumeClaim{ID: "volume-of-unknown"}}
		a.Spec.VolumePath = "/data"
		if _, err := h.Create(t.Context(), specOf("cluster-2", testImage, "", a, &prepared{})); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Start(t.Context(), "unknown"); err != nil {
			t.Fatal(err)
		}
		d := h.startDaemon("")
		pass(time.Minute)
		if got := strings.Join(h.left(), ", "); got != "network unknown, volume volume-of-unknown" {
			t.Errorf("left: %s", got)
		}
		if list, _ := h.volumes.List(t.Context()); len(list) != 2 {
			t.Errorf("volumes: %v", list)
		}
		// So does what comes later.
		late := *a
		late.Run, late.Volume = "late", &workspace.VolumeClaim{ID: "volume-of-gone"}
		if _, err := h.Create(t.Context(), specOf("cluster-2", testImage, "", &late, &prepared{})); err != nil {
			t.Fatal(err)
		}
		pass(defaultReconcile)
		if _, err := h.volumes.Mount(t.Context(), runtime.VolumeSpec{ID: "volume-of-gone", SizeMiB: 8}); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := strings.Join(h.left(), ", "); got != "network unknown, volume volume-of-gone, volume volume-of-unknown" {
			t.Errorf("left: %s", got)
		}
		if err := h.Delete(t.Context(), "late"); err != nil {
			t.Fatal(err)
		}
		// An operator ends it: then it is a leftover too.
		h.Exit("unknown", 0)
		if err := h.Delete(t.Context(), "unknown"); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if left := h.left(); len(left) != 0 || d.Stats().Runs != 0 {
			t.Errorf("left: %v", left)
		}
		d.stop(t)
		c.check(t)
	})
}

// Without a view nobody knows what is left over.
func TestNothingIsTakenAwayBeforeAView(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		if _, err := h.networks.Attach(t.Context(), runtime.NetworkSpec{ID: "run-9"}); err != nil {
			t.Fatal(err)
		}
		h.cluster.set(func() { h.cluster.deaf = true })
		d := h.startDaemon("")
		pass(10 * time.Minute)
		if left := h.left(); len(left) != 1 {
			t.Errorf("left: %v", left)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// A boot of the host takes tasks, networks and mounts away, and the run of
// before is lost; the next one gets the same volume.
func TestAfterABoot(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.ready(t, nil).stop(t)
		h.Vanish("run-1")
		h.volumes.Reboot()
		if err := h.networks.Detach(t.Context(), "run-1"); err != nil {
			t.Fatal(err)
		}
		h.conf = func(conf *Config) { conf.BootID = "boot-2" }
		c.lose("run-1", true) // as the state does with a new boot id
		h.networks.Serve("run-2", 8888, answer(200))
		c.place("run-2", both(complete, func(a *workspace.Assignment) { a.Volume.Made = true }), uuid(0))
		d := h.startDaemon("")
		pass(time.Minute)
		if got := c.phases("run-2"); got != "pulling, starting, running" || len(h.containers()) != 1 {
			t.Errorf("phases: %s; containers: %v", got, h.containers())
		}
		if got := strings.Join(h.left(), ", "); got != "network run-2, volume volume-1" {
			t.Errorf("there: %s", got)
		}
		d.stop(t)
		c.check(t)
	})
}

// Volumes are deleted when that is ordered, and not while a run has them.
func TestVolumesAreDeletedAsOrdered(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.ready(t, nil)
		if _, err := h.volumes.Mount(t.Context(), runtime.VolumeSpec{ID: "other", SizeMiB: 8}); err != nil {
			t.Fatal(err)
		}
		release := h.volumes.Hold("other")
		c.purge("volume-1", "other", "never-made")
		settle()
		said := map[string]string{}
		volumes, _ := c.said()
		for _, v := range volumes {
			said[v.ID] = v.Message
			if v.Gone {
				said[v.ID] = "gone"
			}
		}
		if said["never-made"] != "gone" || !strings.Contains(said["volume-1"], "run-1") || !strings.Contains(said["other"], "in use") {
			t.Errorf("reported: %v", said)
		}
		pass(10 * time.Minute)
		if again, _ := c.said(); len(again) != len(volumes) {
			t.Errorf("said again: %v", again[len(volumes):])
		}
		release()
		c.stop("run-1", "user_stop")
		pass(houseEvery / 2) // once the run has let go, not with the next round
		if list, _ := h.volumes.List(t.Context()); len(list) != 0 || c.ordered("volume-1") || c.ordered("other") {
			t.Errorf("volumes: %v", list)
		}
		d.stop(t)
		c.check(t)
	})
}

// Rules that others flush are put back, and the log says so.
func TestNetworksAreRepaired(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		var log bytes.Buffer
		h.log = &log
		d := h.startDaemon("")
		settle()
		h.networks.SetMissing("chain BERTH-FORWARD")
		pass(houseEvery)
		d.stop(t)
		if !strings.Contains(log.String(), "BERTH-FORWARD") {
			t.Errorf("log: %s", log.String())
		}
	})
}

func TestOldLogsAreRemoved(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		h.conf = func(conf *Config) { conf.KeepLogs = 24 * time.Hour }
		d := h.start(t, nil)
		old := time.Now().Add(-25 * time.Hour)
		for run, at := range map[string]time.Time{"old": old, "recent": old.Add(5 * time.Hour), "run-1": old} {
			for _, name := range []string{d.LogPath(run), d.LogPath(run) + ".1"} {
				if err := os.WriteFile(name, []byte("x\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(name, at, at); err != nil {
					t.Fatal(err)
				}
			}
		}
		pass(logsEvery + houseEvery)
		entries, err := os.ReadDir(h.dir + "/logs")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if got := strings.Join(names, " "); got != "recent.log recent.log.1 run-1.log run-1.log.1" {
			t.Errorf("kept: %s", got)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// When the disk gets full, pulled images that no run needs go, and the cluster
// hears of it; a run's image, though it has no container yet, stays.
func TestUnusedImagesGoWhenTheDiskGetsFull(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.conf = func(conf *Config) { conf.Images = ImageGC{High: 80, Low: 70, Keep: []string{"registry.lab/kept:*"}} }
		digests := map[string]string{}
		for _, name := range []string{"unused", "needed", "kept"} {
			reference := "registry.lab/" + name + ":1"
			digests[name] = h.Offer(runtimetest.Remote{Reference: reference})
			if _, err := h.Pull(t.Context(), runtime.ImageSource{Reference: reference}, nil); err != nil {
				t.Fatal(err)
			}
		}
		release := h.Block("Create")
		d := h.start(t, func(a *workspace.Assignment) {
			a.Spec.Image, a.Spec.ImageDigest = "registry.lab/needed:1", digests["needed"]
		})
		pass(time.Minute)
		h.SetImageDisk(runtime.DiskUse{Used: 90, Total: 100})
		pass(imagesEvery + houseEvery)
		var names []string
		for _, image := range c.node().images {
			names = append(names, image.Reference)
		}
		if got := strings.Join(names, " "); got != "demo:latest registry.lab/kept:1 registry.lab/needed:1" {
			t.Errorf("kept: %s", got)
		}
		release()
		d.stop(t)
		c.check(t)
	})
}

// A container that was listed and not looked at yet keeps its network.
func TestWhatWasListedIsNotSweptAway(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.startDaemon("")
		d.stop(t)
		for _, id := range []string{"listed", "assigned", "gone"} {
			if _, err := h.networks.Attach(t.Context(), runtime.NetworkSpec{ID: id}); err != nil {
				t.Fatal(err)
			}
		}
		d.containers["listed"] = runtime.StateRunning
		d.assignments["assigned"] = &workspace.Assignment{Run: "assigned"}
		d.sweep(t.Context())
		if got := strings.Join(h.left(), ", "); got != "network assigned, network listed" {
			t.Errorf("left: %s", got)
		}
	})
}
