package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
)

const (
	// pullTime is how long what an unfinished pull has fetched is kept for the
	// next, and how long one may take.
	pullTime = 24 * time.Hour
	// labelPull is on the lease of a pull; its value is the image's whole name.
	labelPull = "berth.dev/pull"
)

// leasePull keeps what a pull fetches from containerd's garbage collector, with
// what earlier pulls of the same image that didn't finish have fetched. Only
// endLease, or its time, ends it.
func (r *Runtime) leasePull(ctx context.Context, full string) (leased context.Context, lease leases.Lease, err error) {
	manager := r.client.LeasesService()
	old, err := manager.List(ctx, fmt.Sprintf("labels.%q==%q", labelPull, full))
	if err != nil {
		return nil, lease, r.failed(err, "list the leases")
	}
	lease, err = manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(pullTime),
		leases.WithLabels(map[string]string{labelPull: full}))
	if err != nil {
		return nil, lease, r.failed(err, "take a lease")
	}
	for _, before := range old {
		if err := r.moveLease(ctx, before, lease); err != nil {
			r.cfg.Log.Warn("what an earlier pull fetched may be fetched again", "image", full, "error", err)
		}
	}
	return leases.WithLease(ctx, lease.ID), lease, nil
}

func (r *Runtime) moveLease(ctx context.Context, from, to leases.Lease) error {
	manager := r.client.LeasesService()
	resources, err := manager.ListResources(ctx, from)
	if err != nil {
		return err
	}
	for _, resource := range resources {
		if err := manager.AddResource(ctx, to, resource); err != nil {
			return err
		}
	}
	return manager.Delete(ctx, from)
}

// endLease also collects what nothing refers to.
func (r *Runtime) endLease(ctx context.Context, lease leases.Lease) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := r.client.LeasesService().Delete(bounded, lease, leases.SynchronousDelete); err != nil {
		r.cfg.Log.Warn("the lease of a pull in containerd stays until it expires", "error", err, "expires_in", pullTime)
	}
}
