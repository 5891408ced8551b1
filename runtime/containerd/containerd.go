// Package containerd carries out the runtime contract with containerd and runc,
// and starts a containerd of berth's own where the host has none. It is the only
// package that knows containerd.
package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/status"
	"tags.cncf.io/container-device-interface/pkg/cdi"

	"berth/runtime"
)

// Config says which containerd to use and how containers look. Address, Helper
// and Log are needed; the rest has defaults.
type Config struct {
	Address      string // of containerd's socket
	Namespace    string // containerd namespace; empty: "berth"
	Helper       string // absolute path of berth-helper on this host
	CDIDir       string // private directory of CDI specs; empty: /run/berth/cdi
	ExecDir      string // private directory of the pipes of Exec; empty: /run/berth/exec
	CgroupParent string // of containers to come; empty: /berth
	MaxImport    int64  // bytes that one import may take, unpacked, and of a pull the layers and what they unpack to, each; 0: 64 GiB
	Registries   []Registry
	Allowed      []string // registries that images may come from, as in references; empty: all
	Log          *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Namespace = cmp.Or(c.Namespace, "berth")
	c.CDIDir = cmp.Or(c.CDIDir, "/run/berth/cdi")
	c.ExecDir = cmp.Or(c.ExecDir, "/run/berth/exec")
	c.CgroupParent = cmp.Or(c.CgroupParent, "/berth")
	c.MaxImport = cmp.Or(c.MaxImport, defaultMaxImport)
	return c
}

// Runtime implements runtime.Runtime. It keeps no state of containers of its
// own: containerd and the kernel have it all. What it remembers is for when
// containerd doesn't answer.
type Runtime struct {
	cfg     Config
	client  *client.Client
	devices *cdi.Cache
	cgroups cgroupFS
	rlimits rlimits

	// images is held for reading while a container is made from an image, and
	// for writing while one is removed: a removed image has no container.
	images sync.RWMutex

	importing  chan struct{} // holds one import, or the unpacking of a pull
	registries *registries
	pulls      turns
	statfs     func(path string, stat *unix.Statfs_t) error

	mu          sync.Mutex
	snapshotter string // chosen at first use
	details     map[digest.Digest]*imageDetails
	cgroupPaths map[string]string // of the containers seen, by id

	// What goes on after a call has returned: until Close at the latest.
	closing    context.Context
	stop       context.CancelFunc
	background sync.WaitGroup
}

var _ runtime.Runtime = (*Runtime)(nil)

// connectTimeout bounds one attempt to connect, and the pause between attempts
// while containerd is away.
const connectTimeout = time.Second

// connect makes a client that connects at its first call. The client's own dialer
// waits for a socket that isn't there, and can't be stopped; this one doesn't.
func connect(address string, options ...client.Opt) (*client.Client, error) {
	retry := backoff.DefaultConfig
	retry.BaseDelay, retry.MaxDelay = 20*time.Millisecond, connectTimeout
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", address)
	}
	return client.New(address, append(options, client.WithExtraDialOpts([]grpc.DialOption{
		grpc.WithContextDialer(dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: retry, MinConnectTimeout: connectTimeout}),
	}))...)
}

// New prepares a Runtime. It doesn't need containerd to be up: calls give
// runtime.ErrUnavailable until it is. What a killed process has left in ExecDir
// is settled meanwhile.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	cfg = cfg.withDefaults()
	if !filepath.IsAbs(cfg.Helper) {
		return nil, fmt.Errorf("the path of berth-helper must be absolute, it is %q", cfg.Helper)
	}
	if _, err := os.Stat(cfg.Helper); err != nil {
		return nil, fmt.Errorf("berth-helper is needed beside every container: %w", err)
	}
	if err := os.MkdirAll(cfg.CDIDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the directory of device specs: %w", err)
	}
	devices, err := cdi.NewCache(cdi.WithSpecDirs(cfg.CDIDir), cdi.WithAutoRefresh(false))
	if err != nil {
		return nil, fmt.Errorf("read the device specs in %s: %w", cfg.CDIDir, err)
	}
	limits, err := hostRlimits()
	if err != nil {
		return nil, fmt.Errorf("read this process's limits: %w", err)
	}
	registries, err := newRegistries(cfg.Registries, cfg.Allowed)
	if err != nil {
		return nil, err
	}
	// The client writes to stderr in a form of its own; all of it comes back as
	// errors too.
	if err := log.SetLevel("fatal"); err != nil {
		return nil, err
	}
	c, err := connect(cfg.Address, client.WithDefaultNamespace(cfg.Namespace))
	if err != nil {
		return nil, fmt.Errorf("containerd at %s: %w: %w", cfg.Address, runtime.ErrUnavailable, err)
	}
	abandoned, err := abandonedExecs(cfg.ExecDir)
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("prepare the directory of pipes %s: %w", cfg.ExecDir, err)
	}
	r := &Runtime{
		cfg:         cfg,
		client:      c,
		devices:     devices,
		cgroups:     hostCgroups(),
		rlimits:     limits,
		importing:   make(chan struct{}, 1),
		registries:  registries,
		statfs:      unix.Statfs,
		details:     map[digest.Digest]*imageDetails{},
		cgroupPaths: map[string]string{},
	}
	r.closing, r.stop = context.WithCancel(context.WithoutCancel(ctx))
	if len(abandoned) > 0 {
		r.background.Go(func() { r.sweep(r.closing, abandoned) })
	}
	return r, nil
}

// Info implements runtime.Runtime.
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	version, err := r.client.Version(ctx)
	if err != nil {
		return runtime.Info{}, r.failed(err, "ask for its version")
	}
	return runtime.Info{Name: "containerd", Version: version.Version, Address: r.cfg.Address}, nil
}

// Close implements runtime.Runtime.
func (r *Runtime) Close() error {
	r.registries.close()
	r.stop()
	r.background.Wait()
	return r.client.Close()
}

// snapshotterName is overlayfs, or native where this kernel can't do that.
func (r *Runtime) snapshotterName(ctx context.Context) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.snapshotter != "" {
		return r.snapshotter, nil
	}
	response, err := r.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", r.failed(err, "list the snapshotters")
	}
	usable := map[string]bool{}
	for _, plugin := range response.Plugins {
		usable[plugin.ID] = plugin.InitErr == nil
	}
	for _, name := range []string{"overlayfs", "native"} {
		if usable[name] {
			r.snapshotter = name
			return name, nil
		}
	}
	return "", fmt.Errorf("containerd at %s has neither the overlayfs nor the native snapshotter: %w", r.cfg.Address, runtime.ErrUnavailable)
}

// failed wraps an error of containerd in the contract's class, if it has one.
// Cancellation keeps its own.
func (r *Runtime) failed(err error, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	err = native(err)
	for _, class := range []struct {
		is    func(error) bool
		error error
	}{
		{errdefs.IsNotFound, runtime.ErrNotFound},
		{errdefs.IsAlreadyExists, runtime.ErrExists},
		{errdefs.IsInvalidArgument, runtime.ErrInvalid},
	} {
		if class.is(err) {
			return fmt.Errorf("%s: %w: %w", what, class.error, err)
		}
	}
	if diskFull(err) {
		return fmt.Errorf("%s: %w: %w", what, runtime.ErrNoSpace, err)
	}
	if unreachable(err) {
		return fmt.Errorf("%s: containerd at %s doesn't answer; see that it runs: %w: %w", what, r.cfg.Address, runtime.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// unreachable tells a containerd that is down from one that says no. A deadline
// is the caller's own.
func unreachable(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return false
	}
	return errdefs.IsUnavailable(err) || strings.Contains(err.Error(), "error reading from server: EOF")
}

// native turns an error of the wire into containerd's own class of it. Some parts
// of the client have done so already, and doing it twice would lose the class.
func native(err error) error {
	if _, ok := status.FromError(err); ok {
		return errgrpc.ToNative(err)
	}
	return err
}
