package metrics

import (
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
)

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

func cores(milli int64) float64 { return float64(milli) / 1000 }

func bytes(mib int64) float64 { return float64(mib) * (1 << 20) }

var codeForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,47}$`)

// code lets the codes of reasons through. Anything else in their place might be
// someone's words.
func code(reason string) string {
	switch {
	case reason == "":
		return "none"
	case codeForm.MatchString(reason):
		return reason
	default:
		return "other"
	}
}
