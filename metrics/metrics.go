// Package metrics turns what berthd knows into Prometheus families. Gauges of
// the state are computed from the state at each scrape, so that they can't
// drift from it. Labels hold ids and closed sets of words, never user text.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"berth/state"
)

// Config says where the readings come from. All are required; the functions
// are called at each scrape, from any goroutine.
type Config struct {
	Version string
	View    func() state.View
	Raft    func() Raft
	Agent   func() Agent
}

// Raft is this server's view of the log.
type Raft struct {
	Leader       bool // this server leads
	HasLeader    bool
	Term         uint64
	CommitIndex  uint64
	AppliedIndex uint64
}

// Agent is what this node's agent has done since it started.
type Agent struct {
	Starts, Adoptions, Ends, Kills, Reaped uint64 // of containers
	Reports, ReportFailures                uint64 // batches recorded, batches sent again
	Orphans                                int    // containers in quarantine now
}

// Handler serves /metrics from a registry of its own.
func Handler(c Config) http.Handler {
	registry := prometheus.NewRegistry()
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "berth_build_info", Help: "Version of the daemon; always 1.",
	}, []string{"version"})
	build.WithLabelValues(c.Version).Set(1)
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, stateCollector{c}, raftCollector{c}, agentCollector{c},
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// family is one metric with the description that Describe sends.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("berth_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) family {
	return family{prometheus.NewDesc("berth_"+name, help, labels, nil), prometheus.CounterValue}
}

func (f family) send(ch chan<- prometheus.Metric, value float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

func describe(ch chan<- *prometheus.Desc, families ...family) {
	for _, f := range families {
		ch <- f.desc
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
