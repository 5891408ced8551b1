package state

import (
	"iter"

	"berth/workspace"
)

// registries are the logins to image registries, by canonical host. Passwords
// are sealed: neither log nor snapshot has them in clear.
var registries = table[workspace.Registry]{name: "registries", indexes: []index[workspace.Registry]{
	{name: "id", key: func(r *workspace.Registry) []byte { return key(r.Host) }},
}}

// SetRegistry makes or replaces the login to a registry.
type SetRegistry struct {
	Host     string           `cbor:"1,keyasint"`
	Username string           `cbor:"2,keyasint"`
	Password workspace.Sealed `cbor:"3,keyasint"`
}

// Type is TypeSetRegistry.
func (*SetRegistry) Type() Type { return TypeSetRegistry }

func (c *SetRegistry) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	n := &workspace.Registry{Host: workspace.CanonicalRegistry(c.Host), Username: c.Username, Password: c.Password,
		CreatedAt: t.at, UpdatedAt: t.at, ModifyIndex: t.index}
	if err := n.Validate(); err != nil {
		return err
	}
	if len(c.Password.Sealed) == 0 {
		return workspace.InvalidField("password", "is required")
	}
	if old := registries.get(t, "id", n.Host); old != nil {
		n.CreatedAt = old.CreatedAt
	}
	registries.put(t, n)
	t.result.Object = n.Host
	t.event(workspace.Event{Type: "registry.set", Object: n.Host, Message: "login to registry " + n.Host + " set, as " + n.Username})
	return nil
}

// RemoveRegistry forgets the login to a registry.
type RemoveRegistry struct {
	Host string `cbor:"1,keyasint"`
}

// Type is TypeRemoveRegistry.
func (*RemoveRegistry) Type() Type { return TypeRemoveRegistry }

func (c *RemoveRegistry) apply(t *tx) error {
	if err := t.needAdmin(); err != nil {
		return err
	}
	old := registries.get(t, "id", workspace.CanonicalRegistry(c.Host))
	if old == nil {
		return workspace.Errorf(workspace.CodeNotFound, "there is no login to registry %.80q", c.Host)
	}
	registries.delete(t, old)
	t.result.Object = old.Host
	t.event(workspace.Event{Type: "registry.removed", Object: old.Host, Message: "login to registry " + old.Host + " removed"})
	return nil
}

// Registry is the login to a registry, by any name of its host; nil when there
// is none.
func (v View) Registry(host string) *workspace.Registry {
	return registries.get(v.txn, "id", workspace.CanonicalRegistry(host))
}

// Registries in order of host.
func (v View) Registries() iter.Seq[*workspace.Registry] { return registries.each(v.txn, "id") }
