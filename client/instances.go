package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"berth/workspace"
)

// CreateInstance makes an instance and, unless told otherwise, starts it.
func (c *Client) CreateInstance(ctx context.Context, n workspace.NewInstance) (*workspace.Instance, error) {
	return one[workspace.Instance](ctx, c, request{method: http.MethodPost, path: "/instances", body: n})
}

// Instances of a workspace, oldest first.
func (c *Client) Instances(ctx context.Context, o ListOptions) (*Page[workspace.Instance], error) {
	return list[workspace.Instance](ctx, c, "/instances", o)
}

// Instance by id, or by name in the client's workspace.
func (c *Client) Instance(ctx context.Context, ref string) (*workspace.Instance, error) {
	return one[workspace.Instance](ctx, c, request{method: http.MethodGet, path: path("instances", ref)})
}

// StartInstance starts a stopped or failed instance; a running one stays as it is.
func (c *Client) StartInstance(ctx context.Context, ref string) (*workspace.Instance, error) {
	return c.act(ctx, ref, "start")
}

// StartFresh is StartInstance with an empty volume: the one the instance has is
// detached and follows its storage policy.
func (c *Client) StartFresh(ctx context.Context, ref string) (*workspace.Instance, error) {
	return one[workspace.Instance](ctx, c, request{method: http.MethodPost, path: path("instances", ref, "start"),
		query: url.Values{"fresh_volume": {"true"}}})
}

// StopInstance stops an instance; a stopped one stays as it is.
func (c *Client) StopInstance(ctx context.Context, ref string) (*workspace.Instance, error) {
	return c.act(ctx, ref, "stop")
}

// RestartInstance stops an instance and starts it again.
func (c *Client) RestartInstance(ctx context.Context, ref string) (*workspace.Instance, error) {
	return c.act(ctx, ref, "restart")
}

func (c *Client) act(ctx context.Context, ref, verb string) (*workspace.Instance, error) {
	return one[workspace.Instance](ctx, c, request{method: http.MethodPost, path: path("instances", ref, verb)})
}

// DeleteInstance removes an instance. Its name is free at once; its id stays
// known until its container is gone, so wait for that by id.
func (c *Client) DeleteInstance(ctx context.Context, ref string) (*workspace.Instance, error) {
	return one[workspace.Instance](ctx, c, request{method: http.MethodDelete, path: path("instances", ref)})
}

// Explain says why an instance is as it is.
func (c *Client) Explain(ctx context.Context, ref string) (*workspace.Explanation, error) {
	return one[workspace.Explanation](ctx, c, request{method: http.MethodGet, path: path("instances", ref, "explain")})
}

// DryRun says whether a run would find a place now.
func (c *Client) DryRun(ctx context.Context, d workspace.DryRun) (*workspace.Placement, error) {
	return one[workspace.Placement](ctx, c, request{method: http.MethodPost, path: "/placements:dry-run", body: d})
}

// Runs of a workspace, oldest first.
func (c *Client) Runs(ctx context.Context, o ListOptions) (*Page[workspace.Run], error) {
	return list[workspace.Run](ctx, c, "/runs", o)
}

// Run by id.
func (c *Client) Run(ctx context.Context, id string) (*workspace.Run, error) {
	return one[workspace.Run](ctx, c, request{method: http.MethodGet, path: path("runs", id)})
}

// InstanceRuns are the runs of one instance, oldest first.
func (c *Client) InstanceRuns(ctx context.Context, ref string, o ListOptions) (*Page[workspace.Run], error) {
	return list[workspace.Run](ctx, c, path("instances", ref, "runs"), o)
}

// longestPoll is how long one question of Wait hangs at the daemon.
const longestPoll = 60 * time.Second

// pullPoll is the same while an image is pulled, whose progress is no change of
// the instance.
const pullPoll = 500 * time.Millisecond

func pollTime(inst *workspace.Instance) time.Duration {
	if inst.Reason == workspace.ReasonPulling {
		return pullPoll
	}
	return longestPoll
}

// Wait waits until an instance is "running", "stopped" or "deleted". progress,
// which may be nil, is called with each state seen on the way, but not with the
// one waited for. An instance that
// failed, or can't get there, ends the wait with CodeConflict; a timeout with
// CodeUnavailable and what it waits for; the end of ctx with ctx's error. For
// "deleted", an instance that isn't there (any more) is success, with nil if it
// was never seen.
func (c *Client) Wait(ctx context.Context, ref, phase string, timeout time.Duration, progress func(*workspace.Instance)) (*workspace.Instance, error) {
	deadline := time.Now().Add(timeout)
	var last *workspace.Instance
	for {
		query := url.Values{"phase": {phase}, "timeout": {"0s"}} // first how it is now
		if last != nil {
			query.Set("timeout", max(min(time.Until(deadline), pollTime(last)), 0).String())
			query.Set("after", strconv.FormatUint(last.ModifyIndex, 10))
		}
		inst, err := one[workspace.Instance](ctx, c, request{method: http.MethodGet, path: path("instances", ref, "wait"), query: query})
		if phase == "deleted" && workspace.CodeOf(err) == workspace.CodeNotFound {
			return last, nil
		}
		if err != nil {
			return last, err
		}
		if reached(inst, phase) {
			return inst, nil
		}
		if progress != nil && (last == nil || inst.ModifyIndex != last.ModifyIndex || inst.Message != last.Message) {
			progress(inst)
		}
		last, ref = inst, inst.ID
		if time.Until(deadline) <= 0 {
			return inst, workspace.Errorf(workspace.CodeUnavailable, "instance %s isn't %s after %s: it is %s (%s: %s)",
				inst.Name, phase, timeout, inst.Status, inst.Reason, inst.Message)
		}
	}
}

// reached reports whether an instance is as waited for. That a deleted one is
// gone shows only by its absence.
func reached(inst *workspace.Instance, phase string) bool {
	switch phase {
	case "running":
		return inst.Status == workspace.StatusRunning && inst.Desired == workspace.DesiredRunning
	case "stopped":
		return inst.Status == workspace.StatusStopped
	}
	return false
}
