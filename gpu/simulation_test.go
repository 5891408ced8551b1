package gpu

import (
	"strings"
	"testing"
)

func TestParseSimulation(t *testing.T) {
	for input, want := range map[string]string{
		"A100-SXM4-80GB:8":            "A100-SXM4-80GB:8",
		"a100-sxm4-80gb:8":            "A100-SXM4-80GB:8",
		" NVIDIA H100 80GB HBM3 : 1 ": "H100-80GB-HBM3:1",
		"T4:64":                       "T4:64",
	} {
		got, err := ParseSimulation(input)
		if err != nil {
			t.Errorf("%q: %v", input, err)
			continue
		}
		if got.String() != want {
			t.Errorf("%q: read as %q, want %q", input, got, want)
		}
	}
}

func TestParseSimulationSaysWhatIsWrong(t *testing.T) {
	for input, want := range map[string]string{
		"":                   "want MODEL:COUNT",
		"A100-SXM4-80GB":     "want MODEL:COUNT",
		":8":                 "want MODEL:COUNT",
		"A101:8":             `no model "A101"; known are A100-SXM4-80GB, `,
		"A100:8":             "known are ",
		"T4:0":               "from 1 to 64",
		"T4:65":              "from 1 to 64",
		"T4:-1":              "from 1 to 64",
		"T4:":                "from 1 to 64",
		"T4:8:2":             `not "8:2"`,
		"T4:2,L4:2":          `not "2,L4:2"`,
		"T4:999999999999999": "from 1 to 64",
	} {
		got, err := ParseSimulation(input)
		if err == nil {
			t.Errorf("%q: accepted as %q", input, got)
			continue
		}
		if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), `"`+input+`"`) {
			t.Errorf("%q: error %q; want it to name the value and say %q", input, err, want)
		}
	}
}

// What people are told to write must be readable.
func TestEverySimulatedTypeCanBeParsed(t *testing.T) {
	for _, name := range SimulatedTypes() {
		got, err := ParseSimulation(name + ":2")
		if err != nil || got.String() != name+":2" {
			t.Errorf("%s: read as %q, %v", name, got, err)
		}
		if got.Model.MemoryMiB < 8192 {
			t.Errorf("%s: %d MiB of memory", name, got.Model.MemoryMiB)
		}
	}
	if none := (Simulation{}).String(); none != "" {
		t.Errorf("no simulation prints as %q", none)
	}
}
