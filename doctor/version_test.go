package doctor

import (
	"testing"

	"golang.org/x/mod/semver"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1":                                          "v1.1.5",
		"runc version 1.2.0-rc.3":                                                                      "v1.2.0-rc.3",
		"runc version 1.0.0~rc93+ds1":                                                                  "v1.0.0-rc.93",
		"containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3":                  "v1.6.20",
		"containerd github.com/containerd/containerd/v2 v2.1.5 fcd43222d6b07379a4be9786bda52438f0dd16": "v2.1.5",
		"containerd containerd.io 1.7.27 05044ec0a9a75232cad458027ca83437aae3f4da":                     "v1.7.27",
		"5.4":                "v5.4.0",
		"5.10.0-9-amd64":     "v5.10.0",
		"6.18.44-fc-v595":    "v6.18.44",
		"of 2024.01.05":      "",
		"nothing to be seen": "",
		"":                   "",
	} {
		if got := parseVersion(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// The fix of each branch counts for that branch; an older branch has none.
func TestOpenHoles(t *testing.T) {
	cases := []struct {
		known   []hole
		version string
		want    string // the first CVE of each open hole
	}{
		{runcHoles, "v1.1.11", "CVE-2024-21626 CVE-2024-45310 CVE-2025-31133 CVE-2026-41579"},
		{runcHoles, "v1.1.12", "CVE-2024-45310 CVE-2025-31133 CVE-2026-41579"},
		{runcHoles, "v1.1.15", "CVE-2025-31133 CVE-2026-41579"},
		{runcHoles, "v1.2.0-rc.2", "CVE-2024-45310 CVE-2025-31133 CVE-2026-41579"},
		{runcHoles, "v1.2.7", "CVE-2025-31133 CVE-2026-41579"},
		{runcHoles, "v1.2.8", "CVE-2026-41579"},
		{runcHoles, "v1.3.3", "CVE-2026-41579"},
		{runcHoles, "v1.4.0-rc.2", "CVE-2025-31133 CVE-2026-41579"},
		{runcHoles, "v1.3.6", ""},
		{runcHoles, "v1.5.0", ""},
		{containerdHoles, "v1.6.20", "CVE-2024-40635 CVE-2024-25621 CVE-2025-64329 CVE-2026-46680 CVE-2026-53488"},
		{containerdHoles, "v1.6.38", "CVE-2024-25621 CVE-2025-64329 CVE-2026-46680 CVE-2026-53488"},
		{containerdHoles, "v1.7.33", ""},
		{containerdHoles, "v2.0.3", "CVE-2024-40635 CVE-2024-25621 CVE-2025-64329 CVE-2026-53488"},
		{containerdHoles, "v2.1.0", "CVE-2024-25621 CVE-2025-64329 CVE-2025-47290 CVE-2026-53488"},
		{containerdHoles, "v2.1.9", ""}, // whether the one of 2.2.4 is open there is unknown
		{containerdHoles, "v2.2.3", "CVE-2026-46680 CVE-2026-53488"},
		{containerdHoles, "v2.3.2", ""},
		{toolkitHoles, "v1.16.1", "CVE-2024-0132 CVE-2025-23359 CVE-2025-23266"},
		{toolkitHoles, "v1.17.7", "CVE-2025-23266"},
		{toolkitHoles, "v1.17.8", ""},
	}
	for _, c := range cases {
		got := ""
		for _, h := range openHoles(c.known, c.version) {
			if got != "" {
				got += " "
			}
			got += h.cves[0]
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.version, got, c.want)
		}
	}
}

// The table itself: versions that compare, one of each branch, rising.
func TestHoleTable(t *testing.T) {
	for _, known := range [][]hole{runcHoles, containerdHoles, toolkitHoles} {
		for _, h := range known {
			if len(h.cves) == 0 || len(h.fixed) == 0 || h.since != "" && !semver.IsValid(h.since) {
				t.Errorf("incomplete: %+v", h)
			}
			for i, v := range h.fixed {
				if !semver.IsValid(v) || i > 0 && (semver.Compare(h.fixed[i-1], v) >= 0 || semver.MajorMinor(h.fixed[i-1]) == semver.MajorMinor(v)) {
					t.Errorf("%v: fixed in %v", h.cves, h.fixed)
				}
			}
		}
	}
}

func TestRoutePrefix(t *testing.T) {
	for words, want := range map[[2]string]string{
		{"0000590A", "0000FFFF"}: "10.89.0.0/16",
		{"000200C0", "00FFFFFF"}: "192.0.2.0/24",
		{"0101A8C0", "FFFFFFFF"}: "192.168.1.1/32",
		{"00000000", "00000000"}: "0.0.0.0/0",
		{"Destination", "Mask"}:  "invalid Prefix",
		{"00", "00"}:             "invalid Prefix",
	} {
		if got, _ := routePrefix(words[0], words[1]); got.String() != want {
			t.Errorf("%v: %v, want %s", words, got, want)
		}
	}
}
