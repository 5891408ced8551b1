package metrics

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"berth/state"
	"berth/workspace"
)

// runCounters counts what happens to runs, by the events of the state. Each
// server follows them; the leader counts, so that sums over all servers are
// right.
type runCounters struct {
	starts, ends         *prometheus.CounterVec
	restarts             prometheus.Counter
	waited, pulled, took prometheus.Histogram
	leases               leaseCounters

	mu    sync.Mutex
	after string // id of the last event seen; empty: none yet
}

// Bounds of a run's start: from a container that is there to a large image.
var startBuckets = []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800}

// Bounds of a wait for a place.
var waitBuckets = []float64{.01, .1, 1, 10, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 24 * 3600}

func newRunCounters() *runCounters {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "berth_run_" + name, Help: help, Buckets: buckets})
	}
	c := &runCounters{
		starts: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_run_starts_total",
			Help: "Runs that came to run; counted by the leader."}, []string{"kind"}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_run_ends_total",
			Help: "Runs that ended, by phase and reason; counted by the leader."}, []string{"phase", "reason"}),
		restarts: prometheus.NewCounter(prometheus.CounterOpts{Name: "berth_run_restarts_total",
			Help: "Runs made by restart policy; counted by the leader."}),
		waited: histogram("pending_seconds", "From being asked for to having a place; counted by the leader.", waitBuckets),
		pulled: histogram("pull_seconds", "Of pulling the image, of runs that had to; counted by the leader.", startBuckets),
		took:   histogram("start_seconds", "From having a place to running; counted by the leader.", startBuckets),
		leases: newLeaseCounters(),
	}
	for _, k := range kinds {
		c.starts.WithLabelValues(string(k))
	}
	return c
}

func (c *runCounters) all() []prometheus.Collector {
	return append(c.leases.all(), c.starts, c.ends, c.restarts, c.waited, c.pulled, c.took)
}

// runCollector tells the counts.
type runCollector struct{ *Metrics }

// Describe sends the families.
func (c runCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, part := range c.runs.all() {
		part.Describe(ch)
	}
}

// Collect counts what has happened up to now, and sends it.
func (c runCollector) Collect(ch chan<- prometheus.Metric) {
	c.runs.follow(c.Metrics)
	for _, part := range c.runs.all() {
		part.Collect(ch)
	}
}

// follow takes up the events since the last time.
func (c *runCounters) follow(m *Metrics) {
	select {
	case <-m.Ready:
	default:
		if m.Ready != nil {
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	view, leads := m.View(), m.leads()
	if c.after == "" || indexOf(c.after) > view.Index() { // the latter: the state was restored
		c.after = fmt.Sprintf("%d.%d", view.Index(), math.MaxUint32)
		return
	}
	events, err := view.Events(c.after)
	if err != nil {
		return // never: the id is the state's own
	}
	for e := range events {
		c.after = e.ID
		if leads {
			c.count(view, e)
		}
	}
}

func indexOf(event string) uint64 {
	head, _, _ := strings.Cut(event, ".")
	index, _ := strconv.ParseUint(head, 10, 64) // the state's own ids begin with one
	return index
}

func (c *runCounters) count(view state.View, e *workspace.Event) {
	word, ok := strings.CutPrefix(e.Type, "run.")
	if !ok {
		return
	}
	run := view.Run(e.Run)
	if run == nil {
		return
	}
	switch phase := workspace.Phase(word); {
	case word == "ends_soon":
		c.leases.warned(e)
	case phase == workspace.PhasePending && run.Restarts > 0:
		c.restarts.Inc()
	case phase == workspace.PhaseAssigned:
		observe(c.waited, run.Times.Created, run.Times.Assigned)
	case phase == workspace.PhaseRunning:
		c.starts.WithLabelValues(string(run.Kind)).Inc()
		observe(c.took, run.Times.Assigned, run.Times.Running)
		observe(c.pulled, run.Times.Pulling, run.Times.Starting)
	case phase.Terminal():
		c.ends.WithLabelValues(word, code(e.Reason)).Inc()
		c.leases.ended(run, phase, e.Reason)
	}
}

// observe leaves out what has no beginning or no end.
func observe(h prometheus.Histogram, from, to time.Time) {
	if !from.IsZero() && !to.Before(from) {
		h.Observe(to.Sub(from).Seconds())
	}
}
