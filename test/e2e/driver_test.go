package e2e

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/gpu"
	"berth/gpu/nvml"
	"berth/runtime"
	"berth/runtime/containerd"
	"berth/test/image/ociarchive"
)

const driverVersion = "550.54.15"

// compile makes a program or a library of C source.
func compile(t *testing.T, source, out string, flags ...string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("gcc", append([]string{"-xc", source, "-w", "-o", out}, flags...)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
	}
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(content), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// driverRoot is a host with a driver: the kernel's side of it, and its libraries
// where Debian puts them. Its CUDA counts one device.
func driverRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	write(t, filepath.Join(root, "proc/driver/nvidia/version"), "NVRM version: NVIDIA UNIX x86_64 Kernel Module  "+driverVersion+"  Tue Mar  5 22:23:56 UTC 2024\n")
	source := write(t, filepath.Join(t.TempDir(), "cuda.c"), "int cuInit(unsigned f) { return 0; } int cuDeviceGetCount(int *n) { *n = 1; return 0; }")
	for library, soname := range map[string]string{"libcuda": "libcuda.so.1", "libnvidia-ml": "libnvidia-ml.so.1"} {
		file := filepath.Join(root, "usr/lib/x86_64-linux-gnu", library+".so."+driverVersion)
		compile(t, source, file, "-shared", "-fPIC", "-Wl,-soname,"+soname)
		if err := os.Symlink(filepath.Base(file), filepath.Join(filepath.Dir(file), soname)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// stubDriver reads that host's driver through berthd's own child process, with
// the stub of NVML that stands for the real library.
func stubDriver(t *testing.T, root string) *nvml.Driver {
	t.Helper()
	header, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		t.Fatalf("where go-nvml's header is: %v", err)
	}
	stub := t.TempDir()
	compile(t, "../../gpu/nvml/testdata/nvml.c", filepath.Join(stub, "libnvidia-ml.so.1"), "-shared", "-fPIC", "-fvisibility=hidden",
		"-DNEW", "-DNVML_NO_UNVERSIONED_FUNC_DEFS=1", "-I"+filepath.Join(strings.TrimSpace(string(header)), "pkg/nvml"))
	d := nvml.NewDriver(nvml.Config{
		Command: []string{"/usr/bin/env", "STUB_DIR=" + t.TempDir(), "LD_LIBRARY_PATH=" + stub, filepath.Join(host.bin, "berthd"), "nvml-child"},
		Root:    root, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// cudaProgram asks CUDA for its devices, as every program with a GPU does. It is
// linked against nothing of the driver: the loader must find it.
const cudaProgram = `
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
	void *cuda = dlopen("libcuda.so.1", RTLD_NOW);
	if (!cuda) { printf("%s\n", dlerror()); return 3; }
	int n = -1;
	int (*init)(unsigned) = dlsym(cuda, "cuInit"), (*count)(int *) = dlsym(cuda, "cuDeviceGetCount");
	if (init(0) || count(&n)) return 4;
	printf("%d device\n", n);
	return 0;
}`

// cudaImage has such a program and this host's C library.
func cudaImage(t *testing.T) []byte {
	t.Helper()
	program := filepath.Join(t.TempDir(), "cuda")
	compile(t, write(t, program+".c", cudaProgram), program)
	files := map[string][]byte{}
	for inside, from := range map[string]string{
		"bin/cuda": program, "lib64/ld-linux-x86-64.so.2": "/lib64/ld-linux-x86-64.so.2",
		"lib/x86_64-linux-gnu/libc.so.6": "/lib/x86_64-linux-gnu/libc.so.6",
	} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		files[inside] = content
	}
	var archive bytes.Buffer
	if err := ociarchive.Write(&archive, ociarchive.Options{Name: "cuda:1", Files: files}); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// What the driver's discovery finds on a host is what a program in a container
// with one of its GPUs loads; a container without a GPU has nothing of it.
func TestDriverLibrariesInAContainer(t *testing.T) {
	if skipped != "" {
		t.Skip(skipped)
	}
	driver := stubDriver(t, driverRoot(t))
	inventory, err := driver.Inventory(t.Context())
	if err != nil || len(inventory.Devices) == 0 {
		t.Fatalf("inventory %+v: %v", inventory, err)
	}
	dir := t.TempDir()
	r, err := containerd.New(t.Context(), containerd.Config{
		Address: host.containerd, Namespace: "berth-e2e-driver", Helper: filepath.Join(host.bin, "berth-helper"),
		CDIDir: filepath.Join(dir, "cdi"), ExecDir: filepath.Join(dir, "exec"), CgroupParent: cgroupParent, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := r.Import(t.Context(), bytes.NewReader(cudaImage(t)), ""); err != nil {
		t.Fatal(err)
	}
	device := deviceOf(inventory.Devices[0], driver)
	if err := r.SetDevices(t.Context(), []runtime.Device{device}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id      string
		devices []string
		code    int
		says    string
	}{
		{"with-gpu", []string{device.Name}, 0, "1 device\n"},
		{"without-gpu", nil, 3, "libcuda.so.1: cannot open shared object file: No such file or directory\n"},
	} {
		code, said := output(t, r, runtime.Spec{ID: test.id, Image: "cuda:1", Args: []string{"/bin/cuda"}, Devices: test.devices, LogPath: filepath.Join(dir, test.id)})
		if code != test.code || said != test.says {
			t.Errorf("%s: exit code %d, %q", test.id, code, said)
		}
	}
	if err := r.RemoveImage(t.Context(), "cuda:1"); err != nil {
		t.Error(err)
	}
}

// deviceOf is what berthd makes of a device.
func deviceOf(info gpu.Info, driver *nvml.Driver) runtime.Device {
	d := runtime.Device{Name: info.UUID}
	access := driver.Access(info, runtime.DriverLibDir)
	for _, n := range access.Nodes {
		d.Nodes = append(d.Nodes, runtime.DeviceNode{Path: n.Path, Major: n.Major, Minor: n.Minor})
	}
	for _, m := range access.Mounts {
		d.Mounts = append(d.Mounts, runtime.Mount{Source: m.Source, Target: m.Target, ReadOnly: true})
	}
	return d
}

// output runs a container to its end.
func output(t *testing.T, r *containerd.Runtime, spec runtime.Spec) (code int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := r.Create(ctx, spec); err != nil {
		t.Fatal(err)
	}
	_, err := r.Start(ctx, spec.ID)
	var exit runtime.Exit
	if err == nil {
		exit, err = r.Wait(ctx, spec.ID)
	}
	if err = errors.Join(err, r.Kill(ctx, spec.ID), r.Delete(ctx, spec.ID)); err != nil { // the logger has written all by then
		t.Fatal(err)
	}
	raw, err := os.ReadFile(spec.LogPath)
	if err != nil {
		t.Fatal(err)
	}
	return exit.Code, string(raw)
}
