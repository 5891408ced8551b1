// Package runtime is the contract for running one container on this host:
// images, containers, their limits and their devices, with no word about what
// a workspace or a cluster is. runtime/containerd carries it out;
// runtime/runtimetest holds the fake and the suite that both must pass.
package runtime

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors a Runtime returns, wrapped with context; test with errors.Is.
var (
	// ErrNotFound: no such container or image here.
	ErrNotFound = errors.New("not found")
	// ErrExists: a container of that id exists already.
	ErrExists = errors.New("already exists")
	// ErrNotRunning: the container has no live process to signal.
	ErrNotRunning = errors.New("not running")
	// ErrInUse: the image has a container made from it.
	ErrInUse = errors.New("in use")
	// ErrInvalid: an archive, spec or reference that can never work.
	ErrInvalid = errors.New("invalid")
	// ErrNoSpace: the host's disk can't take it.
	ErrNoSpace = errors.New("no space left")
	// ErrUnavailable: the runtime behind this contract does not answer.
	ErrUnavailable = errors.New("runtime unavailable")
	// ErrDenied: a registry refuses the credentials, or the image to them; or
	// this host's configuration doesn't allow the registry.
	ErrDenied = errors.New("denied")
	// ErrRegistry: a registry can't be reached, or what answers isn't one.
	ErrRegistry = errors.New("registry unavailable")
	// ErrPlatform: the image isn't made for this host's architecture.
	ErrPlatform = errors.New("wrong platform")
	// ErrPortTaken: something on this host listens on that port.
	ErrPortTaken = errors.New("port taken")
	// ErrNoAddress: every address of the subnet is in use.
	ErrNoAddress = errors.New("no address left")
	// ErrCorrupt: a volume can't be mounted or isn't the one it should be.
	ErrCorrupt = errors.New("corrupt")
)

// Runtime runs containers on this host. All methods are safe for concurrent
// use and idempotent where it says so. Containers belong to the runtime, not
// to the process that made them: they outlive it.
type Runtime interface {
	Puller
	Executor

	// Info names the runtime and its version; ErrUnavailable when it is down.
	Info(ctx context.Context) (Info, error)

	// Import reads an OCI image layout archive (tar, or tar.gz) and stores its
	// images under the names the archive's annotations give; name, when not
	// empty, is used instead and needs an archive of exactly one image.
	// Nothing is stored when the archive is not whole, holds anything that an
	// image layout doesn't (links, other files), gives one name to two images or
	// is larger than any image should be (ErrInvalid), or when the disk would get
	// full (ErrNoSpace). Memory is bounded whatever it holds; imports wait for
	// each other.
	Import(ctx context.Context, archive io.Reader, name string) ([]Image, error)
	// Images lists what this host has.
	Images(ctx context.Context) ([]Image, error)
	// RemoveImage forgets a reference; ErrInUse while a container uses it,
	// ErrNotFound when there is none.
	RemoveImage(ctx context.Context, reference string) error

	// SetDevices replaces the set of devices that a Spec may name (all of this
	// host's), so that Create can inject them by name.
	SetDevices(ctx context.Context, devices []Device) error

	// Create makes a container and its task without starting its process. On
	// an error nothing stays behind: no container, snapshot, task, or cgroup.
	// ErrExists when the id is taken, ErrNotFound when the image is absent.
	Create(ctx context.Context, spec Spec) (Created, error)
	// Start starts the created process. ErrNotFound when it wasn't created.
	Start(ctx context.Context, id string) (Process, error)
	// Signal sends a signal to the container's PID 1 (init forwards it).
	// ErrNotRunning when it has ended, ErrNotFound when there is none.
	Signal(ctx context.Context, id string, signal int) error
	// Kill sends SIGKILL to every process of the container's cgroup, also while
	// the runtime behind this contract is down. It is no error when none is left.
	// ErrUnavailable when the cgroup can't be known without the runtime.
	Kill(ctx context.Context, id string) error
	// Wait blocks until the process has ended, or ctx ends. A container whose
	// end nobody saw gives Exit{Known: false} and no error.
	Wait(ctx context.Context, id string) (Exit, error)
	// Delete removes task, container, snapshot and cgroup of a container that
	// isn't running (ErrInUse otherwise). Idempotent: absent is no error. The
	// log file stays.
	Delete(ctx context.Context, id string) error
	// List gives every container of this runtime's namespace with its state.
	List(ctx context.Context) ([]Container, error)
	// Inspect gives one. ErrNotFound when there is none.
	Inspect(ctx context.Context, id string) (Container, error)

	// Close lets go of the connection; containers go on.
	Close() error
}

// Info describes the runtime behind the contract.
type Info struct {
	Name    string // "containerd", "fake"
	Version string // such as "1.6.20~ds1"
	Address string // where it is reached
}

// Image is a stored image.
type Image struct {
	Reference string    // such as "docker.io/library/busybox:1" or "demo:latest"
	Digest    string    // "sha256:…" of the manifest (or index) the reference names
	Size      int64     // bytes, compressed content
	Pulled    time.Time // from a registry, to the second, UTC; zero: imported
}

// Device is one device of this host as containers get it.
type Device struct {
	Name   string            // the GPU's UUID
	Nodes  []DeviceNode      // character devices
	Mounts []Mount           // driver libraries and the like
	Env    map[string]string // set in the container
}

// DeviceNode is a character device inside the container.
type DeviceNode struct {
	Path         string // inside the container, such as /dev/nvidia0
	Major, Minor int64
}

// Mount is a bind mount from the host.
type Mount struct {
	Source, Target string
	ReadOnly       bool
}

// Spec is all that a container is made of. It never carries user input into
// devices, mounts, hooks, annotations, sysctls or the runtime's name.
type Spec struct {
	ID       string            // container id: [a-zA-Z0-9-_.], at most 76
	Image    string            // a reference that Images lists
	Digest   string            // when set, the image's digest must equal it
	Args     []string          // empty: the image's entrypoint and command
	Env      []string          // KEY=value, over the image's; NVIDIA_* of the image is dropped
	Dir      string            // empty: the image's
	Hostname string            // empty: the id
	Labels   map[string]string // kept with the container, given back by List
	Devices  []string          // names known through SetDevices
	Mounts   []Mount
	Limits   Limits
	LogPath  string // file for stdout and stderr; empty: discarded
	NetNS    string // path of a network namespace; empty: a new one with loopback only
}

// Limits bound a container. Zero means the default in the comment.
type Limits struct {
	CPUMilli  int64 // thousandths of a core, as CFS quota; 0: unlimited
	MemoryMiB int64 // memory and memory+swap alike; 0: unlimited
	Pids      int64 // 0: 4096
	ShmMiB    int64 // size of /dev/shm; 0: 64
	LogBytes  int64 // cap of one log file, one older kept; 0: 16 MiB
}

// Created is what a created, not yet started container has.
type Created struct {
	CgroupPath string // below each controller's mount (v1) or the root (v2), such as /berth/<id>
	Pid        int    // of the process that waits for Start
}

// Process is a started container's PID 1 as the host sees it.
type Process struct {
	Pid       int
	StartedAt time.Time
}

// State of a container.
type State string

// The states a container can be in.
const (
	// StateCreated: made, never started, or without a task (left by a crash).
	StateCreated State = "created"
	// StateRunning: its process lives.
	StateRunning State = "running"
	// StateExited: its process has ended; Exit says how, where known.
	StateExited State = "exited"
)

// Container is what the runtime knows of a container.
type Container struct {
	ID         string
	Image      string
	Labels     map[string]string
	State      State
	Pid        int    // 0 unless created with a task, or running
	CgroupPath string // as in Created
	CreatedAt  time.Time
	StartedAt  time.Time // of its process; zero when it has none, or nobody can tell
	Exit       Exit      // meaningful when StateExited
}

// Exit is how a process ended.
type Exit struct {
	Known bool // false: it is gone and nobody saw how (code is meaningless)
	Code  int  // 128 + signal when killed
	OOM   bool // the cgroup's out-of-memory killer struck in it
	At    time.Time
}
