package main

import (
	"context"
	"errors"
	"fmt"
	"os"
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

// measureIdle lets the daemon that was started last alone.
func (h *host) measureIdle(ctx context.Context) ([]result, error) {
	if err := h.leaveAlone(ctx, idleSettle); err != nil {
		return nil, err
	}
	memory, err := h.memory()
	if err != nil {
		return nil, err
	}
	before, err := h.cpuTime()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := h.leaveAlone(ctx, idleWatch); err != nil {
		return nil, err
	}
	after, err := h.cpuTime()
	if err != nil {
		return nil, err
	}
	return []result{
		newResult("idle berthd: resident memory", memory["VmRSS"], "MiB").atMost(60),
		newResult("idle berthd: CPU", 100*(after-before).Seconds()/time.Since(began).Seconds(), "% of a core").atMost(0.5),
	}, nil
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

// memory reads berthd's sizes in MiB, by their names in its status file.
func (h *host) memory() (map[string]float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.daemon.Process.Pid))
	if err != nil {
		return nil, err
	}
	sizes := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		var name string
		var kib float64
		if n, _ := fmt.Sscanf(line, "%s %f kB", &name, &kib); n == 2 {
			sizes[strings.TrimSuffix(name, ":")] = kib / 1024
		}
	}
	return sizes, nil
}

// cpuTime is what berthd has used since it began.
func (h *host) cpuTime() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", h.daemon.Process.Pid))
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
