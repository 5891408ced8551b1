package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"
)

// Kernels: nothing is tried on one older than the first; the second is the
// oldest that the supported distributions ship.
const (
	leastKernel  = "v5.4.0"
	testedKernel = "v5.10.0"
)

func (e *exam) release() string { return e.read("/proc/sys/kernel/osrelease") }

func (e *exam) kernel(context.Context) {
	release := e.release()
	version := parseVersion(release)
	switch {
	case version == "":
		e.warn("kernel", "", "the kernel's version is unknown: /proc/sys/kernel/osrelease says %q", release)
	case semver.Compare(version, leastKernel) < 0:
		e.fail("kernel", "install a kernel of 5.10 or newer", "Linux %s is older than 5.4", release)
	case semver.Compare(version, testedKernel) < 0:
		e.warn("kernel", "install a kernel of 5.10 or newer", "Linux %s is older than 5.10: berth isn't tested with it", release)
	default:
		e.ok("kernel", "Linux %s", release)
	}
}

// feature is a part of the kernel that berth needs.
type feature struct {
	module, config string
	filesystem     bool // listed in /proc/filesystems once it is there
	why            string
}

var neededFeatures = []feature{
	{module: "overlay", config: "CONFIG_OVERLAY_FS", filesystem: true, why: "the files of containers"},
	{module: "ext4", config: "CONFIG_EXT4_FS", filesystem: true, why: "volumes"},
	{module: "loop", config: "CONFIG_BLK_DEV_LOOP", why: "volumes"},
	{module: "bridge", config: "CONFIG_BRIDGE", why: "the network of containers"},
	{module: "veth", config: "CONFIG_VETH", why: "the network of containers"},
	{module: "nf_tables", config: "CONFIG_NF_TABLES", why: "the rules of the network"},
}

func (e *exam) features(context.Context) {
	modules, config := e.modules(), e.config()
	var absent, unknown, there []string
	for _, f := range neededFeatures {
		switch has, known := e.has(f, modules, config); {
		case has:
			there = append(there, f.module)
		case known:
			absent = append(absent, f.module+" ("+f.why+")")
		default:
			unknown = append(unknown, f.module)
		}
	}
	switch {
	case len(absent) > 0:
		e.fail("kernel-features", "install the distribution's whole kernel (Ubuntu: linux-modules-extra), or build one with them",
			"this kernel has no %s", strings.Join(absent, ", "))
	case len(unknown) > 0:
		e.warn("kernel-features", "", "this kernel doesn't tell whether it has %s: neither its modules nor its configuration are on this host", strings.Join(unknown, ", "))
	default:
		e.ok("kernel-features", "%s", strings.Join(there, ", "))
	}
	if e.exists("/dev/loop-control") {
		e.ok("loop-devices", "/dev/loop-control is there")
	} else {
		e.fail("loop-devices", "modprobe loop, and name it in /etc/modules-load.d/berth.conf", "there is no /dev/loop-control: volumes can't be mounted")
	}
}

// has looks in all places that can tell. Known is false when none of them can.
func (e *exam) has(f feature, modules []string, config string) (has, known bool) {
	if f.filesystem && slices.Contains(strings.Fields(e.read("/proc/filesystems")), f.module) || e.exists("/sys/module/"+f.module) {
		return true, true
	}
	if slices.Contains(modules, f.module) {
		return true, true
	}
	if config != "" {
		return strings.Contains(config, "\n"+f.config+"=y") || len(modules) > 0 && strings.Contains(config, "\n"+f.config+"=m"), true
	}
	return false, len(modules) > 0
}

var moduleFile = regexp.MustCompile(`/([^/:]+)\.ko(?:\.\w+)?(?::|\n|$)`)

// modules are the names of those that are built in or can be loaded.
func (e *exam) modules() (names []string) {
	dir := "/lib/modules/" + e.release()
	for _, m := range moduleFile.FindAllStringSubmatch(e.read(dir+"/modules.builtin")+"\n"+e.read(dir+"/modules.dep"), -1) {
		names = append(names, strings.ReplaceAll(m[1], "-", "_"))
	}
	return names
}

// config is what the kernel was built with, a line each after a line break; ""
// when the host doesn't have it.
func (e *exam) config() string {
	if text := e.read("/boot/config-" + e.release()); text != "" {
		return "\n" + text
	}
	raw, err := os.ReadFile(e.path("/proc/config.gz"))
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
	return "\n" + string(text)
}

func (e *exam) cgroups(context.Context) {
	if e.exists("/sys/fs/cgroup/cgroup.controllers") {
		e.cgroupV2()
		return
	}
	e.cgroupV1()
}

func (e *exam) cgroupV2() {
	has := strings.Fields(e.read("/sys/fs/cgroup/cgroup.controllers"))
	var missing []string
	for _, name := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(has, name) {
			missing = append(missing, name)
		}
	}
	// Devices have no controller in v2: programs for the kernel's BPF decide.
	if config := e.config(); config != "" && !strings.Contains(config, "\nCONFIG_CGROUP_BPF=y") {
		missing = append(missing, "devices (CONFIG_CGROUP_BPF)")
	}
	if len(missing) > 0 {
		e.fail("cgroups", "enable them on the kernel's command line, or install the distribution's kernel",
			"cgroup v2 without %s: containers can't be limited", strings.Join(missing, ", "))
		return
	}
	e.ok("cgroups", "v2 with cpu, memory and pids")
}

func (e *exam) cgroupV1() {
	enabled := map[string]bool{}
	for line := range strings.Lines(e.read("/proc/cgroups")) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[3] == "1" {
			enabled[fields[0]] = true
		}
	}
	var missing []string
	for _, name := range []string{"cpu", "cpuacct", "memory", "pids", "devices", "freezer"} {
		switch {
		case !enabled[name]:
			missing = append(missing, name)
		case !e.exists("/sys/fs/cgroup/" + name):
			missing = append(missing, name+" (not mounted)")
		}
	}
	if len(missing) > 0 {
		e.fail("cgroups", "mount them, or boot with systemd.unified_cgroup_hierarchy=1 for cgroup v2; memory may need cgroup_enable=memory",
			"cgroup v1 without %s: containers can't be limited", strings.Join(missing, ", "))
		return
	}
	e.ok("cgroups", "v1 with cpu, memory, pids, devices and freezer")
}

func (e *exam) securityModules(context.Context) {
	switch {
	case e.read("/sys/fs/selinux/enforce") == "1":
		e.warn("security-module", "try it with permissive mode first (setenforce 0), and see ausearch -m avc for denials",
			"SELinux is enforcing: berth isn't tested with it, and gives its containers no labels")
	case e.read("/sys/module/apparmor/parameters/enabled") == "Y":
		e.ok("security-module", "AppArmor is on; berth's containers have no profile of their own")
	case e.exists("/sys/fs/selinux/enforce"):
		e.ok("security-module", "SELinux is permissive")
	default:
		e.ok("security-module", "neither AppArmor nor SELinux is on")
	}
}
