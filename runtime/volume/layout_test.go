package volume_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/volume"
)

func TestOnlyRootSeesVolumes(t *testing.T) {
	f := open(t)
	path := f.mustMount("vol", 16)
	f.mustUnmount("vol")
	for name, want := range map[string]os.FileMode{
		filepath.Join(f.dir, "images"): 0o700,
		filepath.Join(f.dir, "mounts"): 0o700,
		f.image("vol"):                 0o600,
		path:                           0, // bare: nobody is meant to write here
	} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has mode %v (%v), want %v", name, info.Mode(), err, want)
		}
	}
}

// The mount table knows only the real path.
func TestDirectoryThroughALink(t *testing.T) {
	f := open(t)
	link := filepath.Join(t.TempDir(), "a link")
	if err := os.Symlink(f.dir, link); err != nil {
		t.Fatal(err)
	}
	volumes, err := volume.New(volume.Config{Dir: link})
	if err != nil {
		t.Fatal(err)
	}
	defer volumes.Close()
	for range 2 {
		if path, err := volumes.Mount(t.Context(), runtime.VolumeSpec{ID: "vol", SizeMiB: 16}); err != nil || path != filepath.Join(f.dir, "mounts/vol") {
			t.Errorf("mounted at %s, %v", path, err)
		}
	}
	if mounted := f.mounted(); len(mounted) != 1 {
		t.Errorf("%d mounts of one volume", len(mounted))
	}
}

func TestDirectoryWithSpaces(t *testing.T) {
	outer := open(t)
	f := &fixture{t: t, dir: filepath.Join(outer.dir, "of all\tvolumes")}
	f.Volumes = f.reopen(volume.Config{})
	f.mustMount("vol", 16)
	f.mustMount("vol", 16)
	if list := f.mustList(); len(list) != 1 || !list[0].Mounted || len(f.mounted()) != 1 {
		t.Errorf("List gives %+v", list)
	}
	f.mustRemove("vol")
}

func TestStackedMounts(t *testing.T) {
	f := open(t)
	path := f.mustMount("vol", 16)
	if err := unix.Mount(path, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	f.mustUnmount("vol")
	if mounted := f.mounted(); len(mounted) > 0 {
		t.Errorf("%d mounts are left", len(mounted))
	}
}

func TestNewRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", file, filepath.Join(file, "below")} {
		if _, err := volume.New(volume.Config{Dir: dir}); err == nil {
			t.Errorf("New in %q gives no error", dir)
		}
	}
}

// What isn't a volume is neither listed nor touched.
func TestStrangeFiles(t *testing.T) {
	f := open(t)
	for _, name := range []string{"images/readme", "images/a.b.img", "mounts/readme"} {
		if err := os.WriteFile(filepath.Join(f.dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.reopen(volume.Config{})
	if list := f.mustList(); len(list) > 0 {
		t.Errorf("List gives %+v", list)
	}
	if left := f.left(); len(left) != 3 {
		t.Errorf("of three strange files there are left: %v", left)
	}
}
