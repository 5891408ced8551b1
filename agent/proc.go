package agent

import (
	"fmt"
	"os"
	"strings"
)

// procProcess is what /proc says of a process.
func procProcess(pid int) (Process, bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	cgroup, err := os.ReadFile(dir + "cgroup")
	if err != nil {
		return Process{}, false
	}
	command, err := os.ReadFile(dir + "comm")
	return Process{Command: strings.TrimSpace(string(command)), Cgroup: string(cgroup)}, err == nil
}
