package doctor

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

const debianTeam = "Debian Go Packaging Team <team+pkg-go@tracker.debian.org>"

func byName(t *testing.T, checks []workspace.Check) map[string]workspace.Check {
	t.Helper()
	all := map[string]workspace.Check{}
	for _, c := range checks {
		if _, twice := all[c.Name]; twice {
			t.Errorf("two checks are called %s", c.Name)
		}
		if c.Message == "" || strings.Contains(c.Message, "%!") || strings.Contains(c.Fix, "%!") {
			t.Errorf("a check without a proper message: %+v", c)
		}
		all[c.Name] = c
	}
	return all
}

func TestHealthy(t *testing.T) {
	m := healthy()
	checks := byName(t, Check(t.Context(), m.host(t), m.options))
	for _, c := range checks {
		if c.Status != workspace.CheckOK || c.Fix != "" {
			t.Errorf("%+v", c)
		}
	}
	want := strings.Fields(`berthd cgroups clock containerd containerd-holes containerd-version control-socket
		disk-data disk-data-type disk-images disk-images-type e2fsprogs firewall forwarding fsync guard kernel kernel-features
		loop-devices memory mount-namespace nvidia-devices nvidia-driver nvidia-libcuda nvidia-libnvidia-ml
		nvidia-toolkit nvidia-toolkit-holes open-files root runc runc-holes security-module subnet unit unit-mounts`)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(checks))); diff != "" {
		t.Errorf("checks: %s", diff)
	}
}

// Each case is the healthy machine with one thing changed; the checks that
// aren't named stay ok.
func TestJudgements(t *testing.T) {
	const ok, warn, fail = workspace.CheckOK, workspace.CheckWarn, workspace.CheckFail
	type want struct {
		status workspace.CheckStatus
		says   string // in the message or the fix
	}
	file := func(name, text string) func(*machine) {
		return func(m *machine) { m.files[name] = text }
	}
	without := func(prefixes ...string) func(*machine) { return func(m *machine) { m.remove(prefixes...) } }
	answer := func(command, text string) func(*machine) {
		return func(m *machine) { m.answers[command] = text }
	}
	disk := func(dir string, change func(*Filesystem)) func(*machine) {
		return func(m *machine) {
			fs := m.disks[""]
			change(&fs)
			m.files[dir+"/empty"] = ""
			m.disks[dir] = fs
		}
	}
	unit := func(line string) func(*machine) { return answer("systemctl show", unitText+"\n"+line) }
	socket := func(mode os.FileMode, group int) func(*machine) {
		return func(m *machine) { m.sockets["/run/berth/berth.sock"], m.group = mode, group }
	}
	guard := func(g Guard, err error) func(*machine) {
		return func(m *machine) { m.options.Guard = func(context.Context) (Guard, error) { return g, err } }
	}
	daemon := func(d Daemon, err error) func(*machine) {
		return func(m *machine) { m.options.Daemon = func(context.Context) (Daemon, error) { return d, err } }
	}
	v1 := func(text string, mounted ...string) func(*machine) {
		return func(m *machine) {
			m.remove("/sys/fs/cgroup")
			m.files["/proc/cgroups"] = text
			for _, name := range mounted {
				m.files["/sys/fs/cgroup/"+name+"/tasks"] = ""
			}
		}
	}
	const v1All = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu 1 1 1\ncpuacct 1 1 1\nmemory 4 1 1\npids 8 1 1\ndevices 5 1 1\nfreezer 6 1 1\n"
	refused := errors.New("connection refused")

	cases := map[string]struct {
		change func(*machine)
		want   map[string]want
	}{
		"old kernel": {file("/proc/sys/kernel/osrelease", "4.19.0-27-amd64"), map[string]want{"kernel": {fail, "older than 5.4"}, "kernel-features": {warn, "doesn't tell"}}},
		"untested kernel": {func(m *machine) {
			m.remove("/lib/modules", "/boot")
			m.files["/proc/sys/kernel/osrelease"] = "5.4.0-216-generic"
		}, map[string]want{"kernel": {warn, "older than 5.10"}, "kernel-features": {warn, "loop, bridge, veth, nf_tables"}}},
		"unknown kernel": {without("/proc/sys/kernel"), map[string]want{"kernel": {warn, "unknown"}, "kernel-features": {warn, "doesn't tell"}}},
		"no veth": {func(m *machine) {
			m.files["/lib/modules/"+kernelOf+"/modules.dep"] = "a/loop.ko:\nb/nf-tables.ko.zst: c.ko\n"
			m.files["/boot/config-"+kernelOf] = "x\nCONFIG_CGROUP_BPF=y\n# CONFIG_VETH is not set"
		}, map[string]want{"kernel-features": {fail, "no veth (the network"}}},
		"no loop devices":  {without("/dev/loop-control"), map[string]want{"loop-devices": {fail, "modprobe loop"}}},
		"v2 no memory":     {file("/sys/fs/cgroup/cgroup.controllers", "cpu pids"), map[string]want{"cgroups": {fail, "v2 without memory:"}}},
		"v2 no BPF":        {file("/boot/config-"+kernelOf, "x\nCONFIG_NET=y"), map[string]want{"cgroups": {fail, "CONFIG_CGROUP_BPF"}}},
		"v1":               {v1(v1All, "cpu", "cpuacct", "memory", "pids", "devices", "freezer"), map[string]want{"cgroups": {ok, "v1 with"}}},
		"v1 memory is off": {v1(strings.Replace(v1All, "memory 4 1 1", "memory 4 1 0", 1), "cpu", "cpuacct", "memory", "pids", "devices"), map[string]want{"cgroups": {fail, "without memory, freezer (not mounted):"}}},
		"SELinux":          {file("/sys/fs/selinux/enforce", "1"), map[string]want{"security-module": {warn, "setenforce 0"}}},
		"permissive":       {func(m *machine) { m.remove("/sys/module/apparmor"); m.files["/sys/fs/selinux/enforce"] = "0" }, map[string]want{"security-module": {ok, "permissive"}}},
		"few files":        {file("/proc/7/limits", "Max open files 1024 4096 files"), map[string]want{"open-files": {warn, "berthd may open 4096 files"}}},
		"stale lock": {func(m *machine) {
			m.files["/proc/7/comm"], m.files["/proc/self/limits"] = "bash", "Max open files 1024 524288 files"
			m.links["/proc/7/ns/mnt"] = "mnt:[2]"
		}, map[string]want{"open-files": {ok, "a process of this user"}, "mount-namespace": {}}},

		"no containerd at all": {func(m *machine) {
			m.remove("/usr/bin/containerd", "/var/lib/berth/containerd.json", "/run/containerd")
			m.hello[hostContainerd] = refused
		}, map[string]want{"containerd": {fail, "apt install containerd"}, "containerd-version": {}, "containerd-holes": {}}},
		"none runs": {func(m *machine) {
			m.remove("/var/lib/berth/containerd.json", "/run/containerd")
			m.hello[hostContainerd] = refused
		}, map[string]want{"containerd": {ok, "one of its own"}}},
		"the host's is stuck": {func(m *machine) { m.remove("/var/lib/berth/containerd.json"); m.hello[hostContainerd] = refused },
			map[string]want{"containerd": {warn, "connection refused"}}},
		"the chosen one is down": {func(m *machine) { m.hello[hostContainerd] = refused }, map[string]want{"containerd": {fail, "this node's containers"}}},
		"our own is down": {func(m *machine) {
			m.files["/var/lib/berth/containerd.json"] = `{"address":"/var/lib/berth/containerd/containerd.sock","own":true}`
			m.hello["/var/lib/berth/containerd/containerd.sock"] = refused
		}, map[string]want{"containerd": {warn, "/var/lib/berth/containerd/containerd.log"}}},
		"old containerd":     {answer("containerd --version", "containerd github.com/containerd/containerd 1.5.9 abc"), map[string]want{"containerd-version": {fail, "needs 1.6.0"}, "containerd-holes": {}}},
		"broken containerd":  {answer("containerd --version", "!exec format error"), map[string]want{"containerd-version": {fail, "exec format error"}, "containerd-holes": {}}},
		"chatty containerd":  {answer("containerd --version", "hello"), map[string]want{"containerd-version": {warn, `says "hello"`}, "containerd-holes": {}}},
		"containerd's holes": {answer("containerd --version", "containerd github.com/containerd/containerd/v2 v2.1.4 abc"), map[string]want{"containerd-holes": {warn, "CVE-2024-25621 (its directories are open to other users of the host; fixed in 1.7.29, 2.0.7, 2.1.5, 2.2.0)"}}},
		"no runc":            {without("/usr/bin/runc"), map[string]want{"runc": {fail, "apt install containerd runc"}, "runc-holes": {}}},
		"runc's holes":       {answer("runc --version", "runc version 1.1.11"), map[string]want{"runc-holes": {warn, "CVE-2024-21626"}}},
		"Debian's runc, mended": {func(m *machine) {
			m.answers["runc --version"] = "runc version 1.1.13+ds1"
			m.debian("runc", "1.1.13+ds1-1", debianTeam, "* CVE-2024-45310\n* CVE-2025-31133, CVE-2025-52565 CVE-2025-52881\n * Fix CVE-2026-41579")
		}, map[string]want{"runc-holes": {ok, "package runc 1.1.13+ds1-1: no hole that berth knows of (5 are mended"}}},
		"Debian's runc, one left": {func(m *machine) {
			m.answers["runc --version"] = "runc version 1.1.13+ds1"
			m.debian("runc", "1.1.13+ds1-1", debianTeam, "CVE-2024-45310 CVE-2025-31133 CVE-2025-52565 CVE-2026-41579")
		}, map[string]want{"runc-holes": {warn, "https://security-tracker.debian.org/tracker/CVE-2025-52881"}}},
		"Ubuntu's runc without its changelog": {func(m *machine) {
			m.answers["runc --version"] = "runc version 1.3.3"
			m.debian("runc", "1.3.3-0ubuntu1", "Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>", "")
		}, map[string]want{"runc-holes": {warn, "https://ubuntu.com/security/CVE-2026-41579"}}},
		"Docker's runc isn't backported": {func(m *machine) {
			m.answers["runc --version"] = "runc version 1.3.3"
			m.debian("runc", "1.3.3-1", "Containerd team <help@containerd.io>", "CVE-2026-41579")
		}, map[string]want{"runc-holes": {warn, "install a version that isn't older than the fix"}}},
		"no toolkit":      {without("/usr/bin/nvidia-ctk"), map[string]want{"nvidia-toolkit": {}, "nvidia-toolkit-holes": {}}},
		"toolkit's holes": {answer("nvidia-ctk --version", "NVIDIA Container Toolkit CLI version 1.17.4"), map[string]want{"nvidia-toolkit-holes": {warn, "CVE-2025-23266"}}},
		"no e2fsck":       {without("/usr/bin/e2fsck", "/usr/bin/resize2fs"), map[string]want{"e2fsprogs": {fail, "e2fsck, resize2fs isn't"}}},

		"no nft":            {without("/usr/bin/nft"), map[string]want{"firewall": {fail, "apt install nftables"}}},
		"nft is refused":    {answer("nft -c", "!Could not process rule: No such file or directory"), map[string]want{"firewall": {fail, "Could not process rule"}}},
		"iptables fails":    {answer("iptables -w", "!can't initialize iptables table"), map[string]want{"firewall": {fail, "iptables doesn't work"}}},
		"forwarding is off": {file("/proc/sys/net/ipv4/ip_forward", "0"), map[string]want{"forwarding": {ok, "berthd turns it on"}}},
		"subnet is taken":   {file("/proc/net/route", "Iface\ntun0\t0000590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0"), map[string]want{"subnet": {fail, "route to 10.89.0.0/24 by tun0"}}},
		"another subnet":    {func(m *machine) { m.options.Subnet = netip.MustParsePrefix("192.0.2.128/25") }, map[string]want{"subnet": {fail, "192.0.2.0/24 by eth0"}}},

		"no GPU":             {without("/proc/driver/nvidia", "/dev/nvidia", "/usr/lib"), map[string]want{"nvidia-driver": {ok, "no NVIDIA GPU"}, "nvidia-devices": {}, "nvidia-libcuda": {}, "nvidia-libnvidia-ml": {}}},
		"GPU without driver": {func(m *machine) { m.remove("/proc/driver/nvidia"); pci(m) }, map[string]want{"nvidia-driver": {warn, "1 NVIDIA GPUs on this host have no driver"}, "nvidia-devices": {}, "nvidia-libcuda": {}, "nvidia-libnvidia-ml": {}}},
		"nouveau": {func(m *machine) { m.remove("/proc/driver/nvidia"); pci(m); m.files["/sys/module/nouveau/refcnt"] = "1" },
			map[string]want{"nvidia-driver": {warn, "nouveau"}, "nvidia-devices": {}, "nvidia-libcuda": {}, "nvidia-libnvidia-ml": {}}},
		"open kernel module":   {file("/proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.129.03  Release Build"), nil},
		"upgraded under it":    {func(m *machine) { m.remove(library + "libcuda.so.5"); m.files[library+"libcuda.so.550.54.14"] = "" }, map[string]want{"nvidia-libcuda": {fail, "reboot required: the loaded driver is 535.129.03, but libcuda is of 550.54.14"}}},
		"no libnvidia-ml":      {without(library + "libnvidia-ml"), map[string]want{"nvidia-libnvidia-ml": {fail, "libnvidia-ml1"}}},
		"no link":              {without(library + "libcuda.so.1"), map[string]want{"nvidia-libcuda": {fail, "ldconfig"}}},
		"link only":            {without(library + "libcuda.so.5"), map[string]want{"nvidia-libcuda": {warn, "doesn't tell its version"}}},
		"no nvidia-uvm":        {without("/dev/nvidia-uvm"), map[string]want{"nvidia-devices": {warn, "nvidia-modprobe -c 0 -u"}}},
		"no node of a GPU":     {without("/dev/nvidia1"), map[string]want{"nvidia-devices": {fail, "missing: /dev/nvidia1"}}},
		"libraries of Debian":  {func(m *machine) { moveLibraries(m, library+"nvidia/current/") }, nil},
		"libraries of Red Hat": {func(m *machine) { moveLibraries(m, "/usr/lib64/") }, nil},

		"disk is full":       {disk("/var/lib/berth", func(fs *Filesystem) { fs.Free = 100 * mib }), map[string]want{"disk-data": {fail, "100 MiB of 500.0 GiB"}}},
		"below the reserve":  {disk("/var/lib/berth", func(fs *Filesystem) { fs.Free = 5 * gib }), map[string]want{"disk-data": {warn, "no storage can be offered"}}},
		"above high water":   {disk("/srv/containerd", func(fs *Filesystem) { fs.Free = 60 * gib }), map[string]want{"disk-images": {warn, "85 %"}}},
		"few inodes":         {disk("/srv/containerd", func(fs *Filesystem) { fs.FreeInodes = 50 }), map[string]want{"disk-images": {warn, "950 of 1000 inodes"}}},
		"no inodes":          {disk("/srv/containerd", func(fs *Filesystem) { fs.FreeInodes = 0 }), map[string]want{"disk-images": {fail, "no inodes left"}}},
		"no limit of inodes": {disk("/srv/containerd", func(fs *Filesystem) { fs.Inodes, fs.FreeInodes = 0, 0 }), nil},
		"Raft on NFS":        {disk("/var/lib/berth", func(fs *Filesystem) { fs.Type = "nfs" }), map[string]want{"disk-data-type": {warn, "local disk"}}},
		"Raft on overlay":    {disk("/var/lib/berth", func(fs *Filesystem) { fs.Type = "overlay" }), map[string]want{"disk-data-type": {warn, "goes with it"}}},
		"Raft on tmpfs":      {disk("/var/lib/berth", func(fs *Filesystem) { fs.Type = "tmpfs" }), map[string]want{"disk-data-type": {warn, "a reboot takes"}}},
		"images on overlay":  {disk("/srv/containerd", func(fs *Filesystem) { fs.Type = "overlay" }), map[string]want{"disk-images-type": {fail, "can't be layered"}}},
		"slow disk":          {func(m *machine) { m.fsync = 21 * time.Millisecond }, map[string]want{"fsync": {warn, "21ms"}}},
		"little memory":      {file("/proc/meminfo", "MemTotal: 1000000 kB\nMemAvailable: 900000 kB"), map[string]want{"memory": {warn, "977 MiB of memory"}}},
		"memory is used up":  {file("/proc/meminfo", "MemTotal: 131072000 kB\nMemAvailable: 1000000 kB"), map[string]want{"memory": {warn, "977 MiB of 125.0 GiB"}}},
		"no meminfo":         {without("/proc/meminfo"), map[string]want{"memory": {warn, "unknown"}}},
		"clock runs free":    {func(m *machine) { m.clock.Synchronised = false }, map[string]want{"clock": {warn, "isn't synchronised"}}},

		"no systemd":         {without("/run/systemd"), map[string]want{"unit": {ok, "isn't this host's first process"}, "unit-mounts": {}}},
		"no unit":            {answer("systemctl show", "LoadState=not-found"), map[string]want{"unit": {warn, "no berthd.service"}, "unit-mounts": {}}},
		"unit failed":        {unit("ActiveState=failed\nResult=exit-code"), map[string]want{"unit": {fail, "has failed (exit-code)"}}},
		"unit is stopped":    {unit("ActiveState=inactive"), map[string]want{"unit": {warn, "inactive"}}},
		"unit isn't enabled": {unit("UnitFileState=disabled"), map[string]want{"unit": {warn, "systemctl enable berthd"}}},
		"systemctl hangs":    {answer("systemctl show", "!systemctl doesn't end"), map[string]want{"unit": {warn, "doesn't end"}, "unit-mounts": {}}},
		"hardened by a drop-in": {unit("PrivateTmp=yes\nProtectSystem=strict\nDropInPaths=/etc/systemd/system/berthd.service.d/hard.conf"),
			map[string]want{"unit-mounts": {fail, "PrivateTmp=yes, ProtectSystem=strict"}}},
		"the drop-in is named":     {unit("ReadOnlyPaths=/usr\nDropInPaths=/etc/x.conf"), map[string]want{"unit-mounts": {fail, "berthd.service /etc/x.conf, then systemctl daemon-reload"}}},
		"kills its control group":  {unit("KillMode=control-group"), map[string]want{"unit-kill-mode": {fail, "KillMode is control-group"}}},
		"own mounts":               {func(m *machine) { m.links["/proc/7/ns/mnt"] = "mnt:[2]" }, map[string]want{"mount-namespace": {fail, "pid 7"}}},
		"mounts unknown":           {func(m *machine) { delete(m.links, "/proc/7/ns/mnt") }, map[string]want{"mount-namespace": {warn, "unknown"}}},
		"socket for everyone":      {socket(0o666, 777), map[string]want{"control-socket": {fail, "every user of this host is root"}}},
		"socket of another group":  {socket(0o660, 778), map[string]want{"control-socket": {warn, "group lab, not berth"}}},
		"socket of a nameless one": {socket(0o660, 9999), map[string]want{"control-socket": {warn, "group 9999"}}},
		"socket of the group":      {nil, map[string]want{"control-socket": {ok, "its members: alice, bob"}}},
		"socket for root":          {socket(0o600, 0), map[string]want{"control-socket": {ok, "owner only"}}},
		"a file in its place":      {func(m *machine) { m.sockets = nil; m.files["/run/berth/berth.sock"] = "" }, map[string]want{"control-socket": {fail, "isn't a socket"}}},
		"berthd doesn't run":       {func(m *machine) { m.sockets = nil }, map[string]want{"berthd": {warn, "doesn't run here"}, "control-socket": {}}},
		"berthd doesn't answer":    {daemon(Daemon{}, refused), map[string]want{"berthd": {fail, "connection refused"}}},
		"node isn't ready":         {daemon(Daemon{Version: "1.0", Node: "host1", Reason: "runtime_unavailable", Message: "containerd is down"}, nil), map[string]want{"berthd": {fail, "runtime_unavailable: containerd is down"}}},
		"node isn't known":         {daemon(Daemon{Version: "1.0"}, nil), map[string]want{"berthd": {warn, "isn't in the cluster yet"}}},
		"no guard":                 {guard(Guard{}, errors.New("refused")), map[string]want{"guard": {fail, "doesn't answer"}}},
		"a guard in the open":      {guard(Guard{Lacks: []string{"no lock"}}, nil), map[string]want{"guard": {warn, "no lock"}}},
		"damaged deadlines":        {guard(Guard{Damaged: 2}, nil), map[string]want{"guard": {warn, "2 stored"}}},
		"a guard with errors":      {guard(Guard{Error: "disk full"}, nil), map[string]want{"guard": {warn, "disk full"}}},
		"the guard isn't asked":    {func(m *machine) { m.options.Guard = nil }, map[string]want{"guard": {}}},
		"berthd isn't asked":       {func(m *machine) { m.options.Daemon = nil }, map[string]want{"berthd": {}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			m := healthy()
			if c.change != nil {
				c.change(m)
			}
			checks := byName(t, Check(t.Context(), m.host(t), m.options))
			for name, want := range c.want {
				got, there := checks[name]
				if want == struct {
					status workspace.CheckStatus
					says   string
				}{} {
					if there {
						t.Errorf("%s is judged: %+v", name, got)
					}
					continue
				}
				if got.Status != want.status || !strings.Contains(got.Message+"\n"+got.Fix, want.says) {
					t.Errorf("%s: %+v, want %s with %q", name, got, want.status, want.says)
				}
				delete(checks, name)
			}
			for _, got := range checks {
				if got.Status != ok {
					t.Errorf("also: %+v", got)
				}
			}
		})
	}
}

func pci(m *machine) {
	m.files["/sys/bus/pci/devices/0000:07:00.0/vendor"], m.files["/sys/bus/pci/devices/0000:07:00.0/class"] = "0x10de", "0x030200"
	m.files["/sys/bus/pci/devices/0000:07:00.1/vendor"], m.files["/sys/bus/pci/devices/0000:07:00.1/class"] = "0x10de", "0x040300"
	m.files["/sys/bus/pci/devices/0000:00:02.0/vendor"], m.files["/sys/bus/pci/devices/0000:00:02.0/class"] = "0x8086", "0x030000"
}

func moveLibraries(m *machine, dir string) {
	for name := range maps.Clone(m.files) {
		if rest, ok := strings.CutPrefix(name, library); ok {
			delete(m.files, name)
			m.files[dir+rest] = ""
		}
	}
}

// A user who isn't root is told what was left out, and gets no failure for what
// only root can see.
func TestWithoutRoot(t *testing.T) {
	m := healthy()
	m.uid = 1000
	m.hello[hostContainerd] = errors.New("permission denied")
	m.answers["nft -c"] = "!Operation not permitted"
	checks := byName(t, Check(t.Context(), m.host(t), m.options))
	for _, name := range []string{"root", "containerd", "firewall", "fsync", "guard"} {
		if c := checks[name]; c.Status != workspace.CheckWarn || !strings.Contains(c.Message, "root") || c.Fix != asRoot {
			t.Errorf("%s: %+v", name, c)
		}
		delete(checks, name)
	}
	for _, c := range checks {
		if c.Status != workspace.CheckOK {
			t.Errorf("%+v", c)
		}
	}
}

// Nor is a daemon down because this user can't reach it.
func TestDaemonOfAnotherUser(t *testing.T) {
	for name, change := range map[string]func(*machine){
		"hidden": func(m *machine) { m.sockets = nil },
		"denied": func(m *machine) {
			m.options.Daemon = func(context.Context) (Daemon, error) { return Daemon{}, errors.New("permission denied") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := healthy()
			m.uid = 1000
			change(m)
			if c := byName(t, Check(t.Context(), m.host(t), m.options))["berthd"]; c.Status != workspace.CheckWarn || c.Fix != asRoot {
				t.Errorf("%+v", c)
			}
		})
	}
}
