package main

import (
	"context"
	"fmt"
	"time"

	"berth/state"
	"berth/workspace"
)

const (
	crowdHosts  = 10
	crowdOnHost = 1000
	endedRuns   = 100_000
	moneyRounds = 2000
)

// measureMoney applies starts among 10 000 active runs, without and with budgets
// and prices, renews the leases of all of them, and asks for the usage of a
// workspace with 100 000 ended runs.
func measureMoney(ctx context.Context) ([]result, error) {
	r := &replica{store: state.New(), clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	free, err := r.fill(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.crowd(ctx); err != nil {
		return nil, err
	}
	without, err := r.starts(ctx, free)
	if err != nil {
		return nil, err
	}
	if err := r.limitMoney(); err != nil {
		return nil, err
	}
	with, err := r.starts(ctx, free)
	if err != nil {
		return nil, err
	}
	renewals, err := r.renewals()
	if err != nil {
		return nil, err
	}
	usage, query, err := measureUsage(ctx)
	if err != nil {
		return nil, err
	}
	return []result{
		newResult("Apply of a start among 10 000 runs, median", 1000*median(without), "µs"),
		newResult("the same under four budgets and prices", 1000*median(with), "µs").beside(1000 * median(without)),
		newResult("renewal of 10 000 leases, 1 000 an entry", median(renewals), "ms").atMost(20),
		newResult("usage of a workspace with 100 000 ended runs", median(usage), "ms").atMost(5),
		newResult("the same by user and day", median(query), "ms").atMost(5),
	}, nil
}

// crowd has 1 000 runs on each of ten hosts.
func (r *replica) crowd(ctx context.Context) error {
	enough := 2 * crowdHosts * crowdOnHost
	if err := r.apply(&state.UpdateWorkspace{ID: "lab", MaxConcurrentRuns: &enough}); err != nil {
		return err
	}
	for h := range crowdHosts {
		host := crowdHost(h)
		facts := &workspace.NodeFacts{Name: host, BootID: "boot", CPUMilli: 1 << 30, MemoryMiB: 1 << 30, StorageMiB: 1 << 30}
		err := r.applyAs(&state.Report{Report: workspace.Report{Node: host, Stamp: workspace.Stamp{BootID: "boot"}, Facts: facts,
			Ready: &workspace.Readiness{Ready: true}}}, state.Caller{Role: workspace.RoleNode, Principal: host})
		for n := 0; n < crowdOnHost && err == nil; n++ {
			run := newRun(crowdName(h, n), &state.Suggestion{Node: host, Stamp: &workspace.Stamp{BootID: "boot"}})
			run.Resources.StorageMiB = 1
			if err = r.apply(run); err == nil {
				err = ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func crowdHost(h int) string { return fmt.Sprintf("host-%d", h) }

func crowdName(h, n int) string { return fmt.Sprintf("crowd-%d-%d", h, n) }

// starts times the entries that start the instance "bench"; the entry that ends each
// isn't timed.
func (r *replica) starts(ctx context.Context, free string) ([]time.Duration, error) {
	times := make([]time.Duration, moneyRounds)
	for n := range times {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		id := fmt.Sprintf("01980000-0000-7000-9000-%012d", r.index)
		entry, err := r.encode(&state.StartInstance{ID: "bench", Run: id, Suggestion: onDevices(free)}, user(id))
		if err != nil {
			return nil, err
		}
		began := time.Now()
		_, err = r.applyEntry(entry)
		times[n] = time.Since(began)
		if err == nil {
			err = r.end(id, free)
		}
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}

// limitMoney sets prices, and all four kinds of budgets.
func (r *replica) limitMoney() error {
	plenty := workspace.Optional[int64]{Set: true, Value: new(int64)}
	*plenty.Value = 1 << 50
	commands := []state.Command{
		&state.UpdateWorkspace{ID: "lab", DailyBudget: plenty, UserDailyBudget: plenty, SpendingLimit: plenty},
		&state.UpdateCluster{DailyBudget: plenty},
		&state.SetPrice{Resource: "cpu", Amount: 20_000},
		&state.SetPrice{Resource: "memory", Amount: 5_000},
	}
	for _, gpuType := range []string{"*", "A100", "A100-SXM4", "H100", "L4"} {
		commands = append(commands, &state.SetPrice{Resource: "gpu", GPUType: gpuType, Amount: 2_500_000})
	}
	for _, cmd := range commands {
		if err := r.apply(cmd); err != nil {
			return err
		}
	}
	return nil
}

// renewals times ten rounds of an entry per host, all of whose leases are due.
func (r *replica) renewals() (times []time.Duration, err error) {
	const step = 20 * 60_000 // ms
	for round := int64(1); round <= 10; round++ {
		r.clock = r.clock.Add(step * time.Millisecond)
		took := time.Duration(0)
		for h := range crowdHosts {
			c := &state.RenewLeases{Node: crowdHost(h), Stamp: workspace.Stamp{BootID: "boot", BoottimeMS: round * step}}
			for n := range crowdOnHost {
				c.Runs = append(c.Runs, workspace.Livedness{Run: "run-" + crowdName(h, n), LivedMS: round * step})
			}
			entry, err := r.encode(c, state.Caller{Role: workspace.RoleSystem})
			if err != nil {
				return nil, err
			}
			began := time.Now()
			_, err = r.applyEntry(entry)
			took += time.Since(began)
			if err != nil {
				return nil, err
			}
		}
		times = append(times, took)
	}
	if m := r.store.View().Metered("run-" + crowdName(0, 0)); m == nil || m.Lease.Grant < 10 {
		return nil, fmt.Errorf("the leases weren't renewed: %+v", m)
	}
	return times, nil
}

func (r *replica) applyAs(cmd state.Command, by state.Caller) error {
	entry, err := r.encode(cmd, by)
	if err != nil {
		return err
	}
	_, err = r.applyEntry(entry)
	return err
}

// measureUsage fills a workspace with ended external runs of ten users in 30 days,
// and asks.
func measureUsage(ctx context.Context) (usage, query []time.Duration, err error) {
	r := &replica{store: state.New(), clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	if err := r.apply(&state.InitCluster{ID: "cluster", Name: "bench", Workspace: "lab"}); err != nil {
		return nil, nil, err
	}
	for n := range endedRuns {
		r.clock = r.clock.Add(26 * time.Second)
		id := fmt.Sprintf("01980000-0000-7000-9000-%012d", n)
		by := state.Caller{Principal: fmt.Sprintf("user%d", n%10), Role: workspace.RoleClusterAdmin}
		if err := r.applyAs(&state.StartExternal{Run: id, Workspace: "lab", Rate: 1_000_000}, by); err != nil {
			return nil, nil, err
		}
		if err := r.applyAs(&state.EndExternal{Run: id, Phase: workspace.PhaseSucceeded}, by); err != nil {
			return nil, nil, err
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err()
		}
	}
	for range 200 {
		began := time.Now()
		r.store.View().WorkspaceUsage("lab", r.clock)
		usage = append(usage, time.Since(began))
		began = time.Now()
		r.store.View().Usage(workspace.UsageQuery{Workspace: "lab", By: []string{"user", "day"}})
		query = append(query, time.Since(began))
	}
	return usage, query, nil
}
