package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"berth/gpu"
	"berth/runtime/containerd"
)

// Config is all that berthd can be told. Each key is also a flag
// (--node-cpu-milli) and a variable of the environment (BERTH_NODE_CPU_MILLI);
// a flag beats the environment, which beats the file, which beats the default.
type Config struct {
	Name         string           `toml:"name" help:"name of this node; default: the host's name"`
	DataDir      string           `toml:"data_dir" help:"state of this daemon: Raft, keys, logs of containers"`
	RunDir       string           `toml:"run_dir" help:"what a reboot may take: the CDI spec of the GPUs, namespaces of networks, pipes"`
	Socket       string           `toml:"socket" help:"control socket"`
	HTTPListen   string           `toml:"http_listen" help:"loopback address for /livez, /readyz, /version and /metrics; empty: none"`
	SimulateGPUs string           `toml:"simulate_gpus" help:"MODEL:COUNT, such as A100-SXM4-80GB:8; refused while an NVIDIA driver is loaded"`
	Helper       string           `toml:"helper" help:"path of berth-helper; default: beside berthd, then in PATH"`
	LogLevel     string           `toml:"log_level" help:"debug, info, warn or error"`
	LogFormat    string           `toml:"log_format" help:"text or json"`
	Cluster      ClusterConfig    `toml:"cluster"`
	Node         Sizes            `toml:"node"`
	Reserve      Sizes            `toml:"reserve"`
	Containerd   ContainerdConfig `toml:"containerd"`
	GPU          GPUConfig        `toml:"gpu"`
	Network      NetworkConfig    `toml:"network"`
	Images       ImagesConfig     `toml:"images"`
	Logs         LogsConfig       `toml:"logs"`
	History      HistoryConfig    `toml:"history"`
	Metrics      MetricsConfig    `toml:"metrics"`
	Registries   []RegistryConfig `toml:"registry"`
}

// ClusterConfig is read once, when the data directory is new.
type ClusterConfig struct {
	Name string `toml:"name" help:"name of the cluster, used when it is first made"`
}

// Sizes of a host: what it offers ([node], 0: what it has less the reserve), or
// what it keeps for itself ([reserve]).
type Sizes struct {
	CPUMilli   int64 `toml:"cpu_milli" help:"thousandths of a core"`
	MemoryMiB  int64 `toml:"memory_mib" help:"MiB of memory"`
	StorageMiB int64 `toml:"storage_mib" help:"MiB of disk"`
}

// ContainerdConfig says which containerd is used.
type ContainerdConfig struct {
	Address string `toml:"address" help:"socket of containerd; default: the host's where it answers, else one of our own"`
	// Outside the daemon's own cgroup, whose end must not be the containers'.
	CgroupParent string `toml:"cgroup_parent" help:"cgroup that holds those of all containers"`
}

// GPUConfig says which of this host's GPUs are offered, and how.
type GPUConfig struct {
	Include []string `toml:"include" help:"UUIDs of the only GPUs that are offered; empty: all"`
	Exclude []string `toml:"exclude" help:"UUIDs of GPUs that are never offered"`
	Sharing string   `toml:"sharing" help:"timeslice or mps: runs may ask for a share of a GPU; nothing isolates them from each other. Empty: whole GPUs only"`
}

// NetworkConfig is the network of the containers.
type NetworkConfig struct {
	Subnet         string   `toml:"subnet" help:"IPv4 addresses of the containers; must not overlap with a route of this host"`
	Bridge         string   `toml:"bridge" help:"name of the bridge that connects them"`
	PortRange      string   `toml:"port_range" help:"host ports for published ports, first-last"`
	PublishAddress string   `toml:"publish_address" help:"address of this host that published ports listen on"`
	DNS            []string `toml:"dns" help:"DNS servers of the containers where the host names only a stub"`
	Deny           []string `toml:"deny" help:"networks that containers can't reach, besides the host and metadata services"`
}

// ImagesConfig is how images come and go.
type ImagesConfig struct {
	AllowedRegistries []string `toml:"allowed_registries" help:"the only registries that images are pulled from; empty: all"`
	MaxGiB            int64    `toml:"max_gib" help:"GiB that one image may take, unpacked"`
	HighWaterPercent  int64    `toml:"high_water_percent" help:"of the disk in use: above it, pulled images that nothing uses are removed"`
	LowWaterPercent   int64    `toml:"low_water_percent" help:"of the disk in use: below it, no more are removed"`
	Keep              []string `toml:"keep" help:"images that are never removed, such as ghcr.io/lab/*"`
}

// LogsConfig is how long the output of ended runs is kept.
type LogsConfig struct {
	KeepDays int64 `toml:"keep_days" help:"days that the output of an ended run is kept on its node"`
}

// HistoryConfig is how long the cluster remembers ended runs. Sums of usage stay.
type HistoryConfig struct {
	KeepDays int64  `toml:"keep_days" help:"days that ended runs and the rows of what they cost are kept"`
	Export   string `toml:"export" help:"file to which these rows are added, as lines of JSON, before they go; empty: none"`
}

// MetricsConfig opens /metrics to other hosts.
type MetricsConfig struct {
	Listen     string `toml:"listen" help:"address for a Prometheus on another host, which gets /metrics only; empty: none"`
	TLSCert    string `toml:"tls_cert" help:"certificate (PEM) of that address; empty: plain HTTP"`
	TLSKey     string `toml:"tls_key" help:"its key (PEM)"`
	BearerFile string `toml:"bearer_file" help:"file with the token that a scrape must bring; empty: none"`
	DCGM       bool   `toml:"dcgm" help:"readings of GPUs also under the names of dcgm-exporter; for hosts where that doesn't run"`
}

// RegistryConfig says how one registry is reached.
type RegistryConfig struct {
	Host      string   `toml:"host"`       // such as docker.io or registry.lab:5000
	Mirrors   []string `toml:"mirrors"`    // URLs, asked before it, in this order
	PlainHTTP bool     `toml:"plain_http"` // it doesn't speak TLS
	CAFile    string   `toml:"ca_file"`    // PEM; besides the host's own
}

const (
	defaultConfigFile = "/etc/berth/berthd.toml"
	hostContainerd    = "/run/containerd/containerd.sock"
)

func defaultConfig() Config {
	return Config{
		DataDir: "/var/lib/berth", RunDir: "/run/berth", Socket: "/run/berth/berth.sock", HTTPListen: "127.0.0.1:7180",
		LogLevel: "info", LogFormat: "text",
		Cluster:    ClusterConfig{Name: "berth"},
		Reserve:    Sizes{MemoryMiB: 1024, StorageMiB: 10240},
		Containerd: ContainerdConfig{CgroupParent: "/berth"},
		Network: NetworkConfig{
			Subnet: "10.89.0.0/16", Bridge: "berth0", PortRange: "30000-32767", PublishAddress: "127.0.0.1",
		},
		Images: ImagesConfig{MaxGiB: 64, HighWaterPercent: 85, LowWaterPercent: 75},
		Logs:   LogsConfig{KeepDays: 7}, History: HistoryConfig{KeepDays: 90},
	}
}

// loadConfig reads defaults, file, environment and flags, in this order. The
// default file may be absent, a named one may not.
func loadConfig(path string, named bool, lookup func(string) (string, bool), flags map[string]string) (Config, error) {
	c := defaultConfig()
	raw, err := os.ReadFile(path) // #nosec G304 -- the operator names it
	switch {
	case errors.Is(err, os.ErrNotExist) && !named:
	case err != nil:
		return c, fmt.Errorf("config: %w", err)
	default:
		if err := readTOML(path, raw, &c); err != nil {
			return c, err
		}
	}
	for _, k := range configKeys(&c) {
		if v, ok := lookup(k.env()); ok {
			if err := k.set(v); err != nil {
				return c, fmt.Errorf("config: %s=%q: %w", k.env(), v, err)
			}
		}
		if v, ok := flags[k.flag()]; ok {
			if err := k.set(v); err != nil {
				return c, fmt.Errorf("config: --%s %q: %w", k.flag(), v, err)
			}
		}
	}
	return c, c.validate()
}

// readTOML is strict: an unknown key is an error that names it and its line.
func readTOML(path string, raw []byte, c *Config) error {
	dec := toml.NewDecoder(strings.NewReader(string(raw))).DisallowUnknownFields()
	err := dec.Decode(c)
	var strict *toml.StrictMissingError
	var bad *toml.DecodeError
	switch {
	case errors.As(err, &strict):
		var unknown []string
		for i := range strict.Errors {
			row, _ := strict.Errors[i].Position()
			unknown = append(unknown, fmt.Sprintf("%q (line %d)", strings.Join(strict.Errors[i].Key(), "."), row))
		}
		return fmt.Errorf("config %s: unknown key %s; `berthd config keys` lists the keys there are", path, strings.Join(unknown, ", "))
	case errors.As(err, &bad):
		row, col := bad.Position()
		return fmt.Errorf("config %s: line %d, column %d: %w", path, row, col, err)
	case err != nil:
		return fmt.Errorf("config %s: %w", path, err)
	}
	return nil
}

func (c *Config) validate() error {
	if c.DataDir == "" || c.Socket == "" {
		return errors.New("config: data_dir and socket can't be empty")
	}
	for _, p := range []*string{&c.DataDir, &c.RunDir, &c.Socket} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return fmt.Errorf("config: %w", err)
		}
		*p = abs
	}
	if p := c.Containerd.CgroupParent; !filepath.IsAbs(p) || filepath.Clean(p) != p || p == "/" {
		return fmt.Errorf("config: containerd.cgroup_parent %q: want a path below the root of the cgroups, such as /berth", p)
	}
	if err := validateListen(c.HTTPListen); err != nil {
		return err
	}
	if c.SimulateGPUs != "" {
		if _, err := gpu.ParseSimulation(c.SimulateGPUs); err != nil {
			return fmt.Errorf("config: simulate_gpus: %w", err)
		}
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		return fmt.Errorf("config: log_level %q is none of debug, info, warn, error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return fmt.Errorf("config: log_format %q is neither text nor json", c.LogFormat)
	}
	for _, s := range []Sizes{c.Node, c.Reserve} {
		if s.CPUMilli < 0 || s.MemoryMiB < 0 || s.StorageMiB < 0 {
			return errors.New("config: [node] and [reserve] sizes can't be negative")
		}
	}
	return errors.Join(c.GPU.validate(), c.Network.validate(), c.Images.validate(), c.History.validate(), c.Metrics.validate(), validateRegistries(c.Registries))
}

func (c *Config) registries() []containerd.Registry {
	var all []containerd.Registry
	for _, r := range c.Registries {
		all = append(all, containerd.Registry{Host: r.Host, Mirrors: r.Mirrors, PlainHTTP: r.PlainHTTP, CAFile: r.CAFile})
	}
	return all
}
