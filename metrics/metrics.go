// Package metrics turns what berthd knows into Prometheus families. Gauges of
// the state are computed from the state at each scrape, so that they can't
// drift from it. Labels hold ids and closed sets of words, never user text.
//
// A daemon tells of its own host: node, devices, volumes, disks. What only the
// state as a whole says (runs, workspaces, which nodes are ready) the leader
// tells alone, so that sums over all daemons are right.
package metrics

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/gpu"
	"berth/state"
)

// Config says where the readings come from. The functions are called at each
// scrape, from any goroutine, and must not block; GPU.Readings, Disks and
// Guard are called by Run only.
type Config struct {
	Version string
	Node    string // id of this host's node
	View    func() state.View
	// Ready is closed once View holds all that was committed before this daemon
	// started; what is read back from the log until then isn't counted. nil: it does.
	Ready <-chan struct{}
	Raft  func() Raft
	Agent func() Agent
	GPU   gpu.Reader
	Disks func(context.Context) ([]Disk, error) // nil: none
	Guard func(context.Context) (Guard, error)  // nil: none; its error means that it doesn't answer
	// History may be nil: nothing is told of it.
	History func() History
	Every   time.Duration // between two readings; 0: 10 s
	DCGM    bool          // readings also under the names of dcgm-exporter
	Host    string        // name of this host, for DCGM only
}

// Raft is this server's view of the log.
type Raft struct {
	Leader        bool // this server leads
	HasLeader     bool
	Term          uint64
	TermsLed      uint64 // that this server has led since it started
	CommitIndex   uint64
	AppliedIndex  uint64
	SnapshotIndex uint64
	SinceLeader   time.Duration // without word of a leader; 0 on the leader
}

// Agent is what this node's agent has done since it started.
type Agent struct {
	Starts, Adoptions, Ends, Kills, Reaped uint64 // of containers
	GoAheads                               uint64 // starts that the leader was asked about
	Reports, ReportFailures                uint64 // batches recorded, batches sent again
	Runs                                   int    // looked after now
	Orphans                                int    // containers in quarantine now
}

// Disk is one that berth fills.
type Disk struct {
	Name       string // what for: "data" or "images"
	Size, Free int64  // bytes
}

const (
	readEvery    = 10 * time.Second
	readPatience = 5 * time.Second
	// staleAfter so many readings have failed, the last one isn't shown any more.
	staleAfter = 3
	// followEvery is how soon events are counted. The ring of events must not go
	// round in that time.
	followEvery = time.Second
)

// Limits of one scrape.
const (
	scrapesAtOnce = 8
	scrapeTimeout = 10 * time.Second
)

// Metrics collects. Make it with New; all methods are safe for concurrent use.
type Metrics struct {
	Config
	handler  http.Handler
	readings latest[[]gpu.Reading]
	disks    latest[[]Disk]
	guard    latest[guardAnswer]
	runs     *runCounters
	api      *apiCounters
	faults   *faultCounters
}

// New makes the families. Readings of devices and disks come once Run runs.
func New(c Config) *Metrics {
	if c.Every == 0 {
		c.Every = readEvery
	}
	m := &Metrics{Config: c, runs: newRunCounters(), api: newAPICounters(), faults: newFaultCounters()}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "berth_build_info", Help: "Version of the daemon; always 1.",
	}, []string{"version"})
	build.WithLabelValues(c.Version).Set(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, raftCollector{m}, agentCollector{m}, driverCollector{m}, nodeCollector{m}, deviceCollector{m},
		clusterCollector{m}, moneyCollector{m}, guardCollector{m}, runCollector{m}, m.api, m.faults,
	)
	if c.DCGM {
		registry.MustRegister(dcgmCollector{m})
	}
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		MaxRequestsInFlight: scrapesAtOnce, Timeout: scrapeTimeout,
	})
	return m
}

// Handler serves /metrics.
func (m *Metrics) Handler() http.Handler { return m.handler }

// Run reads devices and disks now and then, and counts what happens to runs,
// until ctx ends. A scrape never waits for a driver or a disk.
func (m *Metrics) Run(ctx context.Context) error {
	var loops sync.WaitGroup
	loops.Go(func() { m.readings.keep(ctx, m.Every, m.GPU.Readings) })
	if m.Disks != nil {
		loops.Go(func() { m.disks.keep(ctx, m.Every, m.Disks) })
	}
	if m.Guard != nil {
		loops.Go(func() { m.guard.keep(ctx, m.Every, m.askGuard) })
	}
	loops.Go(func() {
		if m.Ready != nil {
			select {
			case <-m.Ready: // what happens from here on is counted
			case <-ctx.Done():
			}
		}
		every(ctx, followEvery, func() { m.runs.follow(m) })
	})
	loops.Wait()
	return nil
}

// leads reports whether this server tells what only the leader tells.
func (m *Metrics) leads() bool { return m.Raft().Leader }

// latest is what a source that may be slow has said last.
type latest[T any] struct {
	mu    sync.Mutex
	value T
	at    time.Time
}

// keep reads until ctx ends, but not what someone else has just read. Half a
// pause, for its own reading before ended a moment after its tick.
func (l *latest[T]) keep(ctx context.Context, pause time.Duration, read func(context.Context) (T, error)) {
	every(ctx, pause, func() {
		if l.age() < pause/2 {
			return
		}
		asked, cancel := context.WithTimeout(ctx, readPatience)
		defer cancel()
		value, err := read(asked)
		if err != nil {
			return // the source's own status says so; what it said before gets stale
		}
		l.set(value)
	})
}

func (l *latest[T]) set(value T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.value, l.at = value, time.Now()
}

func (l *latest[T]) age() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.at) // very long when there is no value yet
}

// get gives nothing once the value is older than age.
func (l *latest[T]) get(age time.Duration) (value T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() || time.Since(l.at) > age {
		return value
	}
	return l.value
}

// every does something now and then until ctx ends.
func every(ctx context.Context, pause time.Duration, do func()) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for ctx.Err() == nil {
		do()
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}
