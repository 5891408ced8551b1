package state

import (
	"context"
	"iter"
	"slices"
	"time"

	"github.com/hashicorp/go-memdb"

	"berth/gpu"
	"berth/workspace"
)

// View is the state at one index. Views never block and are never blocked; the
// rows they give are shared and must not be changed.
type View struct {
	txn *memdb.Txn
	db  *database
}

// View of the state now.
func (s *Store) View() View {
	db := s.db.Load()
	return View{txn: db.mem.Txn(false), db: db}
}

// Index of the last entry applied.
func (v View) Index() uint64 {
	if p := meta.get(v.txn, "id", metaKey); p != nil {
		return p.Index
	}
	return 0
}

// At is the time of the last entry applied, which never goes back.
func (v View) At() time.Time {
	if p := meta.get(v.txn, "id", metaKey); p != nil {
		return time.UnixMicro(p.At).UTC()
	}
	return time.Time{}
}

// Epoch of the view: incarnation and index.
func (v View) Epoch() gpu.Epoch {
	e := gpu.Epoch{Index: v.Index()}
	if c := v.Cluster(); c != nil {
		e.Incarnation = c.Incarnation
	}
	return e
}

// Cluster is nil before the first entry.
func (v View) Cluster() *workspace.Cluster { return clusters.get(v.txn, "id", "cluster") }

// Workspace by id, nil when there is none.
func (v View) Workspace(id string) *workspace.Workspace { return workspaces.get(v.txn, "id", id) }

// WorkspaceBySlug gives nil when there is none.
func (v View) WorkspaceBySlug(slug string) *workspace.Workspace {
	return workspaces.get(v.txn, "slug", slug)
}

// DefaultWorkspace is nil before the first entry.
func (v View) DefaultWorkspace() *workspace.Workspace {
	return workspaces.get(v.txn, "default", "default")
}

// Workspaces from an id on, in order of id, which is the order of creation.
func (v View) Workspaces(from string) iter.Seq[*workspace.Workspace] {
	return workspaces.from(v.txn, "id", from)
}

// Member of a workspace, nil when the user isn't one.
func (v View) Member(workspaceID, user string) *workspace.Member {
	return members.get(v.txn, "id", workspaceID, user)
}

// Template by name, nil when there is none.
func (v View) Template(name string) *workspace.Template { return templates.get(v.txn, "id", name) }

// Templates from a name on, in order of name.
func (v View) Templates(from string) iter.Seq[*workspace.Template] {
	return templates.from(v.txn, "id", from)
}

// Instance by id, nil when there is none.
func (v View) Instance(id string) *workspace.Instance { return instances.get(v.txn, "id", id) }

// InstanceByName looks in one workspace, among those not being deleted.
func (v View) InstanceByName(workspaceID, name string) *workspace.Instance {
	return instances.get(v.txn, "name", workspaceID, name)
}

// Instances of a workspace from an id on, in order of id.
func (v View) Instances(workspaceID, from string) iter.Seq[*workspace.Instance] {
	return while(instances.from(v.txn, "workspace", workspaceID, from),
		func(i *workspace.Instance) bool { return i.Workspace == workspaceID })
}

// Run by id, nil when there is none.
func (v View) Run(id string) *workspace.Run { return runs.get(v.txn, "id", id) }

// Runs of a workspace from an id on, in order of id.
func (v View) Runs(workspaceID, from string) iter.Seq[*workspace.Run] {
	return while(runs.from(v.txn, "workspace", workspaceID, from),
		func(r *workspace.Run) bool { return r.Workspace == workspaceID })
}

// InstanceRuns are all runs of an instance, oldest first: each names the one it
// replaces, so that a start needn't write another index.
func (v View) InstanceRuns(id string) iter.Seq[*workspace.Run] {
	var all []*workspace.Run
	if inst := v.Instance(id); inst != nil {
		for run := v.Run(inst.Run); run != nil; run = v.Run(run.Replaces) {
			all = append(all, run)
		}
	}
	slices.Reverse(all)
	return slices.Values(all)
}

// AllRuns of the cluster, ended ones too.
func (v View) AllRuns() iter.Seq[*workspace.Run] { return runs.each(v.txn, "id") }

// PendingRuns wait for a place, oldest first.
func (v View) PendingRuns() iter.Seq[*workspace.Run] { return runs.each(v.txn, "pending") }

// ActiveRuns of a workspace: the set that its concurrency counts.
func (v View) ActiveRuns(workspaceID string) iter.Seq[*workspace.Run] {
	return runs.each(v.txn, "live", workspaceID, active)
}

// NodeRuns are what a node's agent must know of: live runs, and ended ones
// whose devices it hasn't released.
func (v View) NodeRuns(node string) iter.Seq[*workspace.Run] {
	return runs.each(v.txn, "node", node)
}

// Node by id, nil when there is none.
func (v View) Node(id string) *workspace.Node { return nodes.get(v.txn, "id", id) }

// Nodes in order of id.
func (v View) Nodes() iter.Seq[*workspace.Node] { return nodes.each(v.txn, "id") }

// Device by UUID, nil when there is none.
func (v View) Device(uuid string) *gpu.Device { return devices.get(v.txn, "id", uuid) }

// Devices in order of UUID.
func (v View) Devices() iter.Seq[*gpu.Device] { return devices.each(v.txn, "id") }

// NodeDevices are the devices of one node.
func (v View) NodeDevices(node string) iter.Seq[*gpu.Device] {
	return devices.each(v.txn, "node", node)
}

// Events after an id ("" for all that are kept), oldest first. An id that has
// fallen out of the ring gives what is left; a malformed one is CodeInvalid.
func (v View) Events(after string) (iter.Seq[*workspace.Event], error) {
	index, n, err := eventsFrom(after)
	if err != nil {
		return nil, err
	}
	return func(yield func(*workspace.Event) bool) {
		for row := range events.from(v.txn, "id", index) {
			skip := 0
			if row.Index == index {
				skip = int(min(n, uint64(len(row.Events)))) // #nosec G115 -- at most the length
			}
			for i := range row.Events[skip:] {
				if !yield(&row.Events[skip+i]) {
					return
				}
			}
		}
	}, nil
}

func while[T any](seq iter.Seq[T], in func(T) bool) iter.Seq[T] {
	return func(yield func(T) bool) {
		for x := range seq {
			if !in(x) || !yield(x) {
				return
			}
		}
	}
}

// Topic is what a watcher waits for.
type Topic string

// The topics: each is a table.
const (
	TopicWorkspaces Topic = "workspaces"
	TopicInstances  Topic = "instances"
	TopicRuns       Topic = "runs"
	TopicNodes      Topic = "nodes"
	TopicDevices    Topic = "devices"
	TopicEvents     Topic = "events"
	TopicVolumes    Topic = "volumes"
	TopicTemplates  Topic = "templates"
	TopicMeters     Topic = "meters"
	TopicCluster    Topic = "cluster"
	TopicMembers    Topic = "members"
	TopicPrices     Topic = "prices"
)

// Wait blocks until a topic has changed since this view, the state was
// restored, or ctx ends (whose error it gives).
func (v View) Wait(ctx context.Context, topics ...Topic) error {
	watch := memdb.NewWatchSet()
	watch.Add(v.db.replaced)
	for _, topic := range topics {
		it, err := v.txn.Get(string(topic), "id")
		if err != nil {
			panic(schemaError(string(topic), err))
		}
		watch.Add(it.WatchCh())
	}
	return watch.WatchCtx(ctx)
}
