package main

import (
	"context"
	"fmt"
	"time"

	"berth/gpu"
	"berth/gpu/nvml"
	"berth/state"
	"berth/workspace"
)

const (
	applyRounds = 20_000
	applyNode   = "01980000-0000-7000-8000-00000000000a"
	otherRuns   = 33 // active ones without a GPU, besides one on each GPU but the last
)

// replica is a state with one node of 8 GPUs, to which entries are applied as
// Raft would, without Raft.
type replica struct {
	store *state.Store
	index uint64
	clock time.Time
}

// measureApply applies the entry that admits and places a start on the node's
// last free GPU. The entry that ends the run follows each, unmeasured.
func measureApply(ctx context.Context) ([]result, error) {
	r := &replica{store: state.New(), clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	free, err := r.fill(ctx)
	if err != nil {
		return nil, err
	}
	times := make([]time.Duration, applyRounds)
	for n := range times {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		id := fmt.Sprintf("01980000-0000-7000-9000-%012d", n)
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
	return []result{newResult("Apply of a start, median", 1000*median(times), "µs").atMost(50)}, nil
}

// fill makes the node, its active runs and the instance to start, and gives the
// GPU that is left.
func (r *replica) fill(ctx context.Context) (free string, err error) {
	sim, err := gpu.ParseSimulation("A100-SXM4-80GB:8")
	if err != nil {
		return "", err
	}
	inventory, err := nvml.NewSimulated(applyNode, sim).Inventory(ctx)
	if err != nil {
		return "", err
	}
	enough := 1000
	commands := []state.Command{
		&state.InitCluster{ID: "cluster", Name: "bench", Workspace: "lab"},
		&state.UpdateWorkspace{ID: "lab", MaxConcurrentRuns: &enough},
		r.report(workspace.Report{
			Facts:   &workspace.NodeFacts{Name: "host1", BootID: "boot", CPUMilli: 256_000, MemoryMiB: 1 << 20, StorageMiB: 1 << 24},
			Devices: &inventory, Ready: &workspace.Readiness{Ready: true},
		}),
	}
	last := len(inventory.Devices) - 1
	for _, d := range inventory.Devices[:last] {
		commands = append(commands, newRun("on-"+d.UUID[len(d.UUID)-12:], onDevices(d.UUID)))
	}
	for n := range otherRuns {
		commands = append(commands, newRun(fmt.Sprintf("other-%d", n), onDevices()))
	}
	stopped := newRun("bench", onDevices(inventory.Devices[last].UUID))
	stopped.Start = false
	for _, cmd := range append(commands, stopped) {
		if err := r.apply(cmd); err != nil {
			return "", err
		}
	}
	return inventory.Devices[last].UUID, nil
}

func onDevices(uuids ...string) *state.Suggestion {
	s := &state.Suggestion{Node: applyNode}
	for _, uuid := range uuids {
		s.Devices = append(s.Devices, workspace.Allotment{UUID: uuid, Milli: 1000})
	}
	return s
}

func newRun(name string, on *state.Suggestion) *state.CreateInstance {
	return &state.CreateInstance{
		ID: name, Workspace: "lab", Name: name, Template: workspace.TemplateRef{Name: "bench"}, Kind: workspace.KindInteractive,
		Resources: workspace.Resources{GPUCount: len(on.Devices), CPUMilli: 1000, MemoryMiB: 512, StorageMiB: 64},
		Spec:      workspace.RunSpec{Image: imageName, ImageDigest: "sha256:1", Command: []string{"/bin/stamp"}, StopGrace: 5, Stoppable: true},
		Start:     true, Run: "run-" + name, Suggestion: on,
	}
}

// end reports that a run is over and its GPU free.
func (r *replica) end(id, device string) error {
	run := r.store.View().Run(id)
	if run == nil || run.Phase != workspace.PhaseAssigned {
		return fmt.Errorf("the start of run %s didn't place it: %+v", id, run)
	}
	return r.apply(r.report(workspace.Report{
		Runs:     []workspace.RunReport{{Run: id, Epoch: run.Epoch, Phase: workspace.PhaseStopped, Reason: "stopped"}},
		Released: []workspace.Release{{Device: device, Run: id, Epoch: run.Epoch}},
	}))
}

func (r *replica) report(report workspace.Report) *state.Report {
	report.Node, report.Stamp = applyNode, workspace.Stamp{BootID: "boot", BoottimeMS: int64(r.index)}
	return &state.Report{Report: report}
}

func (r *replica) apply(cmd state.Command) error {
	by := user(fmt.Sprintf("request-%d", r.index))
	switch cmd.(type) {
	case *state.InitCluster:
		by = state.Caller{Role: workspace.RoleSystem}
	case *state.Report:
		by = state.Caller{Role: workspace.RoleNode, Principal: applyNode}
	}
	entry, err := r.encode(cmd, by)
	if err != nil {
		return err
	}
	_, err = r.applyEntry(entry)
	return err
}

// encode lets a millisecond pass with each entry, so that what is remembered for
// minutes is forgotten again, as on a busy cluster.
func (r *replica) encode(cmd state.Command, by state.Caller) ([]byte, error) {
	r.clock = r.clock.Add(time.Millisecond)
	return state.Encode(cmd, by, r.clock)
}

func (r *replica) applyEntry(entry []byte) (state.Result, error) {
	r.index++
	res, err := r.store.Apply(r.index, entry)
	if err == nil && res.Err != nil {
		err = res.Err
	}
	return res, err
}

// user is an administrator who makes one request.
func user(request string) state.Caller {
	return state.Caller{RequestID: request, Principal: "alice", Role: workspace.RoleClusterAdmin}
}
