package onenode

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"berth/api"
	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

// NodeID is the id of the one node; its name is host1.
const NodeID = "01980000-0000-7000-8000-00000000000a"

// cluster applies commands to a store at once.
type cluster struct {
	store *state.Store

	mu    sync.Mutex
	index uint64

	inside inside
}

func newCluster() *cluster { return &cluster{store: state.New(), inside: newInside()} }

// found makes the cluster and lets its node report.
func (c *cluster) found(conf Config) error {
	err := c.do(state.Caller{Principal: "leader", Role: workspace.RoleSystem}, &state.InitCluster{
		ID: "01980000-0000-7000-8000-000000000001", Name: "test",
		Workspace: "01980000-0000-7000-8000-000000000002", Templates: conf.Templates,
	})
	if err != nil {
		return err
	}
	var images []workspace.NodeImage
	if !conf.NoImage {
		images = append(images, workspace.NodeImage{Reference: "docker.io/library/demo:latest", Digest: digest("demo"), Size: 3 << 20})
	}
	return c.report(workspace.Report{
		Facts: &workspace.NodeFacts{
			Name: "host1", BootID: "boot-1", Version: "1.2.3-test", Kernel: "6.1.0", Arch: "amd64", Runtime: "containerd 1.6.20",
			CPUMilli: 8000, MemoryMiB: 16384, StorageMiB: 102400, GPUSource: "simulated",
			CapacityNote: "it offers 8 cores, the host has 2",
		},
		Devices: simulated(), Images: &images, Ready: &workspace.Readiness{Ready: true, Reason: "ready", Message: "it takes runs"},
	})
}

// Propose is the leader's: it fills ids and suggests places, then applies.
func (c *cluster) Propose(_ context.Context, cmd state.Command, by state.Caller) (state.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index++
	c.prepare(cmd)
	entry, err := state.Encode(cmd, by, time.Now())
	if err != nil {
		return state.Result{}, err
	}
	return c.store.Apply(c.index, entry)
}

func (c *cluster) prepare(cmd state.Command) {
	switch cmd := cmd.(type) {
	case *state.CreateWorkspace:
		cmd.ID = c.id("b")
	case *state.CreateInstance:
		cmd.ID, cmd.Run, cmd.Suggestion = c.id("c"), c.id("d"), c.suggest(cmd.Resources)
	case *state.StartInstance:
		cmd.Run = c.id("d")
		if inst := c.View().Instance(cmd.ID); inst != nil {
			cmd.Suggestion = c.suggest(inst.Resources)
		}
	case *state.StartExternal:
		cmd.Run = c.id("d")
	case *state.RestartInstance:
		cmd.Run = c.id("d")
	}
}

// id like a UUIDv7: later ones are greater.
func (c *cluster) id(kind string) string {
	return fmt.Sprintf("01980000-0000-7000-800%s-%012d", kind, c.index)
}

func (c *cluster) place(r workspace.Resources) scheduler.Decision {
	v := c.View()
	node, used := v.Node(NodeID), scheduler.Capacity{}
	for run := range v.NodeRuns(NodeID) {
		if run.Phase.Active() {
			used.CPUMilli += run.Resources.CPUMilli
			used.MemoryMiB += run.Resources.MemoryMiB
			used.StorageMiB += run.Resources.StorageMiB
		}
	}
	view := scheduler.View{}
	if node != nil {
		one := scheduler.NodeOf(node, nil, used)
		for d := range v.NodeDevices(NodeID) {
			one.Devices = append(one.Devices, *d)
		}
		view.Nodes = append(view.Nodes, one)
	}
	return scheduler.Place(view, []scheduler.Request{{Resources: r}})[0]
}

func (c *cluster) suggest(r workspace.Resources) *state.Suggestion {
	d := c.place(r)
	if d.Reason != nil {
		return &state.Suggestion{Reason: string(d.Reason.Code), Message: d.Reason.Message, Impossible: d.Reason.Final()}
	}
	return &state.Suggestion{Node: d.Node, Devices: d.Devices}
}

func (c *cluster) explain(_ state.View, run *workspace.Run) workspace.Placement {
	d := c.place(run.Resources)
	if d.Reason != nil {
		return workspace.Placement{Reason: string(d.Reason.Code), Message: d.Reason.Message, Final: d.Reason.Final()}
	}
	return workspace.Placement{Fits: true, Node: d.Node, Devices: d.Devices, Message: "it fits"}
}

// do proposes and gives whatever went wrong.
func (c *cluster) do(by state.Caller, cmd state.Command) error {
	res, err := c.Propose(context.Background(), cmd, by)
	if err == nil && res.Err != nil {
		err = res.Err
	}
	return err
}

// View of the state now.
func (c *cluster) View() state.View { return c.store.View() }

// Consistent is the same: there is one replica.
func (c *cluster) Consistent(context.Context) (state.View, error) { return c.View(), nil }

// Seal hides a secret from nobody: it never leaves the test.
func (c *cluster) Seal(s workspace.Secret) (workspace.Sealed, error) {
	return workspace.Sealed{KeyID: "test", Sealed: []byte(s.Reveal())}, nil
}

// Open gives back what Seal made.
func (c *cluster) Open(s workspace.Sealed) (workspace.Secret, error) {
	return workspace.NewSecret(string(s.Sealed)), nil
}

// Node is this host's agent.
func (c *cluster) Node(string) (workspace.NodeService, error) { return c, nil }

// Status of a cluster that always has a leader.
func (c *cluster) Status() api.ClusterStatus { return api.ClusterStatus{Leader: NodeID, Term: 1} }

// ImportImage takes any bytes for an archive of one image.
func (c *cluster) ImportImage(_ context.Context, archive io.Reader, name string) ([]workspace.NodeImage, error) {
	text, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	if len(text) == 0 {
		return nil, workspace.Errorf(workspace.CodeInvalid, "the archive is empty: give an OCI archive, a tar file")
	}
	if name == "" {
		name = "docker.io/library/archived:latest"
	}
	image := workspace.NodeImage{Reference: name, Digest: digest(string(text)), Size: int64(len(text))}
	images := append(c.images(name), image)
	return []workspace.NodeImage{image}, c.report(workspace.Report{Images: &images})
}

// RemoveImage forgets a reference.
func (c *cluster) RemoveImage(_ context.Context, reference string) error {
	images := c.images(reference)
	if len(images) == len(c.View().Node(NodeID).Images) {
		return workspace.Errorf(workspace.CodeNotFound, "node host1 has no image %s", reference)
	}
	return c.report(workspace.Report{Images: &images})
}

// images the node has, without one.
func (c *cluster) images(without string) []workspace.NodeImage {
	return slices.DeleteFunc(slices.Clone(c.View().Node(NodeID).Images),
		func(i workspace.NodeImage) bool { return i.Reference == without })
}

func digest(text string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(text))) }
