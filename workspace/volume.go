package workspace

import "time"

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

// Registry is a login to an image registry. The password is sealed and is never
// shown.
type Registry struct {
	Host        string    `json:"host"` // such as ghcr.io or registry.lab:5000
	Username    string    `json:"username"`
	Password    Sealed    `json:"-" cbor:"password"`
	CreatedAt   time.Time `json:"created_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	ModifyIndex uint64    `json:"modify_index"`
}

// RegistryLogin is a login in clear, on its way to a node.
type RegistryLogin struct {
	Host     string
	Username string
	Password Secret
}
