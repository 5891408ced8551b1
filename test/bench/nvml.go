package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	driverVersion = "550.54.15"
	// mountDriver makes a loaded driver's file in /proc, in the mount namespace
	// that the command is started in, before it becomes what follows.
	mountDriver = `mount -t tmpfs none /proc/driver && mkdir /proc/driver/nvidia && ` +
		`echo "NVRM version: NVIDIA UNIX x86_64 Kernel Module  ` + driverVersion + `" >/proc/driver/nvidia/version && exec "$@"`
)

// changeToNVML starts a berthd anew, one that finds a GPU driver: a library
// without hardware, the one that the tests of gpu/nvml have, which shows 8 GPUs.
// berthd and its child are the real ones.
func (h *host) changeToNVML(ctx context.Context) error {
	dir := filepath.Join(h.dir, "driver")
	if err := makeDriver(ctx, dir); err != nil {
		return fmt.Errorf("make a GPU driver's library: %w", err)
	}
	if err := h.stopDaemon(); err != nil {
		return err
	}
	if err := h.clear(ctx); err != nil {
		return err
	}
	h.flavour = flavour{
		name: "data-nvml", bridge: "berthbench2", subnet: "10.212.2.0/24",
		ownMounts: true, before: []string{"/bin/sh", "-c", mountDriver, "sh"},
		env: []string{"LD_LIBRARY_PATH=" + dir, "STUB_DIR=" + dir},
	}
	_, err := h.startDaemon(ctx)
	return err
}

func makeDriver(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "control"), []byte("gpus=8\nevent_poll_ms=1000\n"), 0o600); err != nil {
		return err
	}
	module, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
	if err != nil {
		return fmt.Errorf("where go-nvml's header is: %w", err)
	}
	compile := exec.CommandContext(ctx, "gcc", "-shared", "-fPIC", "-fvisibility=hidden", "-w", "-DNEW", "-DSTILL", "-DNVML_NO_UNVERSIONED_FUNC_DEFS=1",
		"-I"+filepath.Join(strings.TrimSpace(string(module)), "pkg", "nvml"),
		"-o", filepath.Join(dir, "libnvidia-ml.so.1"), filepath.Join("gpu", "nvml", "testdata", "nvml.c"))
	if text, err := compile.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}
