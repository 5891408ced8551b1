package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/gpu"
	"berth/workspace"
)

// cluster stands for the servers: it keeps to Apply's rules for reports, and
// notes what breaks an invariant.
type cluster struct {
	host *host

	mu         sync.Mutex
	at         gpu.Epoch
	runs       map[string]*clusterRun
	change     chan struct{} // closed at the next entry
	latest     nodeState
	purges     []string // volumes to delete
	purgeIndex uint64
	expiries   []workspace.ResultClaim // results to delete
	expired    []string                // as it was reported
	beats      []workspace.Beat
	volumes    []workspace.VolumeReport // as they were reported
	health     []workspace.DeviceHealth
	history    []string                  // "<run> <phase>" and "<run> release <device>", as they were recorded
	broken     []string                  // rules that were broken
	failures   int                       // reports to refuse before one is taken
	reported   func(workspace.RunReport) // sees each report of a run; nil: nobody does
	conduct
}

// conduct is how the cluster behaves.
type conduct struct {
	deaf        bool          // nothing is answered
	delay       time.Duration // of answers to a go-ahead
	reportTakes time.Duration
	lag         bool // verified views are older than anything
	remains     bool // dead containers can't be removed: ends come without that
	grants      bool // leases are granted and renewed
	beatless    bool // beats aren't taken
}

// nodeState is what a node last said of itself.
type nodeState struct {
	facts   *workspace.NodeFacts
	devices *gpu.Inventory
	images  []workspace.NodeImage
	ready   *workspace.Readiness
	orphans []workspace.Orphan
}

type clusterRun struct {
	workspace.Assignment
	modified uint64
	held     map[string]bool
	stuck    map[string]bool
	stuckBy  string
	fenced   bool // its devices came free without its node
	end      workspace.RunReport
	reason   string
	message  string
	starts   []time.Time
	asked    []time.Time
	access   []workspace.AccessInfo
}

var errDeaf = errors.New("no leader")

func newCluster(h *host) *cluster {
	return &cluster{host: h, at: gpu.Epoch{Incarnation: 1, Index: 10}, runs: map[string]*clusterRun{}, change: make(chan struct{})}
}

// entry changes the state as one log entry.
func (c *cluster) entry(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at.Index++
	change()
	close(c.change)
	c.change = make(chan struct{})
}

// place assigns a run with these devices, whole.
func (c *cluster) place(run string, edit func(*workspace.Assignment), devices ...string) {
	digest := c.host.digest(testImage)
	c.entry(func() {
		r := &clusterRun{held: map[string]bool{}, stuck: map[string]bool{}, modified: c.at.Index}
		r.Assignment = workspace.Assignment{
			Run: run, Instance: "instance-of-" + run, Workspace: "workspace-1", Name: "env",
			Desired: workspace.RunWanted, Phase: workspace.PhaseAssigned, Epoch: c.at,
			Resources: workspace.Resources{CPUMilli: 1000, MemoryMiB: 512},
			Spec:      workspace.RunSpec{Image: testImage, ImageDigest: digest, StopGrace: 30},
		}
		for _, d := range devices {
			r.Devices = append(r.Devices, workspace.Allotment{UUID: d, Milli: 1000})
			r.held[d] = true
		}
		if edit != nil {
			edit(&r.Assignment)
		}
		c.runs[run] = r
	})
}

// edit changes a run as an entry would.
func (c *cluster) edit(run string, change func(r *clusterRun)) {
	c.entry(func() {
		c.runs[run].modified = c.at.Index
		change(c.runs[run])
	})
}

func (c *cluster) stop(run, reason string) {
	c.edit(run, func(r *clusterRun) { r.Desired, r.StopReason = workspace.RunStopping, reason })
}

// lose ends a run without its node; released says that its devices are free.
func (c *cluster) lose(run string, released bool) {
	c.edit(run, func(r *clusterRun) {
		r.Phase = workspace.PhaseLost
		if released {
			clear(r.held)
			r.fenced = true
		}
	})
}

func (r *clusterRun) listed() bool { return !r.Phase.Terminal() || len(r.held) > 0 }

func (c *cluster) assignments(ctx context.Context, after gpu.Epoch) (workspace.AssignmentView, error) {
	for {
		c.mu.Lock()
		if c.deaf {
			c.mu.Unlock()
			return workspace.AssignmentView{}, errDeaf
		}
		view := workspace.AssignmentView{Cluster: "cluster-1", At: c.at, Snapshot: after == gpu.Epoch{}, Purge: slices.Clone(c.purges), Expire: slices.Clone(c.expiries)}
		for run, r := range c.runs {
			switch {
			case !view.Snapshot && r.modified <= after.Index:
			case r.listed():
				a := r.Assignment
				a.Unreleased = a.Phase.Terminal()
				view.Upsert = append(view.Upsert, a)
			case !view.Snapshot:
				view.Removed = append(view.Removed, run)
			}
		}
		change := c.change
		c.mu.Unlock()
		if view.Snapshot || len(view.Upsert)+len(view.Removed) > 0 || c.purgeIndex > after.Index {
			return view, nil
		}
		select {
		case <-ctx.Done():
			return view, ctx.Err()
		case <-change:
		}
	}
}

func (c *cluster) report(report workspace.Report) error {
	c.mu.Lock()
	if c.deaf || c.failures > 0 {
		c.failures--
		c.mu.Unlock()
		return errDeaf
	}
	c.mu.Unlock()
	if report.Stamp.BootID == "" || report.Stamp.BoottimeMS == 0 || report.Node != "node-1" {
		c.violate("a report without node or stamp: %+v", report)
	}
	c.entry(func() {
		for _, run := range report.Runs {
			c.apply(run)
		}
		for _, release := range report.Released {
			c.release(release)
		}
		c.volumes = append(c.volumes, report.Volumes...)
		for _, run := range report.Expired {
			c.expired = append(c.expired, run)
			c.expiries = slices.DeleteFunc(c.expiries, func(claim workspace.ResultClaim) bool { return claim.Run == run })
		}
		for _, v := range report.Volumes {
			c.volume(v)
		}
		c.health = append(c.health, report.Health...)
		latest(&c.latest.facts, report.Facts)
		latest(&c.latest.devices, report.Devices)
		latest(&c.latest.ready, report.Ready)
		if report.Images != nil {
			c.latest.images = *report.Images
		}
		if report.Orphans != nil {
			c.latest.orphans = *report.Orphans
		}
	})
	return nil
}

// volume takes a report of a volume.
func (c *cluster) volume(report workspace.VolumeReport) {
	for _, r := range c.runs {
		if r.Volume != nil && r.Volume.ID == report.ID && report.Made && !r.Volume.Made {
			claim := *r.Volume
			claim.Made = true
			r.Volume, r.modified = &claim, c.at.Index
		}
	}
	if report.Gone {
		c.purges = slices.DeleteFunc(c.purges, func(id string) bool { return id == report.ID })
	}
}

// purge orders volumes to be deleted.
func (c *cluster) purge(ids ...string) {
	c.entry(func() { c.purges, c.purgeIndex = append(c.purges, ids...), c.at.Index })
}

// said gives what was reported of volumes and of devices' health.
func (c *cluster) said() ([]workspace.VolumeReport, []workspace.DeviceHealth) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.volumes), slices.Clone(c.health)
}

// ordered: the volume is to be deleted.
func (c *cluster) ordered(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.purges, id)
}

func (c *cluster) apply(report workspace.RunReport) {
	if c.reported != nil {
		c.reported(report)
	}
	r := c.runs[report.Run]
	if r == nil || report.Epoch != r.Epoch || !report.Phase.ByAgent() {
		c.broken = append(c.broken, fmt.Sprintf("report of no run here: %+v", report))
		return
	}
	c.checkLived(r, report.LivedMS)
	if r.Phase == report.Phase {
		r.reason, r.message = report.Reason, report.Message
		r.access = report.Access
		return
	}
	if !r.Phase.CanBecome(report.Phase) {
		if !r.Phase.Terminal() {
			c.broken = append(c.broken, fmt.Sprintf("%s: a step back from %s to %s", report.Run, r.Phase, report.Phase))
		}
		return
	}
	if report.Phase.Terminal() && report.Reason != reasonUnkillable && !c.remains && c.container(report.Run) {
		c.broken = append(c.broken, report.Run+": its end was reported while it has a container")
	}
	r.Phase, r.reason, r.message, r.modified = report.Phase, report.Reason, report.Message, c.at.Index
	r.access = report.Access
	if report.Phase.Terminal() {
		r.end = report
	}
	c.history = append(c.history, report.Run+" "+string(report.Phase))
}

func (c *cluster) release(release workspace.Release) {
	r := c.runs[release.Run]
	if r != nil && r.fenced {
		return
	}
	if r == nil || release.Epoch != r.Epoch || !r.held[release.Device] {
		c.broken = append(c.broken, fmt.Sprintf("a release of nothing: %+v", release))
		return
	}
	r.modified = c.at.Index
	r.stuck[release.Device] = release.Stuck
	if release.Stuck {
		r.stuckBy = release.Message
		return
	}
	if c.container(release.Run) {
		c.broken = append(c.broken, release.Run+": released while it has a container")
	}
	if _, attached := c.host.networks.Attached(release.Run); attached {
		c.broken = append(c.broken, release.Run+": released while it has a network")
	}
	if !r.Phase.Terminal() {
		c.broken = append(c.broken, release.Run+": released before its end")
	}
	delete(r.held, release.Device)
	c.history = append(c.history, release.Run+" release "+release.Device)
}

func (c *cluster) container(run string) bool {
	_, err := c.host.Inspect(context.Background(), run)
	return err == nil
}

// started notes the start of a run's process, and whether it was allowed.
func (c *cluster) started(run string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.runs[run]
	r.starts = append(r.starts, time.Now())
	if limited := r.Lease != nil || r.Spec.MaxDuration != 0; limited && ms(c.host.guard.end(run).Kill) <= c.host.boottime() {
		c.broken = append(c.broken, run+": started without a stored end")
	}
	if len(r.asked) == 0 || time.Since(r.asked[len(r.asked)-1]) > workspace.GoAheadWindow {
		c.broken = append(c.broken, run+": started without a fresh go-ahead")
	}
}

func (c *cluster) goAhead(ctx context.Context, run string, sent workspace.Stamp) (workspace.GoAheadAnswer, error) {
	asked := time.Now()
	c.mu.Lock()
	delay := c.delay
	c.mu.Unlock()
	select {
	case <-ctx.Done():
		return workspace.GoAheadAnswer{}, ctx.Err()
	case <-time.After(delay):
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf {
		return workspace.GoAheadAnswer{}, errDeaf
	}
	answer := workspace.GoAheadAnswer{Cluster: "cluster-1", At: c.at}
	if c.lag {
		answer.At = gpu.Epoch{Incarnation: 1, Index: 1}
		return answer, nil
	}
	r := c.runs[run]
	if r == nil {
		return answer, nil
	}
	answer.Known, answer.Ended = true, r.Phase.Terminal()
	answer.Start = !answer.Ended && r.Desired == workspace.RunWanted
	if answer.Start && sent.BoottimeMS > 0 {
		r.asked = append(r.asked, asked)
	}
	return answer, nil
}

func (c *cluster) violate(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = append(c.broken, fmt.Sprintf(format, args...))
}

// set changes how the cluster behaves, and gives how it does then.
func (c *cluster) set(change func()) conduct {
	c.mu.Lock()
	defer c.mu.Unlock()
	if change != nil {
		change()
	}
	return c.conduct
}

// now gives a copy of a run as the cluster has it.
func (c *cluster) now(run string) clusterRun {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := *c.runs[run]
	r.held, r.stuck = maps.Clone(r.held), maps.Clone(r.stuck)
	return r
}

// node gives what the node last said of itself.
func (c *cluster) node() nodeState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.latest
}

// phases is the order in which a run's phases and releases were recorded.
func (c *cluster) phases(run string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var own []string
	for _, line := range c.history {
		if rest, ok := strings.CutPrefix(line, run+" "); ok {
			own = append(own, rest)
		}
	}
	return strings.Join(own, ", ")
}

// check fails the test for each invariant that was broken.
func (c *cluster) check(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, rule := range slices.Compact(c.broken) {
		t.Error("broken: " + rule)
	}
	for run, r := range c.runs {
		if len(r.starts) > 1 {
			t.Errorf("run %s was started %d times", run, len(r.starts))
		}
	}
}

func epochAt(index uint64) gpu.Epoch { return gpu.Epoch{Incarnation: 1, Index: index} }

// beat takes a sign of life. With grants it renews what is due: the first grant,
// and when a quarter is used.
func (c *cluster) beat(beat workspace.Beat) error {
	c.mu.Lock()
	deaf := c.deaf || c.beatless
	c.mu.Unlock()
	if deaf {
		return errDeaf
	}
	renew := map[string]bool{}
	c.mu.Lock()
	c.beats = append(c.beats, beat)
	for _, l := range beat.Runs {
		r := c.runs[l.Run]
		if r == nil {
			c.broken = append(c.broken, "a beat of no run here: "+l.Run)
			continue
		}
		c.checkLived(r, l.LivedMS)
		left := r.Lease != nil && (r.Lease.End.BootID != beat.Stamp.BootID || r.Lease.End.BoottimeMS-beat.Stamp.BoottimeMS <= r.Lease.GrantedMS*3/4)
		renew[l.Run] = c.grants && left && !r.Phase.Terminal()
	}
	c.mu.Unlock()
	for run, due := range renew {
		if due {
			c.grant(run, beat.Stamp.BoottimeMS)
		}
	}
	return nil
}

// grant gives a run its lease anew, from a stamp.
func (c *cluster) grant(run string, stamp int64) {
	c.edit(run, func(r *clusterRun) {
		next := *r.Lease
		next.Grant++
		next.End = workspace.Stamp{BootID: "boot-1", BoottimeMS: stamp + next.GrantedMS}
		next.PaidUntil = c.host.boot.Add(ms(next.End.BoottimeMS)).UTC()
		r.Lease = &next
	})
}

// checkLived notes time that a run's process hasn't lived. The caller holds mu.
func (c *cluster) checkLived(r *clusterRun, lived int64) {
	most := int64(0)
	if len(r.starts) > 0 {
		most = time.Since(r.starts[0]).Milliseconds()
	}
	if lived > most {
		c.broken = append(c.broken, fmt.Sprintf("%s: %d ms charged, and it has lived for %d", r.Run, lived, most))
	}
}
