// Package agent makes this host match its assignments: it starts, watches,
// stops and adopts the containers of runs, keeps devices from being given out
// twice on this host, and reports what it has seen. It is level-triggered: for
// each run, step (pure) looks at what is wanted and what is there and names one
// action; everything else carries actions out and reports.
package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"berth/gpu"
	"berth/runtime"
	"berth/workspace"
)

// Cluster is all that an agent needs of the servers. On a server it is served
// by the local state, on a worker by the node protocol. Calls may block until
// their context ends; an error means "not now", and the agent asks again.
type Cluster interface {
	// Assignments blocks until there is something newer than after and gives
	// the changes since, or a snapshot. The zero epoch gives a snapshot at once.
	Assignments(ctx context.Context, after gpu.Epoch) (workspace.AssignmentView, error)
	// Report hands over a batch; nil means that it is recorded. Parts that the
	// cluster refuses (a step back, another epoch, a holder long gone) are
	// passed over there and are no error: a failed batch is sent again whole.
	Report(ctx context.Context, report workspace.Report) error
	// GoAhead asks the leader, its leadership verified, about one run. sent is
	// the moment the question was sent.
	GoAhead(ctx context.Context, run string, sent workspace.Stamp) (workspace.GoAheadAnswer, error)
	// Beat says that the node is there and how long its runs have lived. It isn't
	// kept: one that fails isn't sent again, the next is newer.
	Beat(ctx context.Context, beat workspace.Beat) error
}

// Times an agent works by.
const (
	defaultReconcile = 10 * time.Second
	hardwareEvery    = 30 * time.Second // between looks at devices and images
	killPatience     = 10 * time.Second // a cgroup that isn't empty by then is stuck
	actionTimeout    = 30 * time.Second // of one call to the runtime, but for Import, Wait and those on the way to KILL
	lookTimeout      = 5 * time.Second  // of a look at a container, or of TERM: KILL isn't much later for it
	startPatience    = 5 * time.Minute  // with a registry, disk or network that may come back
	prepareTimeout   = 10 * time.Minute // of a volume that has to be made, checked or grown first
	firstBackOff     = 200 * time.Millisecond
	longestBackOff   = 5 * time.Second
	createAttempts   = 3 // before an error of unknown kind fails the run
)

// Agent drives the runs of one host. Run it once. Its methods are safe for
// concurrent use.
type Agent struct {
	cfg       Config
	ledger    *ledger
	reports   *reporter
	uses      *uses
	health    *health
	collector imageCollector // keepHouse's own
	stats     counters
	group     *errgroup.Group // every goroutine of Run

	lookNow  chan struct{} // wakes the survey
	houseNow chan struct{} // wakes keepHouse
	beatNow  chan struct{} // wakes the beat
	equipped atomic.Bool   // the runtime was told of this host's devices
	imaging  sync.Mutex    // one reader of the image list at a time
	users    sync.Map      // of images, by digest

	mu          sync.Mutex
	viewed      bool      // a view was accepted
	at          gpu.Epoch // of the latest accepted view
	cluster     string    // its cluster
	assignments map[string]*workspace.Assignment
	listed      bool                     // the runtime's containers were listed once
	containers  map[string]runtime.State // as last listed
	workers     map[string]*worker
	orphans     map[string]workspace.Orphan
	images      []runtime.Image
	pulls       map[string]workspace.PullProgress // of runs whose image is being fetched
	purges      []string                          // volumes to delete, as the latest view orders
	expiries    []workspace.ResultClaim           // results to delete, likewise
}

// New makes an Agent. It fails when a field is missing, or when what an earlier
// agent kept in Dir can't be read.
func New(cfg Config) (*Agent, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	cfg.fill()
	if err := os.MkdirAll(filepath.Join(cfg.Dir, "logs"), 0o700); err != nil {
		return nil, fmt.Errorf("agent: make the log directory: %w", err)
	}
	ledger, err := openLedger(filepath.Join(cfg.Dir, "agent.json"))
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg:         cfg,
		ledger:      ledger,
		uses:        newUses(),
		health:      &health{ledger: ledger},
		collector:   imageCollector{Store: cfg.Runtime, Keep: cfg.Images.Keep, High: cfg.Images.High, Low: cfg.Images.Low},
		lookNow:     make(chan struct{}, 1),
		houseNow:    make(chan struct{}, 1),
		beatNow:     make(chan struct{}, 1),
		assignments: map[string]*workspace.Assignment{},
		containers:  map[string]runtime.State{},
		workers:     map[string]*worker{},
		orphans:     map[string]workspace.Orphan{},
		pulls:       map[string]workspace.PullProgress{},
	}
	a.reports = newReporter(a)
	return a, nil
}

// Run works until ctx ends and then returns nil; containers go on. It returns
// an error only when the agent can't keep on disk what it must: going on could
// give a device out twice.
func (a *Agent) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	a.group = group
	group.Go(func() error { return a.reports.run(ctx) })
	group.Go(func() error { return a.survey(ctx) })
	group.Go(func() error { return a.follow(ctx) })
	group.Go(func() error { return a.keepHouse(ctx) })
	group.Go(func() error { return a.hearDevices(ctx) })
	group.Go(func() error { return a.beat(ctx) })
	return group.Wait()
}

// LogPath is the file that holds the output of a run's container on this host.
func (a *Agent) LogPath(run string) string {
	return filepath.Join(a.cfg.Dir, "logs", filepath.Base(run)+".log")
}

// stamp is now on the boot clock.
func (a *Agent) stamp() workspace.Stamp {
	return workspace.Stamp{BootID: a.cfg.BootID, BoottimeMS: a.cfg.Boottime().Milliseconds()}
}

// backOff is how long to wait after the n-th failure in a row (from 1).
func backOff(n int) time.Duration {
	d := firstBackOff
	for ; n > 1 && d < longestBackOff; n-- {
		d *= 2
	}
	return min(d, longestBackOff)
}

// sleep waits for d, for wake or for the end of ctx.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-wake:
	case <-timer.C:
	}
}

// nudge wakes whoever waits on a channel of capacity one.
func nudge(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
