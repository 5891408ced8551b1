package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"berth/workspace"
)

const (
	startWarmUps = 2
	startRounds  = 20
	createRounds = 20

	// What the started instance and its counterpart have besides a GPU.
	volumePath    = "/data"
	volumeMiB     = 64
	containerPort = 8888
)

// measureStarts starts a stopped instance, with a volume that exists, a network
// and a published port, through the API and, in turns with it, the same container
// through containerd's client alone. Both end when the container's own process
// says that it began.
func (h *host) measureStarts(ctx context.Context) ([]result, error) {
	if _, err := h.client.CreateInstance(ctx, newInstance("box", false)); err != nil {
		return nil, err
	}
	alone, err := h.openAlone(ctx)
	if err != nil {
		return nil, err
	}
	var running, shown, after, baseline, bare []time.Duration
	for i := range startWarmUps + startRounds {
		took, err := h.startInstance(ctx, "box", alone)
		if err != nil {
			return nil, fmt.Errorf("through berth: %w", err)
		}
		id := fmt.Sprintf("bench-%d-%d", os.Getpid(), i)
		plain, err := alone.start(ctx, id, false)
		if err != nil {
			return nil, fmt.Errorf("through containerd alone: %w", err)
		}
		least, err := alone.start(ctx, id+"-bare", true)
		if err != nil {
			return nil, fmt.Errorf("through containerd alone, bare: %w", err)
		}
		if i >= startWarmUps {
			running, shown, after = append(running, took.running), append(shown, took.shown), append(after, took.shown-took.running)
			baseline, bare = append(baseline, plain), append(bare, least)
		}
	}
	const containersOwn = 20 // ms that berth may need beyond the container's own time
	base := median(baseline)
	return []result{
		newResult("start: request until its process runs", median(running), "ms").beside(base).ratioAtMost(1.15),
		newResult("start: … beside one without network and volume", median(running), "ms").beside(median(bare)),
		newResult("start: request until shown as RUNNING", median(shown), "ms").beside(base).atMost(base + containersOwn),
		newResult("start: its process runs until shown as RUNNING", median(after), "ms").atMost(containersOwn),
	}, nil
}

type startTimes struct{ running, shown time.Duration }

// startInstance starts a stopped instance, waits until it is shown as running,
// and stops it again.
func (h *host) startInstance(ctx context.Context, name string, alone *alone) (startTimes, error) {
	began := time.Now()
	inst, err := h.client.StartInstance(ctx, name)
	if err != nil {
		return startTimes{}, err
	}
	inst, err = h.client.Wait(ctx, inst.ID, "running", patience, nil)
	if err != nil {
		return startTimes{}, err
	}
	took := startTimes{shown: time.Since(began)}
	process, err := h.processBegan(ctx, filepath.Join(h.data(), "logs", inst.Run+".log"))
	if err != nil {
		return startTimes{}, err
	}
	took.running = process.Sub(began)
	if alone.spec == nil {
		if err := alone.copySpec(ctx, inst.Run); err != nil {
			return startTimes{}, err
		}
	}
	if _, err := h.client.StopInstance(ctx, name); err != nil {
		return startTimes{}, err
	}
	return took, h.runIsOver(ctx, inst.Run)
}

// processBegan reads what the stamp program wrote.
func (h *host) processBegan(ctx context.Context, log string) (time.Time, error) {
	var began time.Time
	err := h.until(ctx, "the container's process writes "+log, func(context.Context) error {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		line, _, whole := strings.Cut(string(text), "\n")
		if !whole {
			return errors.New("it has no line yet")
		}
		ns, err := strconv.ParseInt(line, 10, 64)
		began = time.Unix(0, ns)
		return err
	})
	return began, err
}

func (h *host) runIsOver(ctx context.Context, id string) error {
	return h.until(ctx, "the run is over", func(ctx context.Context) error {
		run, err := h.client.Run(ctx, id)
		if err == nil && (!run.Phase.Terminal() || run.Unreleased) {
			err = fmt.Errorf("run %s is %s", id, run.Phase)
		}
		return err
	})
}

func newInstance(name string, start bool) workspace.NewInstance {
	gpus, cpu, memory, storage := 1, int64(1000), int64(512), int64(volumeMiB)
	return workspace.NewInstance{
		Name: name, Start: &start, Template: workspace.TemplateChoice{Name: "bench"},
		Resources: workspace.ResourceRequest{GPUCount: &gpus, CPUMilli: &cpu, MemoryMiB: &memory, StorageMiB: &storage},
	}
}

// measureCreates creates instances that start at once, one after the other.
// Placed is when a read of the run shows its node.
func (h *host) measureCreates(ctx context.Context) ([]result, error) {
	var acknowledged, placed []time.Duration
	for i := range createRounds {
		began := time.Now()
		inst, err := h.client.CreateInstance(ctx, newInstance(fmt.Sprintf("new-%d", i), true))
		if err != nil {
			return nil, err
		}
		acknowledged = append(acknowledged, time.Since(began))
		run, err := h.client.Run(ctx, inst.Run)
		if err != nil {
			return nil, err
		}
		if run.Node == "" {
			return nil, fmt.Errorf("run %s wasn't placed by the entry that made it: %s (%s)", run.ID, run.Phase, run.Message)
		}
		placed = append(placed, time.Since(began))
		if _, err := h.client.Wait(ctx, inst.ID, "running", patience, nil); err != nil {
			return nil, err
		}
		if _, err := h.client.DeleteInstance(ctx, inst.ID); err != nil {
			return nil, err
		}
		if _, err := h.client.Wait(ctx, inst.ID, "deleted", patience, nil); err != nil {
			return nil, err
		}
	}
	return []result{
		newResult("create: acknowledged, p50", median(acknowledged), "ms").atMost(5),
		newResult("create: placed, p50", median(placed), "ms").atMost(10),
	}, nil
}
