package main

import (
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/workspace"
)

// hostSizes is what this host has: cores, memory, and the disk that holds the
// data directory.
func hostSizes(dataDir string) (Sizes, error) {
	var mem unix.Sysinfo_t
	if err := unix.Sysinfo(&mem); err != nil {
		return Sizes{}, fmt.Errorf("memory of the host: %w", err)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(dataDir, &disk); err != nil {
		return Sizes{}, fmt.Errorf("disk of %s: %w", dataDir, err)
	}
	const mib = 1 << 20
	return Sizes{
		CPUMilli:   int64(goruntime.NumCPU()) * 1000,
		MemoryMiB:  int64(mem.Totalram) * int64(mem.Unit) / mib, // #nosec G115 -- a host's memory
		StorageMiB: int64(disk.Blocks) * disk.Bsize / mib,       // #nosec G115 -- a host's disk
	}, nil
}

// offer is what the node offers to runs: [node] where it is set, else the
// host's less the reserve. More than the host has is for simulated GPUs only,
// and said.
func offer(c Config, host Sizes) (Sizes, string, error) {
	var out Sizes
	var over []string
	for _, s := range []struct {
		name              string
		set, has, reserve int64
		to                *int64
	}{
		{"cpu_milli", c.Node.CPUMilli, host.CPUMilli, c.Reserve.CPUMilli, &out.CPUMilli},
		{"memory_mib", c.Node.MemoryMiB, host.MemoryMiB, c.Reserve.MemoryMiB, &out.MemoryMiB},
		{"storage_mib", c.Node.StorageMiB, host.StorageMiB, c.Reserve.StorageMiB, &out.StorageMiB},
	} {
		*s.to = max(0, s.has-s.reserve)
		if s.set == 0 {
			continue
		}
		*s.to = s.set
		if s.set > s.has {
			over = append(over, fmt.Sprintf("%s %d of %d", s.name, s.set, s.has))
		}
	}
	if len(over) == 0 {
		return out, "", nil
	}
	note := "offers more than the host has: " + strings.Join(over, ", ")
	if c.SimulateGPUs == "" {
		return out, "", fmt.Errorf("config: [node] %s; that is allowed with simulate_gpus only: lower it", note)
	}
	return out, note, nil
}

// hostFacts is the part of the node's facts that doesn't change while berthd runs.
func hostFacts(c Config) (workspace.NodeFacts, error) {
	host, err := hostSizes(c.DataDir)
	if err != nil {
		return workspace.NodeFacts{}, err
	}
	sizes, note, err := offer(c, host)
	if err != nil {
		return workspace.NodeFacts{}, err
	}
	boot, err := bootID()
	if err != nil {
		return workspace.NodeFacts{}, err
	}
	return workspace.NodeFacts{
		Name: nodeName(c), BootID: boot, Version: version, Kernel: kernel(), Arch: goruntime.GOARCH,
		CPUMilli: sizes.CPUMilli, MemoryMiB: sizes.MemoryMiB, StorageMiB: sizes.StorageMiB, CapacityNote: note,
		Sharing: c.GPU.Sharing,
	}, nil
}

func nodeName(c Config) string {
	if c.Name != "" {
		return c.Name
	}
	name, err := os.Hostname()
	if err != nil || name == "" {
		return "localhost"
	}
	return name
}

func bootID() (string, error) {
	raw, err := os.ReadFile(filepath.Join("/proc/sys/kernel/random", "boot_id"))
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
}

// boottime is CLOCK_BOOTTIME: it goes on while the host sleeps and no one sets it.
func boottime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock has been there since Linux 2.6.39
	}
	return time.Duration(ts.Nano())
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
