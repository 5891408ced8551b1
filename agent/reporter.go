package agent

import (
	"context"
	"errors"
	"sync"

	"berth/workspace"
)

// reporter tells the cluster what the agent has seen: in order, nothing lost,
// as few batches as the cluster keeps up with, and off the path of a start.
// What has only a latest value (facts, images, …) is sent as its latest.
type reporter struct {
	agent *Agent
	wake  chan struct{}

	mu       sync.Mutex
	queue    workspace.Report // not handed over yet
	added    uint64           // number of the latest addition
	recorded uint64           // all additions up to it are recorded
	change   chan struct{}    // closed when recorded rises
}

func newReporter(a *Agent) *reporter {
	return &reporter{agent: a, wake: make(chan struct{}, 1), change: make(chan struct{})}
}

// add queues what part holds.
func (r *reporter) add(part workspace.Report) {
	r.mu.Lock()
	r.queue = merge(r.queue, part)
	r.added++
	r.mu.Unlock()
	nudge(r.wake)
}

// flush waits until everything added so far is recorded.
func (r *reporter) flush(ctx context.Context) error {
	r.mu.Lock()
	target := r.added
	for r.recorded < target {
		change := r.change
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-change:
		}
		r.mu.Lock()
	}
	r.mu.Unlock()
	return nil
}

// run sends until ctx ends. A batch that fails is sent again with what came
// since behind it.
func (r *reporter) run(ctx context.Context) error {
	for failures := 0; ctx.Err() == nil; {
		batch, upTo := r.take()
		if upTo == 0 {
			select {
			case <-ctx.Done():
			case <-r.wake:
			}
			continue
		}
		batch.Node, batch.Stamp = r.agent.cfg.Node, r.agent.stamp()
		if err := r.agent.cfg.Cluster.Report(ctx, batch); err != nil {
			r.putBack(batch)
			failures++
			r.agent.stats.reportFailures.Add(1)
			r.agent.warn("the cluster didn't take a report; it will be sent again", err)
			sleep(ctx, backOff(failures), nil)
			continue
		}
		failures = 0
		r.done(upTo)
		r.crash(batch)
	}
	return nil
}

// take empties the queue. The number is that of its latest addition, 0 when
// there is nothing to send.
func (r *reporter) take() (workspace.Report, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.recorded == r.added {
		return workspace.Report{}, 0
	}
	batch := r.queue
	r.queue = workspace.Report{}
	return batch, r.added
}

func (r *reporter) putBack(batch workspace.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue = merge(batch, r.queue)
}

func (r *reporter) done(upTo uint64) {
	r.agent.stats.reports.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recorded = upTo
	close(r.change)
	r.change = make(chan struct{})
}

func (r *reporter) crash(recorded workspace.Report) {
	for _, run := range recorded.Runs {
		if run.Phase == workspace.PhaseRunning {
			r.agent.cfg.Crash(crashAfterRunning)
		}
	}
	if len(recorded.Released) > 0 {
		r.agent.cfg.Crash(crashAfterRelease)
	}
}

// merge puts later behind earlier. Of several reports of one run in the same
// phase the latest stands for all, so that the queue stays small while the
// cluster is away.
func merge(earlier, later workspace.Report) workspace.Report {
	latest(&earlier.Facts, later.Facts)
	latest(&earlier.Devices, later.Devices)
	latest(&earlier.Images, later.Images)
	latest(&earlier.Ready, later.Ready)
	latest(&earlier.Orphans, later.Orphans)
	for _, run := range later.Runs {
		earlier.Runs = appendRun(earlier.Runs, run)
	}
	earlier.Released = append(earlier.Released, later.Released...)
	earlier.Health = append(earlier.Health, later.Health...)
	earlier.Volumes = append(earlier.Volumes, later.Volumes...)
	earlier.Expired = append(earlier.Expired, later.Expired...)
	return earlier
}

func latest[T any](value **T, later *T) {
	if later != nil {
		*value = later
	}
}

func appendRun(runs []workspace.RunReport, next workspace.RunReport) []workspace.RunReport {
	for i := len(runs) - 1; i >= 0; i-- {
		if runs[i].Run != next.Run {
			continue
		}
		if runs[i].Phase == next.Phase {
			runs[i] = next
			return runs
		}
		break
	}
	return append(runs, next)
}

// warn logs a failure that will be tried again; the failures that the agent's
// own stopping makes are none.
func (a *Agent) warn(message string, err error, args ...any) {
	if !errors.Is(err, context.Canceled) {
		a.cfg.Log.Warn(message, append(args, "error", err)...)
	}
}
