package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"berth/gpu"
	"berth/gpu/nvml"
	"berth/runtime"
	"berth/runtime/containerd"
	"berth/runtime/network"
	"berth/runtime/volume"
)

// openGPUs chooses how GPUs are read, and how containers get one. Simulated ones
// beside a real driver would tell users a lie about the host, so that is refused.
func openGPUs(c Config, node string, log *slog.Logger) (gpu.Reader, func(gpu.Info) runtime.Device, error) {
	if c.SimulateGPUs == "" {
		driver := nvml.NewDriver(nvml.Config{
			Command: []string{"/proc/self/exe", nvmlChild},
			Include: c.GPU.Include, Exclude: c.GPU.Exclude, Log: log,
		})
		return driver, func(info gpu.Info) runtime.Device {
			return deviceOf(info, driver.Access(info, runtime.DriverLibDir))
		}, nil
	}
	if kernel := nvml.Detect("/"); kernel.Loaded {
		return nil, nil, fmt.Errorf("simulate_gpus is set, but NVIDIA driver %s is loaded on this host: remove simulate_gpus", kernel.Version)
	}
	sim, err := gpu.ParseSimulation(c.SimulateGPUs)
	if err != nil {
		return nil, nil, fmt.Errorf("simulate_gpus: %w", err)
	}
	simulated := nvml.NewSimulated(node, sim)
	simulated.Select(c.GPU.Include, c.GPU.Exclude)
	return simulated, func(info gpu.Info) runtime.Device {
		return deviceOf(info, nvml.Access{Nodes: nvml.DeviceNodes(info)})
	}, nil
}

// simulateLoad lets simulated devices look busy while runs hold them.
func (p *parts) simulateLoad() {
	simulated, ok := p.gpus.(*nvml.Simulated)
	if !ok {
		return
	}
	simulated.SetHeld(func(uuid string) bool {
		d := p.cluster.View().Device(uuid)
		return d != nil && len(d.Holders) > 0
	})
}

// deviceOf is how containers get a GPU, by CDI: device nodes, and the driver's
// files.
func deviceOf(info gpu.Info, access nvml.Access) runtime.Device {
	d := runtime.Device{Name: info.UUID}
	for _, n := range access.Nodes {
		d.Nodes = append(d.Nodes, runtime.DeviceNode{Path: n.Path, Major: n.Major, Minor: n.Minor})
	}
	for _, m := range access.Mounts {
		d.Mounts = append(d.Mounts, runtime.Mount{Source: m.Source, Target: m.Target, ReadOnly: true})
	}
	return d
}

func containerdDir(c Config) string { return filepath.Join(c.DataDir, "containerd") }

// containerdUnit is the unit of the package for a containerd of our own. It
// serves the package's data directory only.
const (
	containerdUnit    = "berth-containerd.service"
	containerdUnitDir = "/var/lib/berth/containerd"
)

// spawnConfig is how a containerd of our own is started: by systemd, if that
// started this daemon from the package, else as a process.
func spawnConfig(dir string, log *slog.Logger) containerd.SpawnConfig {
	s := containerd.SpawnConfig{Dir: dir, Log: log}
	if os.Getenv("INVOCATION_ID") != "" && dir == containerdUnitDir {
		if _, err := os.Stat(filepath.Join("/lib/systemd/system", containerdUnit)); err == nil {
			s.Unit = containerdUnit
		}
	}
	return s
}

// openRuntime connects to this data directory's containerd: the one it has
// always had, else the configured one, the host's, or one of our own.
func openRuntime(ctx context.Context, c Config, log *slog.Logger) (*hostRuntime, error) {
	helper, err := findHelper(c)
	if err != nil {
		return nil, err
	}
	choice, err := readChoice(c.DataDir)
	if err != nil {
		return nil, err
	}
	if choice == nil {
		if choice, err = chooseContainerd(ctx, c, log); err != nil {
			return nil, err
		}
	}
	if err := choice.agrees(c); err != nil {
		return nil, err
	}
	r, err := containerd.New(ctx, containerd.Config{
		Address: choice.Address, Helper: helper, CgroupParent: choice.CgroupParent, Log: log,
		CDIDir: filepath.Join(c.RunDir, "cdi"), ExecDir: filepath.Join(c.RunDir, "exec"),
		MaxImport: c.Images.MaxGiB << 30, Registries: c.registries(), Allowed: c.Images.AllowedRegistries,
	})
	if err != nil {
		return nil, err
	}
	host := &hostRuntime{Runtime: r, own: choice.Own, dir: containerdDir(c), log: log}
	if host.own {
		host.ensure(ctx)
	}
	return host, nil
}

// openVolumes keeps the volumes of this data directory.
func openVolumes(c Config, log *slog.Logger) (*volume.Volumes, error) {
	return volume.New(volume.Config{Dir: filepath.Join(c.DataDir, "volumes"), Log: log})
}

// openNetworks prepares the networks of containers. That they can't work here is
// no reason not to start: the log says why, and so does each run that needs one.
func openNetworks(ctx context.Context, c Config, log *slog.Logger) (*network.Networks, error) {
	n, err := network.New(network.Config{
		Dir: filepath.Join(c.DataDir, "network"), RunDir: filepath.Join(c.RunDir, "net"),
		Bridge: c.Network.Bridge, Subnet: c.Network.Subnet, DNS: c.Network.DNS, Deny: c.Network.Deny, Log: log,
	})
	if err != nil {
		return nil, err
	}
	warnings, err := n.Check(ctx)
	if err != nil {
		log.Warn("containers' networks don't work on this host", "err", err)
	}
	for _, w := range warnings {
		log.Warn("containers' networks don't work as they should", "warning", w)
	}
	return n, nil
}

// hostRuntime is this host's runtime with the containerd behind it.
type hostRuntime struct {
	*containerd.Runtime
	own bool // berthd started it, and sees to it that it runs
	dir string
	log *slog.Logger
}

// superviseEvery is how soon a containerd of our own that has ended is started
// again. Its containers go on meanwhile.
const superviseEvery = 2 * time.Second

// infoPatience is how long a containerd may take to say that it is there.
const infoPatience = 5 * time.Second

// Supervise keeps our own containerd running until ctx ends. One that isn't our
// own is its service manager's.
func (r *hostRuntime) Supervise(ctx context.Context) error {
	if !r.own {
		return nil
	}
	tick := time.NewTicker(superviseEvery)
	defer tick.Stop()
	for {
		r.ensure(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *hostRuntime) ensure(ctx context.Context) {
	asked, cancel := context.WithTimeout(ctx, infoPatience)
	_, err := r.Info(asked)
	cancel()
	if err == nil || ctx.Err() != nil {
		return
	}
	if _, err := containerd.Spawn(ctx, spawnConfig(r.dir, r.log)); err != nil && ctx.Err() == nil {
		r.log.Error("berth's own containerd doesn't start; nothing can run until it does", "err", err)
	}
}

// chooseContainerd is asked once in the life of a data directory.
func chooseContainerd(ctx context.Context, c Config, log *slog.Logger) (*containerdChoice, error) {
	choice := &containerdChoice{Address: c.Containerd.Address, CgroupParent: c.Containerd.CgroupParent}
	switch {
	case choice.Address != "":
		if err := answers(choice.Address); err != nil {
			return nil, fmt.Errorf("containerd.address %s: %w: start that containerd, or remove the setting", choice.Address, err)
		}
	case answers(hostContainerd) == nil:
		choice.Address = hostContainerd
	default:
		address, err := containerd.Spawn(ctx, spawnConfig(containerdDir(c), log))
		if err != nil {
			return nil, fmt.Errorf("no containerd answers at %s, and none of our own can be started: %w: install one (apt install containerd runc), or set containerd.address",
				hostContainerd, err)
		}
		choice.Address, choice.Own = address, true
	}
	log.Info("containerd chosen; it stays with this data directory", "address", choice.Address, "own", choice.Own)
	return choice, writeChoice(c.DataDir, choice)
}

func answers(socket string) error {
	conn, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// findHelper looks for berth-helper where it is configured, beside berthd, and
// in PATH.
func findHelper(c Config) (string, error) {
	if c.Helper != "" {
		return filepath.Abs(c.Helper)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "berth-helper")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("berth-helper")
	if err != nil {
		return "", fmt.Errorf("berth-helper, which every container needs, is neither beside berthd nor in PATH: install it, or set helper = \"/path/to/berth-helper\"")
	}
	return filepath.Abs(path)
}
