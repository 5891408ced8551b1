package guard

import (
	"errors"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	good := func() *Deadline {
		return &Deadline{Run: "r.1_a-B", BootID: "b", Term: 1, Kill: 2, Pid: 2, Cgroups: []string{"/sys/fs/cgroup/a"}, Notice: "/n"}
	}
	if err := good().check(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Deadline){
		"no run":            func(d *Deadline) { d.Run = "" },
		"a path for a run":  func(d *Deadline) { d.Run = "../x" },
		"a hidden run":      func(d *Deadline) { d.Run = ".x" },
		"a long run":        func(d *Deadline) { d.Run = strings.Repeat("x", maxRun+1) },
		"a line in a run":   func(d *Deadline) { d.Run = "x\n" },
		"no boot":           func(d *Deadline) { d.BootID = "" },
		"no end":            func(d *Deadline) { d.Kill = 0; d.Term = 0 },
		"TERM after KILL":   func(d *Deadline) { d.Term = 3 },
		"negative TERM":     func(d *Deadline) { d.Term = -1 },
		"init":              func(d *Deadline) { d.Pid = 1 },
		"a process group":   func(d *Deadline) { d.Pid = -5 },
		"no cgroup":         func(d *Deadline) { d.Cgroups = nil },
		"many cgroups":      func(d *Deadline) { d.Cgroups = make([]string, maxCgroups+1) },
		"a relative cgroup": func(d *Deadline) { d.Cgroups = []string{"a"} },
		"an unclean cgroup": func(d *Deadline) { d.Cgroups = []string{"/sys/fs/cgroup/a/../.."} },
		"the root":          func(d *Deadline) { d.Cgroups = []string{"/"} },
		"a zero byte":       func(d *Deadline) { d.Cgroups = []string{"/a\x00b"} },
		"a relative notice": func(d *Deadline) { d.Notice = "n" },
		"a long notice":     func(d *Deadline) { d.NoticeText = strings.Repeat("x", maxNotice+1) },
	} {
		d := good()
		spoil(d)
		if err := d.check(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

const hybridMounts = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
36 31 0:33 / /sys/fs/cgroup/my\040pids rw,relatime shared:9 - cgroup cgroup rw,pids
37 31 0:34 /box /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

func TestCgroupDirs(t *testing.T) {
	for name, c := range map[string]struct{ own, parent, mounts, want string }{
		"version 2": {"0::/berth/r1\n", "0::/shim\n", "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/berth/r1"},
		"hybrid": {
			"9:name=systemd:/berth/r1\n8:pids:/berth/r1\n6:freezer:/box/berth/r1\n2:cpu,cpuacct:/berth/r1\n0::/berth/r1\n", "0::/\n", hybridMounts,
			"/sys/fs/cgroup/systemd/berth/r1 /sys/fs/cgroup/my pids/berth/r1 /sys/fs/cgroup/freezer/berth/r1 /sys/fs/cgroup/cpu,cpuacct/berth/r1 /sys/fs/cgroup/unified/berth/r1",
		},
		"what was a dead shim's": {
			"9:name=systemd:/berth/r1/init.scope\n8:pids:/berth/r1\n3:cpu,cpuacct:/system.slice/containerd.service\n0::/system.slice\n", "8:pids:/\n0::/init.scope\n", hybridMounts,
			"/sys/fs/cgroup/systemd/berth/r1/init.scope /sys/fs/cgroup/my pids/berth/r1",
		},
		"an unknown hierarchy only": {"3:cpu,cpuacct:/system.slice/containerd.service\n", "", hybridMounts, ""},
		"roots":                     {"8:pids:/\n6:freezer:/box\n0::/\n", "", hybridMounts, ""},
		"what is the shim's too":    {"8:pids:/system.slice/containerd.service\n0::/r\n", "8:pids:/system.slice/containerd.service\n0::/\n", hybridMounts, "/sys/fs/cgroup/unified/r"},
		"beside the mount":          {"6:freezer:/boxes/r\n8:pids:/../r\n", "", hybridMounts, ""},
		"deleted, or not mounted":   {"8:pids:/r (deleted)\n5:rdma:/r\n", "", hybridMounts, ""},
		"what can't be made out of": {"x\n\n8:pids\n", "y", "z\n - \n1 2 3 - cgroup\n", ""},
	} {
		if got := strings.Join(cgroupDirs(c.own, c.parent, c.mounts), " "); got != c.want {
			t.Errorf("%s: %q\nwant %q", name, got, c.want)
		}
	}
}
