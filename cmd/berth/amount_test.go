package main

import (
	"testing"

	"pgregory.net/rapid"

	"berth/workspace"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"512": 512, "512MiB": 512, "512 mib": 512, "512m": 512, "1GB": 1024, "1GiB": 1024, "16g": 16384,
		"1.5GiB": 1536, "0.1GiB": 103, "1TiB": 1 << 20, "2TB": 2 << 20, "0": 0, ".5GiB": 512,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1GiB", "1e3", "1.2.3GiB", "1KiB", "1 000", "0x10", "Inf", "NaN", "99999999TiB", "1GiBs"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestSizesComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mib := rapid.Int64Range(0, workspace.MaxStorageMiB).Draw(t, "mib")
		if got, err := parseSize(formatSize(mib)); err != nil || got != mib {
			t.Fatalf("%d MiB is written %s and read as %d, %v", mib, formatSize(mib), got, err)
		}
	})
}

func TestParseCores(t *testing.T) {
	for text, want := range map[string]int64{"1": 1000, "1.5": 1500, "0.25": 250, "2.125": 2125, "0": 0, "3.": 3000} {
		if got, err := parseCores(text); err != nil || got != want {
			t.Errorf("parseCores(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", ".", "-1", "1.0005", "1.5.1", "1e3", "500m", "1.-5", "1.+5", "99999999999"} {
		if got, err := parseCores(text); err == nil {
			t.Errorf("parseCores(%q) = %d, want an error", text, got)
		}
	}
}

func TestCoresComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		milli := rapid.Int64Range(0, workspace.MaxCPUMilli).Draw(t, "milli")
		if got, err := parseCores(formatCores(milli)); err != nil || got != milli {
			t.Fatalf("%d thousandths are written %s and read as %d, %v", milli, formatCores(milli), got, err)
		}
	})
}

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1KiB", 1536: "1.5KiB", 3 << 20: "3MiB", 5 << 40: "5TiB"} {
		if got := formatBytes(n); got != want {
			t.Errorf("formatBytes(%d) = %s, want %s", n, got, want)
		}
	}
}
