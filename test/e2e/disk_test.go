package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/client"
	"berth/test/image/ociarchive"
	"berth/workspace"
)

// onSmallDisk gives a directory a disk of its own, and counts what the host has
// with it. What is given back takes it away again.
func (d *daemon) onSmallDisk(dir string, mib int) (away func()) {
	d.t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=700", mib)); err != nil {
		d.t.Fatal(err)
	}
	d.before = leftovers(d.t)
	return func() {
		if err := unix.Unmount(dir, 0); err != nil {
			d.t.Errorf("unmount %s: %v", dir, err)
		}
	}
}

// fill leaves so much of a disk free and gives the file that has the rest.
func fill(t *testing.T, dir string, leave int64) (path string) {
	t.Helper()
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "filler")
	if err := os.WriteFile(path, make([]byte, int64(disk.Bavail)*disk.Bsize-leave), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A container whose log has no room goes on: it neither stalls nor ends.
func TestFullDiskOfLogs(t *testing.T) {
	d := newDaemon(t)
	defer d.onSmallDisk(filepath.Join(d.data(), "logs"), 1)()
	defer d.cleanUp()
	d.up()
	d.prepare()
	d.template("talks", "fill-log", "6")
	d.asked("box", "talks", nil)
	run := d.waitFor("box", "running").Run
	d.eventually("it has written more than there is room for, and goes on", func(context.Context) error {
		if code, said := d.inside("box", "cat /tmp/filled /tmp/counter"); code != 0 {
			return fmt.Errorf("exit code %d: %s", code, said)
		}
		return nil
	})
	var out bytes.Buffer
	if err := d.client.Logs(t.Context(), "box", client.LogOptions{}, &out); err != nil || !strings.Contains(out.String(), "xxx") {
		t.Errorf("berth logs: %d bytes (%v)", out.Len(), err)
	}
	if again := d.waitFor("box", "running"); again.Run != run {
		t.Error("it isn't the same run")
	}
	d.stop("box")
}

// A daemon whose Raft log has no room ends and says so. Its containers go on, and
// with room again everything that was acknowledged is there.
func TestFullDiskOfRaft(t *testing.T) {
	d := newDaemon(t)
	raft := filepath.Join(d.data(), "raft")
	defer d.onSmallDisk(raft, 16)()
	defer d.cleanUp()
	d.up()
	d.prepare()
	d.create("box", "demo")
	run := d.waitFor("box", "running").Run
	before := pid(t, run)

	filler := fill(t, raft, 64<<10)
	var acknowledged []string
	for n := 0; ; n++ {
		slug, long := fmt.Sprintf("w-%d", n), strings.Repeat("long ", 12)
		_, err := d.client.CreateWorkspace(t.Context(), workspace.NewWorkspace{Slug: slug, Name: &long})
		if err != nil {
			break
		}
		acknowledged = append(acknowledged, slug)
	}
	d.wait()
	if d.cmd.ProcessState.Success() {
		t.Errorf("it ended with %s", d.cmd.ProcessState)
	}
	lines := strings.Split(strings.TrimSpace(d.log()), "\n")
	says(t, lines[len(lines)-1], "no space left on device", d.data(), "Raft log", "start berthd again")
	if pid(t, run) != before {
		t.Error("the container ended with the daemon")
	}
	// While there is no room the next one ends the same way.
	says(t, d.fails(), "no space left on device", d.data())
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	d.up()
	if again := d.waitFor("box", "running"); again.Run != run || pid(t, run) != before {
		t.Errorf("run %s, then %s", run, again.Run)
	}
	there := map[string]bool{}
	for w, err := range client.All(t.Context(), d.client.Workspaces, client.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		there[w.Slug] = true
	}
	for _, slug := range acknowledged {
		if !there[slug] {
			t.Errorf("workspace %s was acknowledged and is lost", slug)
		}
	}
	t.Logf("%d writes were acknowledged on the full disk", len(acknowledged))
}

// An image that containerd's disk can't hold is refused, by import and by pull,
// and what comes after is as before.
func TestFullDiskOfImages(t *testing.T) {
	t.Run("disk", fullOfImages)
	if os.Getenv("BERTH_TORTURE") != "" {
		t.Run("bomb", bomb)
	}
}

func fullOfImages(t *testing.T) {
	l := newLab(t)
	d := newDaemon(t)
	disk := filepath.Join(d.dir, "disk")
	own := filepath.Join(disk, "c")
	defer d.onSmallDisk(disk, 24)()
	spawn, end := containerdOf(t, own)
	d.args = []string{"--containerd-address", spawn(), "--config", l.config(d)}
	defer end()
	defer d.cleanUp()
	d.up()
	if _, err := d.client.SetRegistry(t.Context(), l.host, workspace.RegistryLoginChange{Username: "ada", Password: labPassword}); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 32<<20)
	_, _ = rand.Read(noise)
	var archive bytes.Buffer
	if err := ociarchive.Write(&archive, ociarchive.Options{Name: "large:latest", Files: map[string][]byte{"opt/noise": noise}}); err != nil {
		t.Fatal(err)
	}
	_, err := d.client.ImportImage(t.Context(), &archive, client.ImportOptions{}, nil)
	if workspace.CodeOf(err) != workspace.CodeConflict {
		t.Errorf("import: %v", err)
	}
	says(t, fmt.Sprint(err), "no room", own, "MiB free", "berth image rm")

	large, _ := l.push("team/large", "1", demo(t, "amd64", fileLayer(t, "opt/noise", noise)))
	_, err = d.client.PullImage(t.Context(), workspace.PullRequest{Reference: large}, nil)
	if workspace.CodeOf(err) != workspace.CodeConflict {
		t.Errorf("pull: %v", err)
	}
	says(t, fmt.Sprint(err), "no room", large, "berth image rm")
	if err := d.fromLab("large", large); err != nil {
		t.Fatal(err)
	}
	says(t, d.status("large", workspace.StatusFailed, "no_space").Message, "no room", large, "berth image rm")

	d.prepare()
	d.asked("box", "demo", nil)
	d.waitFor("box", "running")
}

// A layer that unpacks to more than images may take is refused, however small it
// travels. The least bound is a GiB, which takes a while: the runtime's own tests
// have smaller ones.
func bomb(t *testing.T) {
	l := newLab(t)
	d := newDaemon(t)
	d.args = []string{"--config", l.config(d), "--images-max-gib", "1"}
	d.up()
	if _, err := d.client.SetRegistry(t.Context(), l.host, workspace.RegistryLoginChange{Username: "ada", Password: labPassword}); err != nil {
		t.Fatal(err)
	}
	large, _ := l.push("team/bomb", "1", demo(t, "amd64", fileLayer(t, "opt/zeros", make([]byte, 5<<28))))
	if err := d.fromLab("bomb", large); err != nil {
		t.Fatal(err)
	}
	says(t, d.status("bomb", workspace.StatusFailed, "image_invalid").Message, large, "unpacked", "1073741824 bytes")
}
