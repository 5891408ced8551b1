package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/semver"
)

const (
	hostContainerd    = "/run/containerd/containerd.sock"
	leastContainerd   = "v1.6.0" // the oldest whose API berth is tested with
	installContainerd = "apt install containerd runc"
)

// containerdChoice is what berthd wrote down: which containerd its data
// directory lives with.
type containerdChoice struct {
	Address string `json:"address"`
	Own     bool   `json:"own"`
}

func (e *exam) choice() (c containerdChoice) {
	_ = json.Unmarshal([]byte(e.read(filepath.Join(e.DataDir, "containerd.json"))), &c) // berthd tells of a damaged one
	return c
}

func (e *exam) containerd(ctx context.Context) {
	program := e.find("containerd")
	if !e.needsRoot("containerd") {
		e.containerdAnswers(ctx, program)
	}
	if program == "" {
		return
	}
	version := e.version(ctx, "containerd-version", program, "--version")
	switch {
	case version == "":
	case semver.Compare(version, leastContainerd) < 0:
		e.fail("containerd-version", "install containerd 1.6 or newer", "%s is version %s, berth needs %s", program, version[1:], leastContainerd[1:])
	default:
		e.ok("containerd-version", "%s is version %s", program, version[1:])
		e.holes(ctx, "containerd-holes", program, version, containerdHoles)
	}
}

func (e *exam) containerdAnswers(ctx context.Context, program string) {
	chosen, address := e.choice(), hostContainerd
	if chosen.Address != "" {
		address = chosen.Address
	}
	err := e.Hello(ctx, address)
	switch {
	case err == nil:
		e.ok("containerd", "containerd answers at %s", address)
	case chosen.Own:
		e.warn("containerd", "start berthd, which starts it; what it last said is in "+filepath.Join(filepath.Dir(address), "containerd.log")+", or in journalctl -u berth-containerd",
			"berth's own containerd doesn't answer at %s: %v", address, err)
	case chosen.Address != "":
		e.fail("containerd", "start it (systemctl start containerd) and see why it ended (journalctl -u containerd)",
			"the containerd with this node's containers doesn't answer at %s: %v", address, err)
	case program == "":
		e.fail("containerd", installContainerd, "containerd isn't on this host")
	case e.exists(hostContainerd):
		e.warn("containerd", "start it (systemctl start containerd), else berthd starts one of its own and stays with it",
			"the host's containerd doesn't answer at %s: %v", hostContainerd, err)
	default:
		e.ok("containerd", "none runs at %s: berthd starts %s as one of its own", hostContainerd, program)
	}
}

func (e *exam) runc(ctx context.Context) {
	program := e.find("runc")
	if program == "" {
		e.fail("runc", installContainerd, "runc, which starts containers, isn't on this host")
		return
	}
	if version := e.version(ctx, "runc", program, "--version"); version != "" {
		e.ok("runc", "%s is version %s", program, version[1:])
		e.holes(ctx, "runc-holes", program, version, runcHoles)
	}
}

// toolkit is NVIDIA's: berth doesn't use it, but Docker and Kubernetes on the
// same host do.
func (e *exam) toolkit(ctx context.Context) {
	program := e.find("nvidia-ctk")
	if program == "" {
		return
	}
	if version := e.version(ctx, "nvidia-toolkit", program, "--version"); version != "" {
		e.ok("nvidia-toolkit", "%s is version %s; berth doesn't use it", program, version[1:])
		e.holes(ctx, "nvidia-toolkit-holes", program, version, toolkitHoles)
	}
}

// version asks a program for its version; "" is told.
func (e *exam) version(ctx context.Context, name, program, flag string) string {
	said, err := e.Run(ctx, program, flag)
	if err != nil {
		e.fail(name, "see why it doesn't run: "+program+" "+flag, "the version is unknown: %v", err)
		return ""
	}
	version := parseVersion(said)
	if version == "" {
		e.warn(name, "", "the version is unknown: %s %s says %q", program, flag, said)
	}
	return version
}

// holes tells which known holes a program has. A distribution mends holes
// without a new version: of its packages the changelog says which.
func (e *exam) holes(ctx context.Context, name, program, version string, known []hole) {
	p := e.packageOf(ctx, program)
	var open, fix []string
	mended := 0
	for _, h := range openHoles(known, version) {
		left := h.cves
		if p.backports() {
			left = nil
			for _, cve := range h.cves {
				if strings.Contains(p.changelog, cve) {
					mended++
				} else {
					left = append(left, cve)
				}
			}
		}
		if len(left) > 0 {
			open = append(open, h.describe(left))
			fix = append(fix, left...)
		}
	}
	switch {
	case len(open) == 0 && mended > 0:
		e.ok(name, "%s: no hole that berth knows of (%d are mended by the distribution, says its changelog)", p, mended)
	case len(open) == 0:
		e.ok(name, "%s %s has no hole that berth knows of", program, version[1:])
	case p.backports():
		e.warn(name, p.advice(fix), "%s: its changelog doesn't say that these are mended: %s", p, strings.Join(open, "; "))
	default:
		e.warn(name, "install a version that isn't older than the fix", "%s %s has known holes: %s", program, version[1:], strings.Join(open, "; "))
	}
}

func (h hole) describe(cves []string) string {
	text := strings.Join(cves, ", ") + " ("
	if h.what != "" {
		text += h.what + "; "
	}
	return text + "fixed in " + strings.ReplaceAll(strings.Join(h.fixed, ", "), "v", "") + ")"
}

// debianPackage is the package that a file is from; the zero value is none.
type debianPackage struct {
	name, version, maintainer string
	changelog                 string
}

func (p debianPackage) String() string { return fmt.Sprintf("package %s %s", p.name, p.version) }

func (p debianPackage) ubuntu() bool { return strings.Contains(p.maintainer, "ubuntu.com") }

// backports reports whether the package is a distribution's own. Others, such as
// Docker's, carry the versions of the projects themselves.
func (p debianPackage) backports() bool {
	return strings.Contains(p.maintainer, "debian.org") || p.ubuntu()
}

func (p debianPackage) advice(cves []string) string {
	tracker := "https://security-tracker.debian.org/tracker/"
	if p.ubuntu() {
		tracker = "https://ubuntu.com/security/"
	}
	return fmt.Sprintf("apt update && apt install --only-upgrade %s; what the distribution says: %s%s", p.name, tracker, strings.Join(cves, ", "+tracker))
}

func (e *exam) packageOf(ctx context.Context, file string) debianPackage {
	query := e.find("dpkg-query")
	if query == "" {
		return debianPackage{}
	}
	said, err := e.Run(ctx, query, "-S", file)
	name, _, ok := strings.Cut(said, ": ")
	if err != nil || !ok {
		return debianPackage{}
	}
	name, _, _ = strings.Cut(name, ":") // its architecture
	said, err = e.Run(ctx, query, "-W", "-f=${Version}\n${Maintainer}", name)
	version, maintainer, ok := strings.Cut(said, "\n")
	if err != nil || !ok {
		return debianPackage{}
	}
	return debianPackage{name: name, version: version, maintainer: maintainer, changelog: e.changelog(name)}
}

// changelog is the distribution's own of a package; "" where it isn't installed,
// as in images that were made small.
func (e *exam) changelog(name string) string {
	raw, err := os.ReadFile(e.path("/usr/share/doc/" + name + "/changelog.Debian.gz"))
	if err != nil {
		return ""
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(unpacked, 16<<20))
	if err != nil {
		return ""
	}
	return string(text)
}

func (e *exam) filesystemTools(context.Context) {
	var missing []string
	for _, name := range []string{"mkfs.ext4", "e2fsck", "resize2fs"} {
		if e.find(name) == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		e.fail("e2fsprogs", "apt install e2fsprogs", "volumes can't be made or mended: %s isn't on this host", strings.Join(missing, ", "))
		return
	}
	e.ok("e2fsprogs", "mkfs.ext4, e2fsck and resize2fs are there")
}
