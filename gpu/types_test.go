package gpu

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTypeName(t *testing.T) {
	for model, want := range map[string]string{
		"NVIDIA A100-SXM4-80GB":   "A100-SXM4-80GB",
		"NVIDIA H100 80GB HBM3":   "H100-80GB-HBM3",
		"NVIDIA H100 PCIe":        "H100-PCIE",
		"NVIDIA GeForce RTX 4090": "GEFORCE-RTX-4090",
		"Tesla T4":                "T4",
		"NVIDIA Tesla V100":       "V100",
		"nvidia l40s":             "L40S",
		"  L4  ":                  "L4",
		"Quadro  RTX\t8000":       "QUADRO-RTX-8000",
		"NVIDIA":                  "NVIDIA",
		"":                        "",
	} {
		if got := TypeName(model); got != want {
			t.Errorf("TypeName(%q) = %q, want %q", model, got, want)
		}
	}
}

func TestMatchType(t *testing.T) {
	for _, test := range []struct {
		request, device string
		want            bool
	}{
		{"a100", "A100-SXM4-80GB", true},
		{"A100-SXM4", "A100-SXM4-80GB", true},
		{"A100-SXM4-80GB", "A100-SXM4-80GB", true},
		{"NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB", true},
		{"h100 80gb", "H100-80GB-HBM3", true},
		{"a10", "A100-SXM4-80GB", false},
		{"A100-SXM", "A100-SXM4-80GB", false},
		{"SXM4", "A100-SXM4-80GB", false},
		{"A100-SXM4-80GB-X", "A100-SXM4-80GB", false},
		{"L4", "L40S", false},
		{"h100|a100", "A100-SXM4-80GB", true},
		{" h100 | a100 ", "A100-SXM4-80GB", true},
		{"h100||t4", "A100-SXM4-80GB", false},
		{"|", "T4", false},
		{"", "T4", true},
		{"  ", "T4", true},
	} {
		if got := MatchType(test.request, test.device); got != test.want {
			t.Errorf("MatchType(%q, %q) = %v, want %v", test.request, test.device, got, test.want)
		}
	}
}

// tokens draws a canonical type's tokens.
func tokens(t *rapid.T) []string {
	return rapid.SliceOfN(rapid.StringMatching(`[A-Z0-9]{1,6}`), 1, 4).Draw(t, "tokens")
}

func TestTypeNameIsStable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.SampledFrom([]string{"", "NVIDIA ", "Tesla ", "NVIDIA Tesla "}).Draw(t, "prefix")
		words := tokens(t)
		name := TypeName(prefix + strings.Join(words, " "))
		if again := TypeName(name); again != name {
			t.Fatalf("TypeName(%q) = %q: a canonical name changes", name, again)
		}
		if want := TypeName(strings.ToLower(prefix) + strings.ToLower(strings.Join(words, "-"))); name != want {
			t.Fatalf("%q in lower case with dashes is %q", name, want)
		}
	})
}

// A request matches exactly when some item equals the first tokens of the type.
func TestMatchTypeByWholeTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		device := tokens(t)
		var items []string
		want := false
		for range rapid.IntRange(1, 3).Draw(t, "items") {
			item := tokens(t)
			if rapid.Bool().Draw(t, "take a prefix") {
				item = device[:rapid.IntRange(1, len(device)).Draw(t, "length")]
			}
			text := strings.Join(item, "-")
			if cut := rapid.IntRange(0, len(text)-1).Draw(t, "cut"); rapid.Bool().Draw(t, "cut short") {
				text = text[:len(text)-cut]
			}
			want = want || isPrefix(strings.Split(text, "-"), device)
			items = append(items, strings.ToLower(text))
		}
		request := strings.Join(items, "|")
		if got := MatchType(request, strings.Join(device, "-")); got != want {
			t.Fatalf("MatchType(%q, %q) = %v, want %v", request, strings.Join(device, "-"), got, want)
		}
	})
}

func isPrefix(item, device []string) bool {
	if len(item) > len(device) {
		return false
	}
	for i := range item {
		if item[i] != device[i] {
			return false
		}
	}
	return true
}
