package containerd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/runtime"
)

// remoteImage is an image as its registry and the mirrors of that have it.
type remoteImage struct {
	name      string // as asked for: that of the stored image
	full      string // with registry and tag, or digest
	endpoints []*endpoint
}

// endpoint is a registry or a mirror, as one pull asks it.
type endpoint struct {
	address  address
	mirror   bool
	password string // never in an error
	resolver remotes.Resolver
	fetcher  remotes.Fetcher
	broken   atomic.Bool // a mirror that isn't asked again
}

func (e *endpoint) name() string {
	if e.mirror {
		return "mirror " + e.address.host
	}
	return "registry " + e.address.host
}

// remote says where an image is to be asked for. The registry needn't exist.
func (r *Runtime) remote(ctx context.Context, source runtime.ImageSource) (*remoteImage, error) {
	named, err := parseReference(source)
	if err != nil {
		return nil, err
	}
	domain := reference.Domain(named)
	if !r.registries.allows(domain) {
		return nil, fmt.Errorf("%w: image %s: this host takes no images of registry %s (images.allowed_registries in the daemon's configuration)",
			runtime.ErrDenied, source.Reference, domain)
	}
	m := &remoteImage{name: source.Reference, full: named.String()}
	addresses := r.registries.addresses(domain)
	own := addresses[len(addresses)-1]
	for i, address := range addresses {
		e := &endpoint{address: address, mirror: i < len(addresses)-1}
		login := source
		if address.hostPort() != own.hostPort() {
			login.Username, login.Password = "", ""
		}
		if err := e.connect(ctx, r.registries, m.full, login); err != nil {
			return nil, fmt.Errorf("%w: image %s: %w", runtime.ErrInvalid, source.Reference, err)
		}
		m.endpoints = append(m.endpoints, e)
	}
	return m, nil
}

// parseReference gives the whole name of an image: its registry, and a tag or a
// digest.
func parseReference(source runtime.ImageSource) (reference.Named, error) {
	invalid := func(err error) error {
		return fmt.Errorf("%w: %.100q can't be an image of a registry; it should be such as busybox:1 or ghcr.io/lab/train:1: %w",
			runtime.ErrInvalid, source.Reference, err)
	}
	if !validReference.MatchString(source.Reference) {
		return nil, invalid(errors.New("a character it can't have, or too many"))
	}
	named, err := reference.ParseNormalizedNamed(source.Reference)
	if err != nil {
		return nil, invalid(err)
	}
	pinned := digest.Digest(source.Digest)
	if digested, ok := named.(reference.Digested); ok {
		if pinned != "" && pinned != digested.Digest() {
			return nil, invalid(fmt.Errorf("its digest isn't the one that is wanted, %.100q", source.Digest))
		}
		pinned = digested.Digest()
	}
	if pinned == "" {
		return reference.TagNameOnly(named), nil
	}
	if pinned.Algorithm() != digest.SHA256 || pinned.Validate() != nil {
		return nil, invalid(fmt.Errorf("digest %.100q isn't sha256 and 64 hexadecimal digits", pinned))
	}
	return reference.WithDigest(reference.TrimNamed(named), pinned)
}

// connect makes the clients. Nothing is sent yet.
func (e *endpoint) connect(ctx context.Context, g *registries, full string, login runtime.ImageSource) error {
	e.password = login.Password
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(g.tokens()), docker.WithAuthCreds(func(host string) (string, string, error) {
		if host != e.address.host {
			return "", "", nil
		}
		return login.Username, login.Password, nil
	}))
	resolver := func(client *http.Client) remotes.Resolver {
		return docker.NewResolver(docker.ResolverOptions{
			Headers: http.Header{"User-Agent": {"berth"}},
			Hosts: func(string) ([]docker.RegistryHost, error) {
				return []docker.RegistryHost{{
					Client: client, Authorizer: authorizer,
					Host: e.address.host, Scheme: e.address.scheme, Path: e.address.path,
					Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
				}}, nil
			},
		})
	}
	e.resolver = resolver(g.documents())
	var err error
	e.fetcher, err = resolver(g.blobs()).Fetcher(ctx, full)
	return err
}

// ask goes through the mirrors and the registry until one has it. What the
// registry says counts, where none has.
func (m *remoteImage) ask(ctx context.Context, try func(*endpoint) error) error {
	var notes string
	for _, e := range m.endpoints {
		if e.broken.Load() {
			continue
		}
		err := try(e)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if ours := (*storeError)(nil); errors.As(err, &ours) {
			return err
		}
		if err = e.explain(err); !e.mirror {
			return fmt.Errorf("%w%s", err, notes)
		}
		e.broken.Store(!errors.Is(err, runtime.ErrNotFound))
		notes += "; before it, " + err.Error()
	}
	return fmt.Errorf("%w: no registry to ask", runtime.ErrRegistry) // never: the last isn't a mirror
}

// storeError is of this host's containerd: no other endpoint helps.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// resolve finds what the image's name means now.
func (m *remoteImage) resolve(ctx context.Context) (ocispec.Descriptor, error) {
	var found ocispec.Descriptor
	err := m.ask(ctx, func(e *endpoint) error {
		_, target, err := e.resolver.Resolve(ctx, m.full)
		if err != nil {
			return err
		}
		switch {
		case target.MediaType == images.MediaTypeDockerSchema1Manifest:
			return fmt.Errorf("%w: it is in the first format of Docker, which nothing takes any more; build it anew", runtime.ErrInvalid)
		case !images.IsManifestType(target.MediaType) && !images.IsIndexType(target.MediaType):
			return fmt.Errorf("it answers with %.50q, which is no image", target.MediaType)
		case target.Size > maxDocument:
			return tooLarge("manifest "+target.Digest.String(), target.Size)
		}
		found = plainDescriptor(target)
		return nil
	})
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("image %s: %w", m.name, err)
	}
	return found, nil
}

// plainDescriptor has nothing that leads elsewhere: no URLs, contents or names.
func plainDescriptor(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Platform: d.Platform}
}
