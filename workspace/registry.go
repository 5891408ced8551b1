package workspace

import (
	"cmp"
	"regexp"
	"strings"
	"time"
)

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

// DefaultRegistry is where an image comes from whose reference names no registry.
const DefaultRegistry = "docker.io"

var registryHost = regexp.MustCompile(`^(localhost|[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+|[a-z0-9-]+:[0-9]{1,5}|\[[0-9a-f:]+\])(:[0-9]{1,5})?$`)

// CanonicalRegistry is the name under which a registry's login is kept.
func CanonicalRegistry(host string) string {
	host = strings.ToLower(host)
	switch host {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return DefaultRegistry
	}
	return host
}

// RegistryOf is the registry that an image reference names: its first part, if
// that has a dot or a port or is localhost, else DefaultRegistry.
func RegistryOf(reference string) string {
	first, rest, _ := strings.Cut(reference, "/")
	if rest == "" || first != "localhost" && !strings.ContainsAny(first, ".:") {
		return DefaultRegistry
	}
	return CanonicalRegistry(first)
}

// Validate checks a login: the password is sealed already.
func (r *Registry) Validate() error {
	if !registryHost.MatchString(r.Host) {
		return InvalidField("host", "%.80q is not a registry's host, such as ghcr.io or registry.lab:5000", r.Host)
	}
	if r.Username == "" {
		return InvalidField("username", "is required")
	}
	return cmp.Or(validateName("host", r.Host, MaxName), validateName("username", r.Username, MaxName))
}
