package doctor

import (
	"bufio"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// daemonPid is the process that holds the data directory, 0 when none does or it
// can't be seen.
func (e *exam) daemonPid() int {
	pid, err := strconv.Atoi(e.read(filepath.Join(e.DataDir, "lock")))
	if err != nil || e.read(fmt.Sprintf("/proc/%d/comm", pid)) != "berthd" {
		return 0 // a lock file outlives its daemon
	}
	return pid
}

// privateMounts are the settings of a unit that give it a mount namespace of its
// own (systemd.exec(5)), and the values with which they don't.
var privateMounts = map[string][]string{
	"PrivateTmp": {"no"}, "PrivateDevices": {"no"}, "PrivateMounts": {"no"}, "PrivateIPC": {"no"}, "DynamicUser": {"no"},
	"ProtectSystem": {"no"}, "ProtectHome": {"no"}, "ProtectControlGroups": {"no"},
	"ProtectKernelTunables": {"no"}, "ProtectKernelModules": {"no"}, "ProtectKernelLogs": {"no"},
	"ProtectProc": {"default"}, "ProcSubset": {"all"},
	"ReadWritePaths": nil, "ReadOnlyPaths": nil, "InaccessiblePaths": nil, "ExecPaths": nil, "NoExecPaths": nil,
	"BindPaths": nil, "BindReadOnlyPaths": nil, "TemporaryFileSystem": nil,
	"MountFlags": {"0"}, "RootDirectory": nil, "RootImage": nil, "MountImages": nil, "ExtensionImages": nil,
}

func (e *exam) unit(ctx context.Context) {
	if !e.exists("/run/systemd/system") {
		e.ok("unit", "systemd isn't this host's first process: something else must start berthd after a reboot")
		return
	}
	said, err := e.Run(ctx, e.find("systemctl"), "show", "berthd.service")
	if err != nil {
		e.warn("unit", "systemctl status berthd", "the state of berthd.service is unknown: %v", err)
		return
	}
	p := properties(said)
	e.unitState(p)
	if p["LoadState"] != "loaded" {
		return
	}
	e.unitMounts(p)
	if mode := p["KillMode"]; mode != "process" {
		e.fail("unit-kill-mode", "KillMode=process in berthd.service, systemctl daemon-reload", "KillMode is %s: a stop of berthd takes the processes with it that containers need", mode)
	}
}

func properties(text string) map[string]string {
	p := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			p[name] = value
		}
	}
	return p
}

func (e *exam) unitState(p map[string]string) {
	switch {
	case p["LoadState"] != "loaded":
		e.warn("unit", "install berth's package, or a unit of your own", "there is no berthd.service (%s): nothing starts berthd after a reboot", p["LoadState"])
	case p["ActiveState"] == "failed":
		e.fail("unit", "journalctl -u berthd -e", "berthd.service has failed (%s)", p["Result"])
	case p["ActiveState"] != "active":
		e.warn("unit", "systemctl enable --now berthd", "berthd.service is %s", p["ActiveState"])
	case p["UnitFileState"] == "disabled":
		e.warn("unit", "systemctl enable berthd", "berthd.service is active, but not enabled: a reboot doesn't start it")
	default:
		e.ok("unit", "berthd.service is active, restarted %s times", p["NRestarts"])
	}
}

// unitMounts finds what would hide the volumes that berthd mounts from
// containerd: users would write into the bare directories below.
func (e *exam) unitMounts(p map[string]string) {
	var set []string
	for name, harmless := range privateMounts {
		if value := p[name]; value != "" && !slices.Contains(harmless, value) {
			set = append(set, name+"="+value)
		}
	}
	slices.Sort(set)
	if len(set) == 0 {
		e.ok("unit-mounts", "berthd.service has no setting that hides volumes from containerd")
		return
	}
	where := p["FragmentPath"]
	if p["DropInPaths"] != "" {
		where += " " + p["DropInPaths"]
	}
	e.fail("unit-mounts", "remove them from "+strings.TrimSpace(where)+", then systemctl daemon-reload && systemctl restart berthd",
		"berthd.service gets mounts of its own, which hide volumes from containerd: %s", strings.Join(set, ", "))
}

// mountNamespace looks at the process itself, whatever started it.
func (e *exam) mountNamespace(context.Context) {
	pid := e.daemonPid()
	if pid == 0 || e.UID != 0 {
		return // only root sees either
	}
	first, err1 := os.Readlink(e.path("/proc/1/ns/mnt"))
	own, err2 := os.Readlink(e.path(fmt.Sprintf("/proc/%d/ns/mnt", pid)))
	switch {
	case err1 != nil || err2 != nil:
		e.warn("mount-namespace", "", "which mounts berthd (pid %d) sees is unknown", pid)
	case first != own:
		e.fail("mount-namespace", "see unit-mounts; without systemd, see what starts it (unshare, a container)", "berthd (pid %d) has a mount namespace of its own: containerd doesn't see the volumes it mounts", pid)
	default:
		e.ok("mount-namespace", "berthd (pid %d) has the host's mounts", pid)
	}
}

const socketMode = "chown root:berth and chmod 0660 the socket, or restart berthd, which does; see berthd.socket where systemd makes it"

func (e *exam) controlSocket(context.Context) {
	info, err := os.Lstat(e.path(e.Socket))
	if err != nil {
		return // e.daemon tells
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode().Perm()
	switch {
	case info.Mode().Type() != fs.ModeSocket || !ok:
		e.fail("control-socket", "move it away", "%s isn't a socket", e.Socket)
	case mode&0o007 != 0:
		e.fail("control-socket", socketMode, "%s has mode %04o: every user of this host is root on it", e.Socket, mode)
	case mode&0o070 == 0:
		e.ok("control-socket", "%s is for its owner only (mode %04o)", e.Socket, mode)
	default:
		name, members := e.group(stat.Gid)
		if name == "berth" || stat.Gid == 0 {
			e.ok("control-socket", "%s is for group %s, which is root on this host; its members: %s", e.Socket, name, members)
		} else {
			e.warn("control-socket", socketMode, "%s is for group %s, not berth: its members are root on this host: %s", e.Socket, name, members)
		}
	}
}

func (e *exam) group(gid uint32) (name, members string) {
	for lines := bufio.NewScanner(strings.NewReader(e.read("/etc/group"))); lines.Scan(); {
		if f := strings.Split(lines.Text(), ":"); len(f) == 4 && f[2] == strconv.FormatUint(uint64(gid), 10) {
			if members = strings.ReplaceAll(f[3], ",", ", "); members == "" {
				members = "none"
			}
			return f[0], members
		}
	}
	return fmt.Sprintf("%d", gid), "unknown"
}

func (e *exam) daemon(ctx context.Context) {
	if e.Daemon == nil {
		return
	}
	if !e.exists(e.Socket) {
		if e.UID != 0 {
			e.warn("berthd", asRoot, "berthd doesn't run here, or this user may not see %s", e.Socket)
			return
		}
		e.warn("berthd", "systemctl start berthd, or berthd by hand", "berthd doesn't run here: there is no %s", e.Socket)
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d, err := e.Daemon(ctx)
	switch {
	case err != nil && e.UID != 0:
		e.warn("berthd", asRoot, "berthd can't be asked by this user on %s: %v", e.Socket, err)
	case err != nil:
		e.fail("berthd", "see why: systemctl status berthd; journalctl -u berthd -e", "berthd doesn't answer on %s: %v", e.Socket, err)
	case d.Node == "":
		e.warn("berthd", "berth events", "berthd %s answers, but its node isn't in the cluster yet", d.Version)
	case !d.Ready:
		e.fail("berthd", "berth node get "+d.Node, "berthd %s answers, but node %s takes no work: %s: %s", d.Version, d.Node, d.Reason, d.Message)
	default:
		e.ok("berthd", "berthd %s answers, and node %s is ready", d.Version, d.Node)
	}
}
