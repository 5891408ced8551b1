package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	restarts   = 5
	idleSettle = 20 * time.Second
	idleWatch  = 30 * time.Second
)

// measureFirstLeader restarts berthd on its data directory.
func (h *host) measureFirstLeader(ctx context.Context) ([]result, error) {
	var times []time.Duration
	for range restarts {
		if err := h.stopDaemon(); err != nil {
			return nil, err
		}
		took, err := h.startDaemon(ctx)
		if err != nil {
			return nil, err
		}
		times = append(times, took)
	}
	return []result{newResult("first leader: exec until /readyz", median(times)/1000, "s").atMost(1)}, nil
}

// measureIdle lets a berthd alone: the one that was started last, which has
// simulated GPUs, and then one that reads as many by NVML.
func (h *host) measureIdle(ctx context.Context) ([]result, error) {
	simulated, err := h.idle(ctx)
	if err != nil {
		return nil, err
	}
	if err := h.changeToNVML(ctx); err != nil {
		return nil, err
	}
	driver, err := h.idle(ctx)
	if err != nil {
		return nil, err
	}
	if driver.processes != 2 {
		return nil, fmt.Errorf("berthd and its child that reads the GPUs are %d processes", driver.processes)
	}
	return []result{
		newResult("idle berthd: memory", simulated.mib, "MiB").atMost(60),
		newResult("idle berthd: CPU", simulated.percent, "% of a core").atMost(0.5),
		newResult("idle berthd + NVML child: memory", driver.mib, "MiB").atMost(60),
		newResult("idle berthd + NVML child: CPU", driver.percent, "% of a core").atMost(0.5),
	}, nil
}

// idleness is what a berthd and its child processes use together.
type idleness struct {
	processes    int
	mib, percent float64
}

func (h *host) idle(ctx context.Context) (idleness, error) {
	if err := h.leaveAlone(ctx, idleSettle); err != nil {
		return idleness{}, err
	}
	pids, err := h.processes()
	if err != nil {
		return idleness{}, err
	}
	use := idleness{processes: len(pids)}
	var before, after time.Duration
	for _, pid := range pids {
		mib, err := memory(pid)
		used, err2 := cpuTime(pid)
		if err := errors.Join(err, err2); err != nil {
			return idleness{}, err
		}
		use.mib += mib
		before += used
	}
	began := time.Now()
	if err := h.leaveAlone(ctx, idleWatch); err != nil {
		return idleness{}, err
	}
	for _, pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return idleness{}, err
		}
		after += used
	}
	use.percent = 100 * (after - before).Seconds() / time.Since(began).Seconds()
	return use, nil
}

func (h *host) leaveAlone(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-h.ended:
		return h.lastWords()
	}
}

// processes are berthd and its children.
func (h *host) processes() ([]int, error) {
	pids := []int{h.daemon.Process.Pid}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[0]))
	if err != nil {
		return nil, err
	}
	for _, path := range lists {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) { // the thread has ended
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, field := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(field)
			if err != nil {
				return nil, err
			}
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// memory is a process's share of the memory that it has, in MiB: a page that two
// processes have counts half for each. berthd and its child are one program, so
// the sum of what each has by itself would count the program twice.
func memory(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "Pss: %f kB", &kib); n == 1 {
			return kib / 1024, nil
		}
	}
	return 0, fmt.Errorf("the memory of process %d isn't known: %s", pid, text)
}

// cpuTime is what a process has used since it began.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, which may hold blanks, ends with the last parenthesis.
	fields := strings.Fields(string(text[strings.LastIndex(string(text), ")")+1:]))
	const userTicks, systemTicks, perSecond = 11, 12, 100
	user, err := strconv.Atoi(fields[userTicks])
	system, err2 := strconv.Atoi(fields[systemTicks])
	return time.Duration(user+system) * time.Second / perSecond, errors.Join(err, err2)
}
