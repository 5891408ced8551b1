package api

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"berth/gpu"
	"berth/workspace"
)

type listReadingsInput struct {
	Paging
	Node string `query:"node" doc:"id or host name"`
}

// readingTime bounds how long a node takes to answer; its driver may hang.
const readingTime = 5 * time.Second

// listReadings asks the nodes: what devices measure is in no state. A node that
// doesn't answer has none, unless it is the one that was asked for.
func (a *API) listReadings(ctx context.Context, in *listReadingsInput) (*pageAnswer[gpu.Reading], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	var readings []*gpu.Reading
	if in.Node != "" {
		var n *workspace.Node
		if n, err = r.node(in.Node); err == nil {
			readings, err = a.nodeReadings(ctx, n.ID)
		}
		if err != nil {
			return nil, err
		}
	} else {
		readings = a.allReadings(ctx, r)
	}
	slices.SortFunc(readings, func(x, y *gpu.Reading) int { return cmp.Compare(x.UUID, y.UUID) })
	return paged(a, r, "readings", &in.Paging, slices.Values(readings), func(x *gpu.Reading) string { return x.UUID })
}

func (a *API) allReadings(ctx context.Context, r *reader) []*gpu.Reading {
	var mu sync.Mutex
	var all []*gpu.Reading
	var nodes sync.WaitGroup
	for n := range r.Nodes() {
		nodes.Go(func() {
			readings, err := a.nodeReadings(ctx, n.ID)
			if err != nil {
				a.log.Debug("a node gives no readings", "node", n.ID, "err", err)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, readings...)
		})
	}
	nodes.Wait()
	return all
}

func (a *API) nodeReadings(ctx context.Context, node string) ([]*gpu.Reading, error) {
	agent, err := a.cluster.Node(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, readingTime)
	defer cancel()
	readings, err := agent.Readings(ctx)
	out := make([]*gpu.Reading, 0, len(readings))
	for i := range readings {
		out = append(out, &readings[i])
	}
	return out, err
}
