package guard

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ProcessStart is when a process started, in clock ticks since the boot: with
// the pid it names one process of this boot (field 22 of /proc/PID/stat,
// proc(5)).
func ProcessStart(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[statStart], 10, 64)
}

// Positions in /proc/PID/stat, after the name.
const (
	statParent = 1
	statStart  = 19
)

// statFields are those after the name, which may hold anything, brackets and
// spaces among it.
func statFields(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) <= statStart {
		return nil, fmt.Errorf("process %d: its stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// CgroupsOf gives the directories of a container's cgroups by its first process:
// one of each hierarchy, of either version, in which the container has one of
// its own. A runtime that doesn't know a controller leaves a container in the
// cgroup of its own shim there: so it leaves out root cgroups, those that the
// process's parent is in too, and those that aren't called as the container's in
// the hierarchies that every runtime knows. An error: the process is gone, or has
// no cgroup of its own anywhere.
func CgroupsOf(pid int) ([]string, error) {
	stat, err := statFields(pid)
	if err != nil {
		return nil, err
	}
	own, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	// A parent that is gone, or outside of this pid namespace, shares nothing.
	parent, _ := os.ReadFile("/proc/" + stat[statParent] + "/cgroup")
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	dirs := slices.DeleteFunc(cgroupDirs(string(own), string(parent), string(mounts)), func(dir string) bool {
		_, err := os.Stat(dir)
		return err != nil
	})
	if len(dirs) == 0 {
		return nil, fmt.Errorf("process %d: %w", pid, errNoCgroup)
	}
	return dirs, nil
}

var errNoCgroup = errors.New("it has no cgroup of its own")

// cgroupDirs joins /proc/PID/cgroup (cgroups(7)) with where the hierarchies are
// mounted.
func cgroupDirs(own, parents, mountinfo string) []string {
	shared := map[string]bool{}
	for line := range strings.Lines(parents) {
		shared[strings.TrimSpace(line)] = true
	}
	mounts := cgroupMounts(mountinfo)
	var found []foundCgroup
	for line := range strings.Lines(own) {
		line = strings.TrimSpace(line)
		parts := strings.SplitN(line, ":", 3)
		if len(parts) != 3 || shared[line] {
			continue
		}
		controller, _, _ := strings.Cut(parts[1], ",") // empty: version 2
		for _, m := range mounts {
			below, ok := m.below(parts[2])
			if ok && m.holds(controller) {
				found = append(found, foundCgroup{controller: controller, name: below, dir: filepath.Join(m.point, below)})
				break
			}
		}
	}
	name := nameOf(found)
	var dirs []string
	for _, f := range found {
		if name != "" && (f.name == name || strings.HasPrefix(f.name, name+"/")) && !slices.Contains(dirs, f.dir) {
			dirs = append(dirs, f.dir)
		}
	}
	return dirs
}

type foundCgroup struct {
	controller string // one of its hierarchy's
	name       string // below the mount
	dir        string
}

// known are the hierarchies that every runtime knows, the surest first.
var known = []string{"freezer", "pids", "memory", "devices", ""}

// nameOf is what the container's cgroup is called.
func nameOf(found []foundCgroup) string {
	for _, controller := range known {
		for _, f := range found {
			if f.controller == controller {
				return f.name
			}
		}
	}
	return ""
}

// cgroupMount is a mounted hierarchy, or a part of one.
type cgroupMount struct {
	root, point string
	controllers []string // the mount's options; nil: version 2
}

func (m *cgroupMount) holds(controller string) bool {
	if m.controllers == nil {
		return controller == ""
	}
	return slices.Contains(m.controllers, controller)
}

// below is a cgroup's path in this mount. The root of the mount counts as none:
// what is in it isn't one run's.
func (m *cgroupMount) below(path string) (string, bool) {
	if strings.HasPrefix(path, "/..") || strings.HasSuffix(path, " (deleted)") {
		return "", false
	}
	below := path
	if m.root != "/" {
		var ok bool
		if below, ok = strings.CutPrefix(path, m.root); !ok || below != "" && below[0] != '/' {
			return "", false
		}
	}
	return below, below != "" && below != "/"
}

// cgroupMounts reads /proc/self/mountinfo (proc(5)). Of two mounts of one
// hierarchy the first counts.
func cgroupMounts(mountinfo string) []cgroupMount {
	var mounts []cgroupMount
	lines := bufio.NewScanner(strings.NewReader(mountinfo))
	for lines.Scan() {
		head, tail, ok := strings.Cut(lines.Text(), " - ")
		where, what := strings.Fields(head), strings.Fields(tail)
		if !ok || len(where) < 5 || len(what) < 3 {
			continue
		}
		m := cgroupMount{root: unescape(where[3]), point: unescape(where[4])}
		switch what[0] {
		case "cgroup2":
		case "cgroup":
			m.controllers = strings.Split(what[2], ",")
		default:
			continue
		}
		mounts = append(mounts, m)
	}
	return mounts
}

var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func unescape(path string) string { return escapes.Replace(path) }
