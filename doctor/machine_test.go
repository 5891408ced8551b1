package doctor

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a host made of files and answers.
type machine struct {
	uid     int
	files   map[string]string // also programs, below bin and sbin
	links   map[string]string
	answers map[string]string // of programs, by base name and arguments; "!" and what they complain of
	disks   map[string]Filesystem
	fsync   time.Duration
	clock   Clock
	hello   map[string]error
	sockets map[string]os.FileMode
	group   int // owner of sockets
	options Options
}

const (
	kernelOf = "6.1.0-28-amd64"
	nvidia   = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:  gcc version 12.2.0"
	library  = "/usr/lib/x86_64-linux-gnu/"
	unitText = "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=0\nKillMode=process\nPrivateTmp=no\nProtectSystem=no\nProtectProc=default\nReadOnlyPaths=\nMountFlags=\nFragmentPath=/lib/systemd/system/berthd.service\nDropInPaths="
)

// healthy is a Debian 12 host with two GPUs on which all is well, berthd runs
// under systemd, and all programs are without known holes.
func healthy() *machine {
	m := &machine{
		files: map[string]string{
			"/proc/sys/kernel/osrelease": kernelOf, "/proc/filesystems": "nodev\tproc\n\text4\nnodev\toverlay\n",
			"/lib/modules/" + kernelOf + "/modules.builtin": "kernel/net/bridge/bridge.ko\n",
			"/lib/modules/" + kernelOf + "/modules.dep":     "kernel/drivers/block/loop.ko.xz:\nkernel/drivers/net/veth.ko: kernel/a.ko\nkernel/net/netfilter/nf_tables.ko:\n",
			"/boot/config-" + kernelOf:                      "# Linux\nCONFIG_CGROUP_BPF=y\nCONFIG_VETH=m\n",
			"/dev/loop-control":                             "",
			"/sys/fs/cgroup/cgroup.controllers":             "cpuset cpu io memory hugetlb pids rdma misc\n",
			"/sys/module/apparmor/parameters/enabled":       "Y\n",
			"/proc/7/comm":                                  "berthd\n",
			"/proc/7/limits":                                "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 1048576              files\n",
			"/var/lib/berth/lock":                           "7\n",
			"/var/lib/berth/containerd.json":                `{"address":"/run/containerd/containerd.sock"}`,
			"/run/containerd/containerd.sock":               "",
			"/etc/containerd/config.toml":                   "version = 2\nroot = \"/srv/containerd\"\n[grpc]\n",
			"/proc/sys/net/ipv4/ip_forward":                 "1\n",
			"/proc/net/route":                               "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\neth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\nberth0\t0000590A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\neth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
			"/proc/driver/nvidia/version":                   nvidia,
			library + "libnvidia-ml.so.1":                   "", library + "libnvidia-ml.so.535.129.03": "",
			library + "libcuda.so.1": "", library + "libcuda.so.535.129.03": "",
			"/proc/driver/nvidia/gpus/0000:07:00.0/information": "Model: \t\t NVIDIA A100\nDevice Minor: \t 0\n",
			"/proc/driver/nvidia/gpus/0000:0b:00.0/information": "Model: \t\t NVIDIA A100\nDevice Minor: \t 1\n",
			"/dev/nvidiactl": "", "/dev/nvidia0": "", "/dev/nvidia1": "", "/dev/nvidia-uvm": "",
			"/proc/meminfo":             "MemTotal:       131072000 kB\nMemFree: 1 kB\nMemAvailable:   120000000 kB\n",
			"/run/systemd/system/empty": "",
			"/etc/group":                "root:x:0:\nberth:x:777:alice,bob\nlab:x:778:\n",
		},
		links: map[string]string{"/proc/1/ns/mnt": "mnt:[1]", "/proc/7/ns/mnt": "mnt:[1]"},
		answers: map[string]string{
			"containerd --version": "containerd containerd.io 2.3.2 fedcba",
			"runc --version":       "runc version 1.4.3\ncommit: v1.4.3-0-g1\nspec: 1.2.1",
			"nvidia-ctk --version": "NVIDIA Container Toolkit CLI version 1.18.0\ncommit: abc",
			"systemctl show":       unitText,
			"dpkg-query":           "!no path found matching pattern",
			"nft -c":               "", "iptables -w": "-P FORWARD ACCEPT",
		},
		disks:   map[string]Filesystem{"": {Type: "ext4", Size: 500 * gib, Free: 400 * gib, Inodes: 1000, FreeInodes: 900}},
		fsync:   time.Millisecond,
		clock:   Clock{Synchronised: true, MaxError: 5 * time.Millisecond},
		hello:   map[string]error{},
		sockets: map[string]os.FileMode{"/run/berth/berth.sock": 0o660}, group: 777,
		options: Options{Daemon: func(context.Context) (Daemon, error) {
			return Daemon{Version: "1.0", Node: "host1", Ready: true}, nil
		}, Guard: func(context.Context) (Guard, error) { return Guard{Pid: 8}, nil }},
	}
	for _, program := range []string{"containerd", "runc", "nvidia-ctk", "systemctl", "dpkg-query", "nft", "iptables", "iptables-restore", "mkfs.ext4", "e2fsck", "resize2fs"} {
		m.files["/usr/bin/"+program] = ""
	}
	return m
}

// remove takes away files by prefix.
func (m *machine) remove(prefixes ...string) {
	for name := range m.files {
		for _, prefix := range prefixes {
			if strings.HasPrefix(name, prefix) {
				delete(m.files, name)
			}
		}
	}
}

// debian makes a program one of a distribution's package.
func (m *machine) debian(program, version, maintainer, changelog string) {
	m.answers["dpkg-query -S /usr/bin/"+program] = program + ": /usr/bin/" + program
	m.answers["dpkg-query -W"] = version + "\n" + maintainer
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	fmt.Fprint(w, changelog)
	w.Close()
	m.files["/usr/share/doc/"+program+"/changelog.Debian.gz"] = packed.String()
}

func (m *machine) host(t *testing.T) Host {
	t.Helper()
	root, err := os.MkdirTemp("", "doctor") // short: a socket's path may have 107 bytes
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(root) })
	for name, text := range m.files {
		mode := os.FileMode(0o644)
		if strings.Contains(name, "bin/") {
			mode = 0o755
		}
		must(t, os.MkdirAll(filepath.Dir(root+name), 0o755))
		must(t, os.WriteFile(root+name, []byte(text), mode))
	}
	for name, target := range m.links {
		must(t, os.MkdirAll(filepath.Dir(root+name), 0o755))
		must(t, os.Symlink(target, root+name))
	}
	for name, mode := range m.sockets {
		must(t, os.MkdirAll(filepath.Dir(root+name), 0o755))
		l, err := net.Listen("unix", root+name)
		must(t, err)
		t.Cleanup(func() { l.Close() })
		must(t, os.Chmod(root+name, mode))
		must(t, os.Chown(root+name, 0, m.group))
	}
	return Host{
		Root: root, UID: m.uid, Run: m.run,
		Statfs: func(path string) (Filesystem, error) { return m.disk(path) },
		Sync: func(string) ([]time.Duration, error) {
			return []time.Duration{m.fsync, m.fsync, m.fsync, time.Minute}, nil
		},
		Hello: func(_ context.Context, socket string) error { return m.hello[socket] },
		Clock: func() (Clock, error) { return m.clock, nil },
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run answers by the longest beginning of the command that has an answer.
func (m *machine) run(_ context.Context, path string, args ...string) (string, error) {
	words := append([]string{filepath.Base(path)}, args...)
	for n := len(words); n > 0; n-- {
		if said, ok := m.answers[strings.Join(words[:n], " ")]; ok {
			if complaint, ok := strings.CutPrefix(said, "!"); ok {
				return "", errors.New(complaint)
			}
			return said, nil
		}
	}
	return "", fmt.Errorf("the machine of the test has no answer to %q", words)
}

// disk is the one that the nearest named parent is on.
func (m *machine) disk(path string) (Filesystem, error) {
	for ; path != "/"; path = filepath.Dir(path) {
		if fs, ok := m.disks[path]; ok {
			return fs, nil
		}
	}
	return m.disks[""], nil
}
