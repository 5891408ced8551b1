package doctor

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// Limits of disk and memory. The reserve and the high water are berthd's
// defaults: below the one nothing is placed, above the other images go.
const (
	diskReserve  = 10 * gib
	diskLeast    = 1 * gib
	highWater    = 85 // percent
	inodesInUse  = 95 // percent
	memoryLeast  = 2 * gib
	slowestFsync = 20 * time.Millisecond
	fewestFiles  = 65536
)

// Kinds of file system.
var (
	networkTypes  = []string{"nfs", "cifs", "smb2", "ceph", "9p", "afs", "lustre", "gpfs", "fuse"}
	fleetingTypes = []string{"tmpfs", "ramfs"}
)

func (e *exam) disks(context.Context) {
	data := e.disk("disk-data", e.DataDir)
	if data != nil {
		e.raftDisk(data.Type)
	}
	root := e.containerdRoot()
	if images := e.disk("disk-images", root); images != nil {
		if slices.Contains(append(networkTypes, "overlay"), images.Type) {
			e.fail("disk-images-type", "put containerd's root (root in /etc/containerd/config.toml) on a local disk with ext4 or xfs",
				"%s is on %s, where containers' files can't be layered", root, images.Type)
		} else {
			e.ok("disk-images-type", "%s is on %s", root, images.Type)
		}
	}
}

// disk judges how much is left, and gives the file system unless that is
// unknown.
func (e *exam) disk(name, dir string) *Filesystem {
	place := e.nearest(dir)
	fs, err := e.Statfs(place)
	if err != nil {
		e.warn(name, "", "the disk of %s is unknown: %v", dir, err)
		return nil
	}
	free := fmt.Sprintf("%s: %s of %s are free", dir, bytesText(fs.Free), bytesText(fs.Size))
	room := "make room, or move it to a larger disk"
	switch {
	case fs.Inodes > 0 && fs.FreeInodes == 0:
		e.fail(name, "remove files, or make the file system anew with more inodes", "%s has no inodes left", dir)
	case fs.Free < diskLeast:
		e.fail(name, room, "%s", free)
	case fs.Free < diskReserve:
		e.warn(name, room, "%s, less than the %s that berthd reserves: no storage can be offered", free, bytesText(diskReserve))
	case fs.Inodes > 0 && (fs.Inodes-fs.FreeInodes)*100/fs.Inodes >= inodesInUse:
		e.warn(name, "remove files, or make the file system anew with more inodes", "%s has used %d of %d inodes", dir, fs.Inodes-fs.FreeInodes, fs.Inodes)
	case fs.Size > 0 && (fs.Size-min(fs.Free, fs.Size))*100/fs.Size >= highWater:
		e.warn(name, room, "%s: above %d %% in use berthd removes pulled images that nothing uses", free, highWater)
	default:
		e.ok(name, "%s", free)
	}
	return &fs
}

// raftDisk judges the file system of the log: an acknowledged write must be on a
// disk of this host.
func (e *exam) raftDisk(kind string) {
	local := "put it on a local disk with ext4 or xfs (data_dir in /etc/berth/berthd.toml)"
	switch {
	case slices.Contains(networkTypes, kind):
		e.warn("disk-data-type", local, "%s is on %s: a server's log and volumes need a local disk", e.DataDir, kind)
	case kind == "overlay":
		e.warn("disk-data-type", local, "%s is on overlay, as in a container: what is written there goes with it", e.DataDir)
	case slices.Contains(fleetingTypes, kind):
		e.warn("disk-data-type", local, "%s is on %s: a reboot takes the cluster's state", e.DataDir, kind)
	default:
		e.ok("disk-data-type", "%s is on %s", e.DataDir, kind)
	}
}

var rootLine = regexp.MustCompile(`(?m)^\s*root\s*=\s*["']([^"']+)["']`)

// containerdRoot is where the containerd that is used has images and containers.
func (e *exam) containerdRoot() string {
	if c := e.choice(); c.Own || c.Address == "" && !e.exists(hostContainerd) {
		return filepath.Join(e.DataDir, "containerd", "root")
	}
	if m := rootLine.FindStringSubmatch(e.read("/etc/containerd/config.toml")); m != nil {
		return m[1]
	}
	return "/var/lib/containerd"
}

func (e *exam) fsync(context.Context) {
	if e.needsRoot("fsync") {
		return
	}
	dir := e.nearest(e.DataDir)
	took, err := e.Sync(dir)
	if err != nil || len(took) == 0 {
		e.warn("fsync", "see whether the disk is full or read-only: df "+dir+"; dmesg", "4 KiB can't be written to %s: %v", dir, err)
		return
	}
	slices.Sort(took)
	median := took[len(took)/2].Round(10 * time.Microsecond)
	if median > slowestFsync {
		e.warn("fsync", "put the data directory on a faster disk (SSD or NVMe with power-loss protection): every change waits for it",
			"until 4 KiB are on the disk of %s takes %v (median of %d), more than %v", dir, median, len(took), slowestFsync)
		return
	}
	e.ok("fsync", "until 4 KiB are on the disk of %s takes %v (median of %d)", dir, median, len(took))
}

func (e *exam) memory(context.Context) {
	sizes := map[string]uint64{}
	for line := range strings.Lines(e.read("/proc/meminfo")) {
		name, rest, _ := strings.Cut(line, ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			n, _ := strconv.ParseUint(fields[0], 10, 64) // 0 is unknown
			sizes[name] = n * kib
		}
	}
	total, available := sizes["MemTotal"], sizes["MemAvailable"]
	switch {
	case total == 0:
		e.warn("memory", "", "the size of the memory is unknown: /proc/meminfo doesn't say")
	case total < memoryLeast:
		e.warn("memory", "lower [reserve] memory_mib in /etc/berth/berthd.toml, or add memory",
			"%s of memory: berthd reserves 1.0 GiB of it for the host", bytesText(total))
	case available < total/20:
		e.warn("memory", "see what uses it: ps aux --sort -rss", "%s of %s of memory are available", bytesText(available), bytesText(total))
	default:
		e.ok("memory", "%s of %s are available", bytesText(available), bytesText(total))
	}
}

func (e *exam) clock(context.Context) {
	c, err := e.Clock()
	switch {
	case err != nil:
		e.warn("clock", "", "whether the clock is synchronised is unknown: %v", err)
	case !c.Synchronised:
		e.warn("clock", "apt install chrony (or systemd-timesyncd), and see chronyc tracking or timedatectl",
			"the clock isn't synchronised: in a cluster of several servers this one can't lead, and times that it shows may be wrong")
	default:
		e.ok("clock", "synchronised, to within %v as the kernel estimates", c.MaxError.Round(time.Millisecond))
	}
}

// openFiles judges the limit of the daemon, or without one that of this process,
// which a daemon started by hand would have.
func (e *exam) openFiles(context.Context) {
	who, limits := "berthd", e.read(fmt.Sprintf("/proc/%d/limits", e.daemonPid()))
	if limits == "" {
		who, limits = "a process of this user", e.read("/proc/self/limits")
	}
	for line := range strings.Lines(limits) {
		rest, ok := strings.CutPrefix(line, "Max open files")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 2 {
			continue
		}
		if hard, err := strconv.Atoi(fields[1]); err == nil && hard < fewestFiles {
			e.warn("open-files", "LimitNOFILE=1048576 in berthd.service, or ulimit -Hn 1048576", "%s may open %d files, each connection and log takes one; %d or more are wanted", who, hard, fewestFiles)
			return
		}
		e.ok("open-files", "%s may open %s files", who, fields[1])
		return
	}
	e.warn("open-files", "", "the limit of open files is unknown: /proc doesn't say")
}

func bytesText(n uint64) string {
	if n >= gib {
		return fmt.Sprintf("%.1f GiB", float64(n)/gib)
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/mib)
}
