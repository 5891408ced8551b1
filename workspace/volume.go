package workspace

import (
	"strconv"
	"strings"
	"time"
)

// Volume is an instance's persistent directory on a node. It is named by the
// run that it was made for first.
type Volume struct {
	ID        string    `json:"id"`
	Workspace string    `json:"workspace"`
	Instance  string    `json:"instance"`      // that has it, or had it last
	Name      string    `json:"instance_name"` // of that instance
	Node      string    `json:"node"`
	SizeMiB   int64     `json:"size_mib"`
	Policy    string    `json:"storage_policy"`
	Made      bool      `json:"made"`     // it exists on its node's disk
	Detached  bool      `json:"detached"` // its instance is gone, or has another
	Purging   bool      `json:"purging"`  // ordered; its row goes when its node has deleted it
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty"`         // why it isn't purged yet
	PurgeAt   time.Time `json:"purge_at,omitzero"`         // of a detached one; zero: kept until someone removes it
	Warned    bool      `json:"-" cbor:"warned,omitempty"` // its purge was announced
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`

	ModifyIndex uint64 `json:"modify_index"`
}

// DefaultStoragePolicy keeps a volume for two weeks after its instance.
const DefaultStoragePolicy = "retain:14"

// PurgeWarning is how long before a volume's purge it is announced.
const PurgeWarning = 24 * time.Hour

// ReasonVolumeLost is why a volume can't be used, and why a run waits for it: its
// node doesn't have it any more.
const ReasonVolumeLost = "volume_lost"

// Lost reports whether the volume was on its node's disk and isn't any more.
func (v *Volume) Lost() bool { return v.Reason == ReasonVolumeLost }

// Exists reports whether there is, or was, anything of the volume on a disk.
func (v *Volume) Exists() bool { return v.Made || v.Lost() }

// PurgeTime says when a volume that is detached at a time goes, by its storage
// policy: at once, at the time given, or, with a zero time, not by itself.
func PurgeTime(policy string, at time.Time) (when time.Time, atOnce bool) {
	days, limited := strings.CutPrefix(policy, "retain:")
	if !limited {
		return time.Time{}, policy == "delete"
	}
	n, err := strconv.Atoi(days)
	if err != nil {
		return time.Time{}, false // no valid policy: nothing is deleted over it
	}
	return at.AddDate(0, 0, n), false
}

// Validate checks the storage policy, which must be given.
func (v *Volume) Validate() error {
	if v.Policy == "" {
		return InvalidField("storage_policy", "is required: retain, delete or retain:<days>")
	}
	return validateStoragePolicy(v.Policy)
}
