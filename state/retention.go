package state

import (
	"fmt"
	"time"

	"berth/workspace"
)

// What is done to detached volumes, by their owners and by time.

// RemoveVolume deletes a detached volume for good, now.
type RemoveVolume struct {
	ID string `cbor:"1,keyasint"`
}

// Type is TypeRemoveVolume.
func (*RemoveVolume) Type() Type { return TypeRemoveVolume }

func (c *RemoveVolume) apply(t *tx) error {
	v, err := t.detachedVolume(c.ID)
	if err != nil {
		return err
	}
	t.result.Object = v.ID
	if !v.Purging {
		t.purge(v, "removed by "+t.env.Principal)
	}
	return nil
}

// KeepVolume changes how long a detached volume is kept, counted from now.
type KeepVolume struct {
	ID     string `cbor:"1,keyasint"`
	Policy string `cbor:"2,keyasint"`
}

// Type is TypeKeepVolume.
func (*KeepVolume) Type() Type { return TypeKeepVolume }

func (c *KeepVolume) apply(t *tx) error {
	v, err := t.detachedVolume(c.ID)
	if err != nil {
		return err
	}
	n := *v
	n.Policy = c.Policy
	if err := n.Validate(); err != nil {
		return err
	}
	if v.Purging {
		return workspace.Errorf(workspace.CodeConflict, "volume %s is being deleted: it can't be kept any more", v.ID)
	}
	t.result.Object = v.ID
	fate := t.retain(&n)
	t.volumeEvent("volume.kept", &n, "", fmt.Sprintf("the volume of instance %s %s, says %s", n.Name, fate, t.env.Principal))
	return nil
}

// detachedVolume gives a volume that the caller may decide about. Who may not
// see it gets the answer for one that isn't there.
func (t *tx) detachedVolume(id string) (*workspace.Volume, error) {
	v := volumes.get(t, "id", id)
	if v == nil {
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no volume %.40q", id)
	}
	if _, err := t.needMember(v.Workspace); err != nil {
		return nil, workspace.Errorf(workspace.CodeNotFound, "there is no volume %.40q", id)
	}
	if !v.Detached {
		return nil, workspace.Errorf(workspace.CodeConflict,
			"volume %s belongs to instance %s: it goes by the instance's storage policy (%s) once the instance is deleted", v.ID, v.Name, v.Policy)
	}
	return v, nil
}

// purge orders a volume's node to delete it. The row stays until it has.
func (t *tx) purge(v *workspace.Volume, why string) {
	n := *v
	n.Purging = true
	t.putVolume(&n)
	t.volumeEvent("volume.purging", &n, "", fmt.Sprintf("the volume of instance %s on node %s is deleted: %s", n.Name, nodeName(t, n.Node), why))
}

// due is when a Sweep has something to do about a volume: its warning, then its
// purge. Zero: never.
func due(v *workspace.Volume) time.Time {
	switch {
	case !v.Detached || v.Purging || v.PurgeAt.IsZero():
		return time.Time{}
	case !v.Warned:
		return v.PurgeAt.Add(-workspace.PurgeWarning)
	}
	return v.PurgeAt
}
