package e2e

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"berth/client"
	"berth/workspace"
)

// A host without a driver says so, and still runs what needs no GPU.
func TestHostWithoutGPUs(t *testing.T) {
	d := newDaemon(t, "--simulate-gpus", "")
	d.up()
	d.prepare()
	nodes, err := d.client.Nodes(t.Context(), client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if facts := nodes.Items[0].Facts; facts.GPUSource != "none" {
		t.Errorf("GPUs come from %q", facts.GPUSource)
	} else {
		says(t, facts.GPUMessage, "NVIDIA driver")
	}
	if _, err := d.client.CreateInstance(t.Context(), newInstance("plain", "demo", 0)); err != nil {
		t.Fatal(err)
	}
	d.waitFor("plain", "running")
	inst, err := d.client.CreateInstance(t.Context(), newInstance("gpu", "demo", 1))
	if err != nil {
		t.Fatal(err)
	}
	if inst.Status != workspace.StatusFailed {
		t.Errorf("an instance with a GPU is %s (%s: %s)", inst.Status, inst.Reason, inst.Message)
	}
}

func TestImageInUse(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.create("box", "demo")
	d.waitFor("box", "running")
	err := d.client.RemoveImage(t.Context(), imageName, "")
	if workspace.CodeOf(err) != workspace.CodeConflict {
		t.Fatalf("an image in use: %v", err)
	}
	says(t, err.Error(), imageName)
	if err := d.client.RemoveImage(t.Context(), "nowhere:1", ""); workspace.CodeOf(err) != workspace.CodeNotFound {
		t.Errorf("an image that isn't there: %v", err)
	}
}

// What was acknowledged before kill -9 is there after it (docs/domain.md, I8).
func TestNoAcknowledgedWriteIsLost(t *testing.T) {
	const writers = 16
	d := newDaemon(t)
	d.up()
	acknowledged := make([][]string, writers)
	var group sync.WaitGroup
	reached := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	for i := range writers {
		group.Go(func() {
			for n := 0; ; n++ {
				w, err := d.client.CreateWorkspace(ctx, workspace.NewWorkspace{Slug: fmt.Sprintf("w-%d-%d", i, n)})
				if err != nil {
					return // killed
				}
				acknowledged[i] = append(acknowledged[i], w.ID)
				if n == 20 {
					select {
					case reached <- struct{}{}:
					default:
					}
				}
			}
		})
	}
	<-reached
	d.kill()
	cancel()
	group.Wait()
	d.up()
	there := map[string]bool{}
	for w, err := range client.All(t.Context(), d.client.Workspaces, client.ListOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		there[w.ID] = true
	}
	total := 0
	for _, ids := range acknowledged {
		for _, id := range ids {
			total++
			if !there[id] {
				t.Errorf("workspace %s was acknowledged and is lost", id)
			}
		}
	}
	t.Logf("%d writes were acknowledged, %d workspaces are there", total, len(there))
}
