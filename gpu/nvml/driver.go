package nvml

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"berth/gpu"
)

// Config of a Driver. A duration of zero is its default.
type Config struct {
	// Command starts a program that runs ChildMain on its standard input and
	// output: this one again, by /proc/self/exe, so that an upgrade on disk
	// doesn't mix two versions.
	Command []string
	// Root is where /proc, /sys and the driver's files are found: "/".
	Root string
	// LibraryPath is the file of NVML; empty: libnvidia-ml.so.1 as the loader
	// finds it.
	LibraryPath string
	// Include, when not empty, are the UUIDs of the only devices that may be
	// used; Exclude those that may not. A device stands for its slices too.
	Include, Exclude []string

	CallTimeout      time.Duration // of a call, 5 s
	InventoryTimeout time.Duration // of an inventory, and of the library's start, 20 s
	WatchInterval    time.Duration // between two looks for lost devices, 1 s
	LostInterval     time.Duration // between two tries to find a lost device again, 30 s
	MinBackoff       time.Duration // before the first restart of a child, 1 s
	MaxBackoff       time.Duration // before any later one, 60 s

	Log *slog.Logger // nil: slog.Default
}

func (c Config) withDefaults() Config {
	c.Root = cmp.Or(c.Root, "/")
	c.CallTimeout = cmp.Or(c.CallTimeout, 5*time.Second)
	c.InventoryTimeout = cmp.Or(c.InventoryTimeout, 20*time.Second)
	c.WatchInterval = cmp.Or(c.WatchInterval, time.Second)
	c.LostInterval = cmp.Or(c.LostInterval, 30*time.Second)
	c.MinBackoff = cmp.Or(c.MinBackoff, time.Second)
	c.MaxBackoff = cmp.Or(c.MaxBackoff, time.Minute)
	c.Log = cmp.Or(c.Log, slog.Default())
	return c
}

// Driver is the Reader of the NVIDIA driver. The driver's library runs in a
// child process, because it hangs or ends its process on broken hardware: no
// call outlives its timeout, and a child that doesn't answer is killed and
// started anew. On a host without a loaded driver it has no devices and no child,
// and notices a driver that is loaded later. Safe for concurrent use.
type Driver struct {
	cfg Config
	// A lane is held by the one request that is under way in it: watching for
	// events waits in the child, so it has its own.
	asking, watching chan struct{}
	closed           chan struct{}
	calls            sync.WaitGroup

	mu      sync.Mutex
	child   *child // nil: none runs
	starts  uint64
	backoff time.Duration
	retry   time.Time // no child is started before
	status  gpu.ReaderStatus
	known   []gpu.Info       // of the latest inventory
	slices  map[string]slice // of the latest inventory, by UUID
	lost    map[string]bool  // UUIDs whose EventLost was given, EventBack not yet
	files   []Mount          // of the driver, of the latest inventory
}

// NewDriver makes a Driver. Its child is started by the first call.
func NewDriver(cfg Config) *Driver {
	return &Driver{
		cfg:    cfg.withDefaults(),
		asking: make(chan struct{}, 1), watching: make(chan struct{}, 1),
		closed: make(chan struct{}),
		lost:   map[string]bool{},
	}
}

// Inventory lists the devices as the driver does, slices after their parent. A
// lost device stays in it, unusable.
func (d *Driver) Inventory(ctx context.Context) (gpu.Inventory, error) {
	if !Detect(d.cfg.Root).Loaded {
		inventory := noDriver()
		selectDevices(&inventory, d.cfg.Include, d.cfg.Exclude)
		return inventory, ctx.Err()
	}
	d.mu.Lock()
	known := knownDevices{slices.Clone(d.known)}
	d.mu.Unlock()
	var reply inventoryReply
	if err := d.call(ctx, d.asking, methodInventory, d.cfg.InventoryTimeout, known, &reply); err != nil {
		return gpu.Inventory{}, err
	}
	inventory := reply.Inventory
	if inventory.Devices == nil {
		inventory.Devices = []gpu.Info{}
	}
	d.mu.Lock()
	d.known, d.slices, d.files = slices.Clone(inventory.Devices), reply.Slices, reply.Files
	d.mu.Unlock()
	selectDevices(&inventory, d.cfg.Include, d.cfg.Exclude)
	return inventory, nil
}

// Readings reads what every device measures, slices too.
func (d *Driver) Readings(ctx context.Context) ([]gpu.Reading, error) {
	return ask[gpu.Reading](ctx, d, methodReadings)
}

// Processes lists the processes that compute or draw on a device. A process on a
// slice is listed there, not at the slice's parent.
func (d *Driver) Processes(ctx context.Context) ([]gpu.Process, error) {
	return ask[gpu.Process](ctx, d, methodProcesses)
}

func ask[T any](ctx context.Context, d *Driver, method string) ([]T, error) {
	if !Detect(d.cfg.Root).Loaded {
		return nil, ctx.Err()
	}
	var reply []T
	err := d.call(ctx, d.asking, method, d.cfg.CallTimeout, nil, &reply)
	return reply, err
}

// Status says how reading goes. Unresponsive is that of the latest call.
func (d *Driver) Status() gpu.ReaderStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// closeGrace is how long Close waits for a killed child. One that stays, stuck
// in the driver, is left to the kernel.
const closeGrace = 2 * time.Second

// Close kills the child; calls that are under way fail.
func (d *Driver) Close() error {
	d.mu.Lock()
	select {
	case <-d.closed:
	default:
		close(d.closed)
	}
	c := d.child
	d.mu.Unlock()
	if c != nil {
		c.kill(errClosed)
	}
	d.calls.Wait()
	if c == nil {
		return nil
	}
	select {
	case <-c.gone:
	case <-time.After(closeGrace):
		d.cfg.Log.Warn("the process that asks the GPU driver can't be killed, it is left behind", "pid", c.pid())
	}
	return nil
}

var errClosed = errors.New("the reader of the GPU driver is closed")
