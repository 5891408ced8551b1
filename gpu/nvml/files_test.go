package nvml

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"berth/gpu"
)

const fakeVersion = "550.54.15"

// fakeDriver installs a driver's files below root, as Debian and the kernel
// module do.
func fakeDriver(t *testing.T, root string) {
	t.Helper()
	libs := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	foreign := filepath.Join(root, "usr/lib/aarch64-linux-gnu")
	for _, dir := range []string{libs, foreign, filepath.Join(root, "usr/bin"), filepath.Join(root, "lib/firmware/nvidia", fakeVersion), filepath.Join(root, "dev/nvidia-caps")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, soname := range map[string]string{
		"libcuda": "libcuda.so.1", "libnvidia-ml": "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler": "libnvidia-ptxjitcompiler.so.1",
		"libnvidia-nvvm": "libnvidia-nvvm.so.4", "libnvidia-gpucomp": "libnvidia-gpucomp.so." + fakeVersion,
	} {
		file := filepath.Join(libs, name+".so."+fakeVersion)
		compile := exec.Command("gcc", "-shared", "-xc", "/dev/null", "-Wl,-soname,"+soname, "-o", file)
		if text, err := compile.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if soname != filepath.Base(file) {
			if err := os.Symlink(filepath.Base(file), filepath.Join(libs, soname)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// A library for another machine is told by its header only.
	header, err := os.ReadFile(filepath.Join(libs, "libcuda.so."+fakeVersion))
	if err != nil {
		t.Fatal(err)
	}
	header[18], header[19] = 0xB7, 0 // another machine
	for path, text := range map[string][]byte{
		filepath.Join(foreign, "libnvidia-foreign.so."+fakeVersion):              header,
		filepath.Join(root, "usr/bin/nvidia-smi"):                                []byte("#!/bin/sh\n"),
		filepath.Join(root, "lib/firmware/nvidia", fakeVersion, "gsp_ga10x.bin"): nil,
	} {
		if err := os.WriteFile(path, text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// node makes a character device. Nobody opens it.
func node(t *testing.T, root, name string, major, minor uint32) {
	t.Helper()
	if err := unix.Mknod(filepath.Join(root, name), unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))); err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
}

func TestDriverFiles(t *testing.T) {
	root := t.TempDir()
	fakeDriver(t, root)
	files, notes := discoverFiles(root, fakeVersion)
	lib := func(name, soname string) Mount {
		return Mount{Source: filepath.Join(root, "usr/lib/x86_64-linux-gnu", name+".so."+fakeVersion), Target: soname, Lib: true}
	}
	want := []Mount{
		{Source: root + "/lib/firmware/nvidia/550.54.15/gsp_ga10x.bin", Target: "/lib/firmware/nvidia/550.54.15/gsp_ga10x.bin"},
		{Source: root + "/usr/bin/nvidia-smi", Target: "/usr/bin/nvidia-smi"},
		lib("libcuda", "libcuda.so"), lib("libcuda", "libcuda.so.1"),
		lib("libnvidia-gpucomp", "libnvidia-gpucomp.so."+fakeVersion),
		lib("libnvidia-ml", "libnvidia-ml.so.1"), lib("libnvidia-nvvm", "libnvidia-nvvm.so.4"),
		lib("libnvidia-ptxjitcompiler", "libnvidia-ptxjitcompiler.so.1"),
	}
	if diff := cmp.Diff(want, files); diff != "" || len(notes) > 0 {
		t.Errorf("notes %q (-want +got):\n%s", notes, diff)
	}
}

func TestDriverFilesSayWhatIsMissing(t *testing.T) {
	root := t.TempDir()
	if files, notes := discoverFiles(root, fakeVersion); len(files) > 0 || len(notes) != 1 || !strings.Contains(notes[0], "containers get no libraries") {
		t.Errorf("nothing installed: %v, %q", files, notes)
	}
	fakeDriver(t, root)
	for _, file := range []string{"libcuda.so." + fakeVersion, "libcuda.so.1"} {
		if err := os.Remove(filepath.Join(root, "usr/lib/x86_64-linux-gnu", file)); err != nil {
			t.Fatal(err)
		}
	}
	_, notes := discoverFiles(root, fakeVersion)
	if len(notes) != 1 || !strings.Contains(notes[0], "CUDA can't work in containers") && !strings.Contains(notes[0], "no libraries") {
		t.Errorf("without libcuda: %q", notes)
	}
}

// What the inventory finds is what a container gets: its own device, what all
// share, and of a slice the nodes by which it is opened.
func TestAccess(t *testing.T) {
	s := newStub(t, "new")
	s.control("mig=2")
	fakeDriver(t, s.root)
	for _, n := range []struct {
		name         string
		major, minor uint32
	}{
		{"dev/nvidiactl", 195, 255}, {"dev/nvidia0", 195, 0}, {"dev/nvidia1", 195, 1},
		{"dev/nvidia-uvm", 507, 0}, {"dev/nvidia-uvm-tools", 507, 1}, {"dev/nvidia-caps/nvidia-cap12", 236, 12},
	} {
		node(t, s.root, n.name, n.major, n.minor)
	}
	s.write(s.root+"/proc/devices", "Character devices:\n195 nvidia\n236 nvidia-caps\n\nBlock devices:\n  7 loop\n")
	caps := s.root + "/proc/driver/nvidia/capabilities/gpu0/mig/gi2"
	s.write(caps+"/access", "DeviceFileMinor: 12\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
	s.write(caps+"/ci0/access", "DeviceFileMinor: 13\n")
	d := s.open()
	inventory := inventoryOf(t, d)
	if inventory.Message != "" {
		t.Errorf("message %q", inventory.Message)
	}
	shared := []DeviceNode{{"/dev/nvidiactl", 195, 255}, {"/dev/nvidia-uvm", 507, 0}, {"/dev/nvidia-uvm-tools", 507, 1}}
	for _, test := range []struct {
		uuid string
		want []DeviceNode
	}{
		{gpuUUID(1), append(shared[:3:3], DeviceNode{"/dev/nvidia1", 195, 1})},
		{migUUID(101), append(shared[:3:3], DeviceNode{"/dev/nvidia0", 195, 0},
			DeviceNode{"/dev/nvidia-caps/nvidia-cap12", 236, 12}, DeviceNode{"/dev/nvidia-caps/nvidia-cap13", 236, 13})},
	} {
		access := d.Access(infoOf(t, inventory, test.uuid), "/.berth/driver")
		if diff := cmp.Diff(test.want, access.Nodes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.uuid, diff)
		}
		targets := map[string]string{}
		for _, m := range access.Mounts {
			targets[m.Target] = m.Source
		}
		for target, source := range map[string]string{
			"/.berth/driver/libcuda.so.1": "/usr/lib/x86_64-linux-gnu/libcuda.so." + fakeVersion,
			"/usr/bin/nvidia-smi":         "/usr/bin/nvidia-smi",
		} {
			if targets[target] != s.root+source {
				t.Errorf("%s comes from %q", target, targets[target])
			}
		}
	}
}

// A host whose nodes aren't made yet gives at least the device's own.
func TestAccessWithoutNodes(t *testing.T) {
	d := newStub(t, "new").open()
	access := d.Access(infoOf(t, inventoryOf(t, d), gpuUUID(1)), "/x")
	if diff := cmp.Diff(Access{Nodes: []DeviceNode{{"/dev/nvidia1", 195, 1}}}, access); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func infoOf(t *testing.T, inventory gpu.Inventory, uuid string) gpu.Info {
	t.Helper()
	for _, d := range inventory.Devices {
		if d.UUID == uuid {
			return d
		}
	}
	t.Fatalf("no device %s", uuid)
	return gpu.Info{}
}
