package doctor

import (
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

var versionPattern = regexp.MustCompile(`\b(?:v)?(\d+\.\d+(?:\.\d+)?)(?:[-~](rc|beta|alpha)\.?(\d+))?`)

// parseVersion finds the first version in a text, such as "runc version
// 1.2.0-rc.3" or "1.6.20~ds1", and gives it as semver compares it; "" when there
// is none. What a distribution adds to a version isn't part of it.
func parseVersion(text string) string {
	m := versionPattern.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	v := "v" + m[1]
	if strings.Count(m[1], ".") == 1 {
		v += ".0"
	}
	if m[2] != "" {
		v += "-" + m[2] + "." + m[3]
	}
	if !semver.IsValid(v) { // such as a date, with its leading zeros
		return ""
	}
	return v
}

// hole is a known fault of a program that lets containers do what they mustn't.
type hole struct {
	cves  []string
	what  string
	since string   // the first version that has it; empty: all before the fix
	fixed []string // the first good version of each branch, rising
}

// open reports whether a version has the hole, as far as is known: a branch
// between others that had a fix may have had its own, and isn't judged.
func (h hole) open(version string) bool {
	if h.since != "" && semver.Compare(version, h.since) < 0 {
		return false
	}
	if i := slices.IndexFunc(h.fixed, func(f string) bool { return semver.MajorMinor(f) == semver.MajorMinor(version) }); i >= 0 {
		return semver.Compare(version, h.fixed[i]) < 0
	}
	return semver.Compare(version, h.fixed[0]) < 0
}

func openHoles(known []hole, version string) []hole {
	return slices.DeleteFunc(slices.Clone(known), func(h hole) bool { return !h.open(version) })
}

// The holes that are looked for. All are from the projects' own advisories and
// release notes; a program that isn't older than any fix here is not thereby
// without holes.
var (
	runcHoles = []hole{
		{cves: []string{"CVE-2024-21626"}, what: "a container can reach the host's files by a leaked descriptor", fixed: []string{"v1.1.12"}},
		{cves: []string{"CVE-2024-45310"}, what: "a container can create empty files on the host", fixed: []string{"v1.1.14", "v1.2.0-rc.3"}},
		{
			cves: []string{"CVE-2025-31133", "CVE-2025-52565", "CVE-2025-52881"}, what: "a container can break out by its mounts",
			fixed: []string{"v1.2.8", "v1.3.3", "v1.4.0-rc.3"},
		},
		{cves: []string{"CVE-2026-41579"}, fixed: []string{"v1.3.6", "v1.4.3"}},
	}
	containerdHoles = []hole{
		{cves: []string{"CVE-2024-40635"}, what: "an image's large user id becomes root", fixed: []string{"v1.6.38", "v1.7.27", "v2.0.4"}},
		{
			cves: []string{"CVE-2024-25621"}, what: "its directories are open to other users of the host",
			fixed: []string{"v1.7.29", "v2.0.7", "v2.1.5", "v2.2.0"},
		},
		{
			cves: []string{"CVE-2025-64329"}, what: "attaching over and over by CRI, which berth doesn't use, eats the host's memory",
			fixed: []string{"v1.7.29", "v2.0.7", "v2.1.5", "v2.2.0"},
		},
		{cves: []string{"CVE-2025-47290"}, what: "an image can change the host's files while it is pulled", since: "v2.1.0", fixed: []string{"v2.1.1"}},
		{cves: []string{"CVE-2026-46680"}, what: "an image's user that looks like a number can become root", fixed: []string{"v1.7.32", "v2.2.4", "v2.3.1"}},
		{cves: []string{"CVE-2026-53488"}, fixed: []string{"v1.7.33", "v2.0.10", "v2.1.9", "v2.2.5", "v2.3.2"}},
	}
	toolkitHoles = []hole{
		{cves: []string{"CVE-2024-0132"}, what: "an image can reach the host's files", fixed: []string{"v1.16.2"}},
		{cves: []string{"CVE-2025-23359"}, what: "an image can reach the host's files", fixed: []string{"v1.17.4"}},
		{cves: []string{"CVE-2025-23266"}, what: "an image can run its own code as root of the host", fixed: []string{"v1.17.8"}},
	}
)
