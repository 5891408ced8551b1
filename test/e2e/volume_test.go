package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/client"
	"berth/workspace"
)

// images counts the files of volumes in the daemon's directory.
func (d *daemon) images() int {
	d.t.Helper()
	all, err := filepath.Glob(filepath.Join(d.data(), "volumes", "images", "*.img"))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(all)
}

func (d *daemon) volumes() []workspace.Volume {
	d.t.Helper()
	page, err := d.client.Volumes(d.t.Context(), client.ListOptions{})
	if err != nil {
		d.t.Fatal(err)
	}
	return page.Items
}

// A full volume is full for its own container only, keeps what was written, and
// its data outlives stops and a killed daemon.
func TestVolumeKeepsData(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.made(workspace.Template{Name: "lab", VolumePath: "/data"})
	d.asked("box", "lab", nil)
	d.waitFor("box", "running")

	d.must("box", "echo precious >/data/kept; sync")
	code, said := d.inside("box", "dd if=/dev/urandom of=/data/fill bs=1M count=200")
	if code == 0 {
		t.Error("200 MiB were written to a volume of 64 MiB")
	}
	says(t, said, "No space left")
	sum := d.must("box", "sync; md5sum /data/kept /data/fill")
	if _, err := d.client.Status(t.Context()); err != nil {
		t.Errorf("the daemon after a volume ran full: %v", err)
	}
	d.kill()
	d.up()
	if again := d.must("box", "md5sum /data/kept /data/fill"); again != sum {
		t.Errorf("after the daemon was killed:\n%s\nbefore:\n%s", again, sum)
	}
	d.stop("box")
	d.startAgain("box") // full as it is
	if again := d.must("box", "md5sum /data/kept /data/fill"); again != sum {
		t.Errorf("after a stop and a start:\n%s\nbefore:\n%s", again, sum)
	}
	d.must("box", "rm /data/fill && echo more >/data/more")
}

// What becomes of a volume is what the policy says.
func TestVolumePolicies(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.made(workspace.Template{Name: "lab", VolumePath: "/data"})
	d.asked("short", "lab", func(n *workspace.NewInstance) { n.StoragePolicy = "delete" })
	d.asked("long", "lab", nil)
	d.waitFor("short", "running")
	d.waitFor("long", "running")
	d.must("long", "echo results >/data/kept")
	if n := d.images(); n != 2 {
		t.Fatalf("%d volumes are on the disk, not 2", n)
	}
	out, err := d.berth("instance", "rm", "short", "--yes", "--wait")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.eventually("the volume is deleted", func(context.Context) error {
		if n := d.images(); n != 1 {
			return fmt.Errorf("%d volumes are on the disk", n)
		}
		return nil
	})

	id := d.remove("long")
	if out, err := d.berth("volume", "ls"); err != nil || !strings.Contains(out, id) {
		t.Errorf("berth volume ls doesn't list %s (%v):\n%s", id, err, out)
	}
	// Its owner takes it up again.
	out, err = d.berth("instance", "create", "again", "--template", "lab", "--volume", id, "--cpus", "0.5", "--memory", "128MiB", "--storage", "64MiB", "--gpus", "0")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.waitFor("again", "running")
	if said := d.must("again", "cat /data/kept"); said != "results" {
		t.Errorf("the volume has %q", said)
	}
	out, err = d.berth("volume", "rm", id, "--yes")
	if exitCode(err) != 5 {
		t.Errorf("a volume in use is removed (%v): %s", err, out)
	}
	says(t, out, id, "again")
	d.remove("again")
	if out, err := d.berth("volume", "rm", id, "--yes"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.eventually("the removed volume is gone", func(context.Context) error {
		if n, rows := d.images(), len(d.volumes()); n+rows != 0 {
			return fmt.Errorf("%d are on the disk, %d listed", n, rows)
		}
		return nil
	})
}

// remove deletes an instance and gives its volume once that is detached.
func (d *daemon) remove(name string) (id string) {
	d.t.Helper()
	inst, err := d.client.DeleteInstance(d.t.Context(), name)
	if err != nil {
		d.t.Fatal(err)
	}
	d.waitFor(inst.ID, "deleted")
	list := d.volumes()
	if len(list) != 1 || !list[0].Detached {
		d.t.Fatalf("the volumes: %+v", list)
	}
	v := list[0]
	if left := time.Until(v.PurgeAt); v.Policy != "retain:14" || left < 13*24*time.Hour || left > 14*24*time.Hour {
		d.t.Errorf("it is kept for %s (%s)", left, v.Policy)
	}
	return v.ID
}

// A volume that the disk can't hold is refused with the numbers, and leaves
// nothing.
func TestVolumeLargerThanTheDisk(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.made(workspace.Template{Name: "lab", VolumePath: "/data"})
	huge := int64(1) << 30 // the most that can be asked for
	larger := func(n *workspace.NewInstance) { n.Resources.StorageMiB = &huge }
	inst := d.asked("huge", "lab", larger)
	if inst.Status != workspace.StatusFailed || inst.Reason != "resources_impossible" {
		t.Errorf("it is %s (%s)", inst.Status, inst.Reason)
	}
	says(t, inst.Message, "1073741824 MiB", "storage", "the most is")
	// The operator says that the disk is larger than it is.
	d.signal(15)
	d.args = []string{"--node-storage-mib", fmt.Sprint(huge)}
	d.up()
	d.asked("lied", "lab", larger)
	failed := d.status("lied", workspace.StatusFailed, "no_space")
	says(t, failed.Message, "no room", "1073741824 MiB", "the disk of", " MiB: ")
	left, err := os.ReadDir(filepath.Join(d.data(), "volumes", "images"))
	if err != nil || len(left) != 0 {
		t.Errorf("it left %v (%v)", left, err)
	}
}
