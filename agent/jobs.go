package agent

import (
	"context"
	"time"
)

// job is work that takes long, beside a worker's loop, so that a stop or the end
// of the process doesn't wait for it.
type job struct {
	cancel  context.CancelFunc
	off     bool // called off by the loop
	deliver func(in input)
}

// beside does work in a goroutine. What it gives back is done in the loop, in
// any case: a step that must not meet the work waits for that.
func (w *worker) beside(ctx context.Context, limit time.Duration, work func(ctx context.Context, j *job) func(in input)) *job {
	ctx, cancel := context.WithTimeout(ctx, limit)
	j := &job{cancel: cancel}
	w.agent.group.Go(func() error {
		defer cancel()
		j.deliver = work(ctx, j)
		w.results <- j // has room for one of each kind
		return nil
	})
	return j
}

// callOff ends a job soon; nil is none.
func (j *job) callOff() {
	if j != nil {
		j.off = true
		j.cancel()
	}
}

// useless: nobody wants what the job has got.
func (j *job) useless(in *input) bool {
	return j.off || in.assignment == nil || in.unwanted()
}

// callOffJobs ends what the run doesn't need any more.
func (w *worker) callOffJobs(in *input) {
	unwanted := in.assignment == nil || in.unwanted()
	if unwanted {
		w.preparing.callOff()
	}
	if unwanted || in.container == nil || in.container.Pid == 0 {
		w.probing.callOff()
	}
}
