package agent

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/runtime"
	"berth/runtime/runtimetest"
)

func TestImagesToRemove(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }
	pulled := func(reference string, size int64, at, used time.Time) imageUse {
		return imageUse{Image: runtime.Image{Reference: reference, Digest: "d-" + reference, Size: size, Pulled: at}, Used: used}
	}
	named := func(u imageUse, digest string) imageUse {
		u.Digest = digest
		return u
	}
	inUse := func(u imageUse) imageUse {
		u.InUse = true
		return u
	}
	old, middle, young := pulled("old", 5, day(1), time.Time{}), pulled("middle", 5, day(1), day(9)), pulled("young", 5, day(20), time.Time{})
	imported := imageUse{Image: runtime.Image{Reference: "imported", Digest: "d-imported", Size: 50}}
	for _, test := range []struct {
		name      string
		images    []imageUse
		used      int64 // of 100
		keep      []string
		high, low int
		want      []string
	}{
		{"below high water", []imageUse{old}, 85, nil, 85, 75, nil},
		{"one is enough", []imageUse{young, middle, old}, 88, nil, 85, 83, []string{"old"}},
		{"last use counts, not the pull", []imageUse{young, middle, old}, 90, nil, 85, 80, []string{"old", "middle"}},
		{"all, and it still isn't enough", []imageUse{young, middle, old}, 99, nil, 85, 10, []string{"old", "middle", "young"}},
		{"in use", []imageUse{inUse(old), middle}, 90, nil, 85, 80, []string{"middle"}},
		{"imported", []imageUse{imported, young}, 90, nil, 85, 80, []string{"young"}},
		{"kept", []imageUse{pulled("ghcr.io/lab/a/b:1", 5, day(1), day(1)), old}, 90, []string{"ghcr.io/lab/*"}, 85, 80, []string{"old"}},
		{"kept by name", []imageUse{middle, old}, 90, []string{"old"}, 85, 80, []string{"middle"}},
		{"a pattern is for the whole name", []imageUse{middle, old}, 90, []string{"ol", "ld", "o.d"}, 85, 85, []string{"old"}},
		{"two names, one in use", []imageUse{named(old, "d"), named(inUse(young), "d"), middle}, 90, nil, 85, 85, []string{"middle"}},
		{"two names go together, by their last use", []imageUse{named(old, "d"), middle, named(young, "d")}, 90, nil, 85, 80, []string{"middle", "old", "young"}},
		{"nothing is freed twice", []imageUse{named(old, "d"), named(pulled("older", 5, day(1), day(1)), "d"), middle}, 90, nil, 85, 80, []string{"old", "older", "middle"}},
		{"low above high", []imageUse{old, middle}, 90, nil, 85, 95, []string{"old"}},
		{"off", []imageUse{old}, 99, nil, 0, 0, nil},
		{"no disk", []imageUse{old}, 0, nil, 85, 75, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := imagesToRemove(test.images, runtime.DiskUse{Used: test.used, Total: 100}, test.keep, test.high, test.low)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := imagesToRemove([]imageUse{old}, runtime.DiskUse{}, nil, 85, 75); got != nil {
		t.Errorf("of a disk without a size: %v", got)
	}
}

// TestImageCollector: use is remembered, and the disk is looked at after each
// removal.
func TestImageCollector(t *testing.T) {
	store := runtimetest.New("imported")
	for _, reference := range []string{"registry.test/a:1", "registry.test/b:1", "registry.test/c:1"} {
		store.Offer(runtimetest.Remote{Reference: reference})
		if _, err := store.Pull(t.Context(), runtime.ImageSource{Reference: reference}, nil); err != nil {
			t.Fatal(err)
		}
	}
	c := &imageCollector{Store: store, High: 85, Low: 75}
	now := time.Now().Add(time.Hour)
	run := func(inUse string, want ...string) {
		t.Helper()
		now = now.Add(time.Hour)
		removed, err := c.RunOnce(t.Context(), now, func(i runtime.Image) bool { return i.Reference == inUse })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, removed); diff != "" {
			t.Errorf("removed (-want +got):\n%s", diff)
		}
	}
	for _, used := range []string{"registry.test/b:1", "registry.test/c:1", "registry.test/a:1"} {
		run(used)
	}
	store.SetImageDisk(runtime.DiskUse{Used: 90, Total: 100})
	store.FailNext("RemoveImage", runtime.ErrInUse) // b, by a container made meanwhile
	run("", "registry.test/c:1", "registry.test/a:1")
	store.SetImageDisk(runtime.DiskUse{Used: 80, Total: 100})
	run("")
	store.SetImageDisk(runtime.DiskUse{Used: 90, Total: 100})
	odd := errors.New("odd")
	store.FailNext("RemoveImage", odd)
	if _, err := c.RunOnce(t.Context(), now, func(runtime.Image) bool { return false }); !errors.Is(err, odd) {
		t.Errorf("an error of RemoveImage: %v", err)
	}
	run("", "registry.test/b:1")
	run("")
}
