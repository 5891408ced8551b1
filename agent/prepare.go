package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"berth/runtime"
	"berth/workspace"
)

// prepared is what a container is made on.
type prepared struct {
	volume  string // directory of this host, empty: none
	results string // directory of the run's results on the volume, empty: it couldn't be made
	network runtime.Attachment
	notices string // directory of its notice, empty: none
}

// prepare mounts the run's volume and attaches its network, both at once and
// beside the loop. Its error is one of the disk.
func (w *worker) prepare(ctx context.Context, in input) error {
	a, assignment := w.agent, in.assignment
	a.mu.Lock()
	w.waiting = true // from before the question, lest the answer to it comes too late
	a.mu.Unlock()
	if other := a.uses.take(w.run, usesOf(assignment)...); other != "" {
		w.explain(in, reasonInUse, fmt.Sprintf("it waits for %s, which still has its volume or its ports", other))
		w.retryLater("prepare", fmt.Errorf("in use by %s", other))
		return nil
	}
	a.mu.Lock()
	w.waiting = false
	a.mu.Unlock()
	ports, err := w.hostPorts(assignment, moving{})
	if errors.Is(err, errNoPorts) {
		w.fail(in, "prepare", &failure{reason: reasonNoPort, message: "node " + a.cfg.Facts.Name + " has no port left to publish the run's at", err: err})
		return nil
	} else if err != nil {
		return err
	}
	w.progress.attached, w.progress.mounted = true, volumeOf(assignment)
	image := w.progress.image
	w.preparing = w.beside(ctx, prepareTimeout, func(ctx context.Context, j *job) func(input) {
		var on prepared
		var moved map[string]int
		var noVolume, noNetwork *failure
		var both sync.WaitGroup
		both.Go(func() { noVolume = w.mount(ctx, assignment, image, &on) })
		noNetwork, moved = w.attach(ctx, assignment, ports, &on)
		both.Wait()
		return func(in input) {
			w.preparing = nil
			if !j.useless(&in) {
				w.madeReady(in, &on, moved, noVolume, noNetwork)
			}
		}
	})
	return nil
}

// madeReady takes what prepare has got.
func (w *worker) madeReady(in input, on *prepared, moved map[string]int, failures ...*failure) {
	for name, port := range moved {
		message := fmt.Sprintf("its port %s is published at %d from now on: something else on node %s has the one it had",
			name, port, w.agent.cfg.Facts.Name)
		w.agent.cfg.Log.Warn("a port of a run is taken; it gets another", "run", w.run, "port", name, "host_port", port)
		w.explain(in, reasonPortMoved, message)
		w.progress.moved += "; " + message // who looks for it at its old port looks when it runs
	}
	failures = slices.DeleteFunc(failures, func(f *failure) bool { return f == nil })
	slices.SortStableFunc(failures, func(x, y *failure) int { // what ends the run comes first
		switch {
		case x.final == y.final:
			return 0
		case x.final:
			return -1
		}
		return 1
	})
	if len(failures) > 0 {
		w.notReady(in, failures[0])
		return
	}
	w.succeeded()
	w.progress.prepared = on
}

func (w *worker) notReady(in input, f *failure) {
	switch {
	case errors.Is(f.err, errNoImageUser) && away(f.err):
		w.runtimeDown(in, f.err)
	case errors.Is(f.err, errNoImageUser):
		w.progress.image = "" // it has gone: look again
		w.fail(in, "read the image's user", f)
	default:
		w.fail(in, "prepare", f)
	}
}

// attach connects the run's network. A port that something else has is
// published elsewhere: moved says which.
func (w *worker) attach(ctx context.Context, a *workspace.Assignment, host map[string]int, on *prepared) (f *failure, moved map[string]int) {
	attachment, err := w.attachWith(ctx, a, host)
	if errors.Is(err, runtime.ErrPortTaken) {
		attachment, moved, err = w.attachElsewhere(ctx, a, host, err)
	}
	if err != nil {
		return networkFailure(w.agent.cfg.Facts.Name, err), nil
	}
	on.network = attachment
	w.agent.cfg.Crash(crashAfterAttach)
	return nil, moved
}

func (w *worker) attachWith(ctx context.Context, a *workspace.Assignment, host map[string]int) (runtime.Attachment, error) {
	ctx, cancel := context.WithTimeout(ctx, actionTimeout)
	defer cancel()
	ports, err := publishedPorts(a, w.agent.cfg.Publish.Address, host)
	if err != nil {
		return runtime.Attachment{}, err
	}
	return w.agent.cfg.Networks.Attach(ctx, runtime.NetworkSpec{ID: w.run, Hostname: a.Name, Ports: ports})
}

// attachElsewhere finds the port that is taken by moving one after the other,
// and gives up when moving any of them and then all makes no difference.
func (w *worker) attachElsewhere(ctx context.Context, a *workspace.Assignment, host map[string]int, taken error) (runtime.Attachment, map[string]int, error) {
	var tries [][]string
	var all []string
	for _, port := range a.Spec.Ports {
		tries = append(tries, []string{port.Name})
		all = append(all, port.Name)
	}
	if len(all) > 1 {
		tries = append(tries, all)
	}
	for _, names := range tries {
		other, err := w.hostPorts(a, moving{host, names})
		if err != nil {
			return runtime.Attachment{}, nil, err
		}
		attachment, err := w.attachWith(ctx, a, other)
		if err == nil {
			moved := map[string]int{}
			for name, port := range other {
				if host[name] != port {
					moved[name] = port
				}
			}
			return attachment, moved, nil
		}
		if !errors.Is(err, runtime.ErrPortTaken) {
			return runtime.Attachment{}, nil, err
		}
	}
	return runtime.Attachment{}, nil, taken
}

// hostPorts are the ports of this host for those of the run.
func (w *worker) hostPorts(a *workspace.Assignment, move moving) (map[string]int, error) {
	if len(a.Spec.Ports) == 0 {
		return nil, nil
	}
	return w.agent.ledger.publish(a, w.agent.cfg.Publish, move, func(owner string) bool {
		return w.agent.uses.has(useInstance(owner), useNetwork(owner))
	})
}

func networkFailure(node string, err error) *failure {
	f := &failure{err: err, reason: reasonNetwork, message: "its network can't be made on node " + node}
	switch {
	case errors.Is(err, runtime.ErrInvalid):
		f.final = true
	case errors.Is(err, runtime.ErrNoAddress):
		f.reason, f.message = reasonNoAddress, "every address of the containers' network of node "+node+" is in use; enlarge [network] subnet there"
	case errors.Is(err, runtime.ErrPortTaken), errors.Is(err, errNoPorts):
		f.reason, f.message = reasonNoPort, "node "+node+" has no free port to publish the run's at; enlarge [network] port_range there"
	}
	return f
}
