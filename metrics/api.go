package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// apiCounters counts the requests to the API.
type apiCounters struct {
	requests          *prometheus.CounterVec
	took              *prometheus.HistogramVec
	inFlight, streams prometheus.Gauge
}

// Bounds of requests: reads take about a millisecond, writes a few, those that
// wait for a leader or an image much longer.
var requestBuckets = []float64{.001, .005, .02, .1, .5, 2, 10, 60}

func newAPICounters() *apiCounters {
	return &apiCounters{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "berth_api_requests_total",
			Help: "Requests answered, by route, method and class of the status."}, []string{"route", "method", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "berth_api_request_duration_seconds",
			Help: "Time to answer, without streams and long polls.", Buckets: requestBuckets}, []string{"method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{Name: "berth_api_requests_in_flight",
			Help: "Requests being answered, without streams and long polls."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "berth_api_open_streams",
			Help: "Streams and long polls that are open."}),
	}
}

func (c *apiCounters) all() []prometheus.Collector {
	return []prometheus.Collector{c.requests, c.took, c.inFlight, c.streams}
}

// Describe sends the families.
func (c *apiCounters) Describe(ch chan<- *prometheus.Desc) {
	for _, part := range c.all() {
		part.Describe(ch)
	}
}

// Collect sends the counts.
func (c *apiCounters) Collect(ch chan<- prometheus.Metric) {
	for _, part := range c.all() {
		part.Collect(ch)
	}
}

var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions}

// Observe notes that a request begins; call what it gives with the status once
// it is answered. route is the pattern that matched, empty for none; lasting are
// streams and long polls, whose length their callers decide.
func (m *Metrics) Observe(route, method string, lasting bool) func(status int) {
	began := time.Now()
	if route == "" {
		route = "unknown"
	}
	if !slices.Contains(methods, method) {
		method = "other"
	}
	open := m.api.inFlight
	if lasting {
		open = m.api.streams
	}
	open.Inc()
	return func(status int) {
		open.Dec()
		if status == 0 {
			status = http.StatusOK // what net/http sends for a handler that says nothing
		}
		m.api.requests.WithLabelValues(route, method, strconv.Itoa(status/100)+"xx").Inc()
		if !lasting {
			m.api.took.WithLabelValues(method).Observe(time.Since(began).Seconds())
		}
	}
}
