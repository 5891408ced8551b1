package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
)

// result is one row. Ratio is Value to Baseline, what the same run measured of
// the counterpart; both are null where there is none. A row without a goal is there
// to compare with others; Met is null then.
type result struct {
	Name     string   `json:"name"`
	Value    float64  `json:"value"`
	Unit     string   `json:"unit"`
	Baseline *float64 `json:"baseline"`
	Ratio    *float64 `json:"ratio"`
	Goal     string   `json:"goal"` // such as "≤ 5" or "ratio ≥ 0.7"
	Met      *bool    `json:"met"`
}

func newResult(name string, value float64, unit string) result {
	return result{Name: name, Value: rounded(value), Unit: unit}
}

// beside puts the counterpart's value in.
func (r result) beside(baseline float64) result {
	base, ratio := rounded(baseline), rounded(r.Value/baseline)
	r.Baseline, r.Ratio = &base, &ratio
	return r
}

func (r result) with(goal string, met bool) result {
	r.Goal, r.Met = goal, &met
	return r
}

func (r result) atMost(bound float64) result {
	return r.with("≤ "+number(bound), r.Value <= bound)
}

func (r result) atLeast(bound float64) result {
	return r.with("≥ "+number(bound), r.Value >= bound)
}

func (r result) ratioAtMost(bound float64) result {
	return r.with("ratio ≤ "+number(bound), *r.Ratio <= bound)
}

func (r result) ratioAtLeast(bound float64) result {
	return r.with("ratio ≥ "+number(bound), *r.Ratio >= bound)
}

// rounded to four significant digits: more would be noise.
func rounded(v float64) float64 {
	if v == 0 {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

func number(v float64) string { return strconv.FormatFloat(rounded(v), 'f', -1, 64) }

func optional(v *float64) string {
	if v == nil {
		return "–"
	}
	return number(*v)
}

func printTable(w io.Writer, results []result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "WHAT\tVALUE\tUNIT\tBASELINE\tRATIO\tGOAL\tMET")
	for _, r := range results {
		goal, met := "–", "–"
		if r.Met != nil {
			goal, met = r.Goal, map[bool]string{true: "yes", false: "no"}[*r.Met]
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Name, number(r.Value), r.Unit, optional(r.Baseline), optional(r.Ratio), goal, met)
	}
	return table.Flush()
}

func writeJSON(path string, results []result) error {
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// quantile of times, in milliseconds: 0.5 is the median.
func quantile(times []time.Duration, q float64) float64 {
	slices.Sort(times)
	return times[int(q*float64(len(times)-1))].Seconds() * 1000
}

func median(times []time.Duration) float64 { return quantile(times, 0.5) }
