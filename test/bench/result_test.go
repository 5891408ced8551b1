package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Programs read these rows.
func TestRows(t *testing.T) {
	rows := []result{
		newResult("a", 5.00049, "ms").atMost(5),
		newResult("b", 5.1, "ms").atMost(5),
		newResult("c", 19_999.4, "/s").atLeast(20_000),
		newResult("d", 115, "ms").beside(100).ratioAtMost(1.15),
		newResult("e", 69, "/s").beside(100).ratioAtLeast(0.7),
		newResult("f", 1, "ms"),
	}
	got, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"name":"a","value":5,"unit":"ms","baseline":null,"ratio":null,"goal":"≤ 5","met":true},` +
		`{"name":"b","value":5.1,"unit":"ms","baseline":null,"ratio":null,"goal":"≤ 5","met":false},` +
		`{"name":"c","value":20000,"unit":"/s","baseline":null,"ratio":null,"goal":"≥ 20000","met":true},` +
		`{"name":"d","value":115,"unit":"ms","baseline":100,"ratio":1.15,"goal":"ratio ≤ 1.15","met":true},` +
		`{"name":"e","value":69,"unit":"/s","baseline":100,"ratio":0.69,"goal":"ratio ≥ 0.7","met":false},` +
		`{"name":"f","value":1,"unit":"ms","baseline":null,"ratio":null,"goal":"","met":null}]`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestQuantile(t *testing.T) {
	times := []time.Duration{4, 1, 3, 2, 5}
	for i := range times {
		times[i] *= time.Millisecond
	}
	if p50, p100 := median(times), quantile(times, 1); p50 != 3 || p100 != 5 {
		t.Errorf("median %v, largest %v", p50, p100)
	}
}
