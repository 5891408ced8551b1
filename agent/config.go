package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"berth/agent/guard"
	"berth/gpu"
	"berth/runtime"
	"berth/workspace"
)

// Config is what an Agent is made of. All fields are required but for those
// that name a default.
type Config struct {
	Node     string // id of this node
	BootID   string // of this boot of the host
	Dir      string // holds agent.json, logs/ and notices/
	Cluster  Cluster
	Runtime  runtime.Runtime
	Volumes  runtime.Volumes
	Networks runtime.Networks
	Guard    Guard // nil: nothing starts here whose time is limited
	GPU      gpu.Reader
	DeviceOf func(gpu.Info) runtime.Device // how containers get a device
	Facts    workspace.NodeFacts           // the part that stays; the agent fills in runtime, driver and publish address
	Publish  Publish                       // where ports of runs are published
	Boottime func() time.Duration          // CLOCK_BOOTTIME
	Log      *slog.Logger

	// ProcessOf says what a process of this host is; false: there is none. nil:
	// as /proc has it.
	ProcessOf func(pid int) (Process, bool)
	// ProcessStart and CgroupsOf are those of package guard; nil: so.
	ProcessStart func(pid int) (uint64, error)
	CgroupsOf    func(pid int) ([]string, error)

	Images         ImageGC            // the zero value removes none
	KeepLogs       time.Duration      // output of an ended run is removed after; 0: never
	ReconcileEvery time.Duration      // between looks at the runtime; 0: 10 s
	Crash          func(point string) // called at each of CrashPoints and MoreCrashPoints; nil: nothing
}

// Publish is where a host publishes ports of its runs.
type Publish struct {
	Address     string // of this host, such as 127.0.0.1
	First, Last int    // host ports that are for runs
}

// Process is what a host knows of one of its processes.
type Process struct {
	Command string
	Cgroup  string // its paths, of all hierarchies
}

func (c *Config) check() error {
	switch {
	case c.Node == "", c.BootID == "", c.Dir == "":
		return errors.New("agent: Node, BootID and Dir are required")
	case c.Cluster == nil, c.Runtime == nil, c.GPU == nil, c.DeviceOf == nil:
		return errors.New("agent: Cluster, Runtime, GPU and DeviceOf are required")
	case c.Volumes == nil, c.Networks == nil:
		return errors.New("agent: Volumes and Networks are required")
	case c.Publish.Address == "", c.Publish.First < 1, c.Publish.Last < c.Publish.First, c.Publish.Last > 65535:
		return fmt.Errorf("agent: ports can't be published at %q from %d to %d: an address and a range of ports are required",
			c.Publish.Address, c.Publish.First, c.Publish.Last)
	case c.Boottime == nil, c.Log == nil:
		return errors.New("agent: Boottime and Log are required")
	}
	return nil
}

// fill puts in the defaults.
func (c *Config) fill() {
	if c.ReconcileEvery == 0 {
		c.ReconcileEvery = defaultReconcile
	}
	if c.Crash == nil {
		c.Crash = func(string) {}
	}
	if c.ProcessOf == nil {
		c.ProcessOf = procProcess
	}
	if c.ProcessStart == nil {
		c.ProcessStart = guard.ProcessStart
	}
	if c.CgroupsOf == nil {
		c.CgroupsOf = guard.CgroupsOf
	}
}
