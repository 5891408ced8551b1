package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/google/uuid"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/runtime"
)

// imageDetails is what Create needs of an image. It follows from the digest, so
// it is read once.
type imageDetails struct {
	config ocispec.ImageConfig
	user   specs.User
	parent string // key of the snapshot to start from
}

// platform is this host's; other platforms of an image are ignored.
func (r *Runtime) platform() platforms.MatchComparer { return platforms.Default() }

// Images implements runtime.Runtime.
func (r *Runtime) Images(ctx context.Context) ([]runtime.Image, error) {
	stored, err := r.client.ImageService().List(ctx)
	if err != nil {
		return nil, r.failed(err, "list images")
	}
	list := make([]runtime.Image, 0, len(stored))
	for _, image := range stored {
		described, err := r.described(ctx, image)
		if err != nil && !errdefs.IsNotFound(err) { // content of an image being removed
			return nil, r.failed(err, "size of image %s", image.Name)
		}
		list = append(list, described)
	}
	return list, nil
}

// described is an image as the contract has it, also when its size can't be told.
func (r *Runtime) described(ctx context.Context, image images.Image) (runtime.Image, error) {
	size, err := image.Size(ctx, r.client.ContentStore(), r.platform())
	pulled, _ := time.Parse(time.RFC3339, image.Labels[labelPulled]) // absent: imported
	return runtime.Image{Reference: image.Name, Digest: image.Target.Digest.String(), Size: size, Pulled: pulled.UTC()}, err
}

// RemoveImage implements runtime.Runtime. Content that no other image uses is
// gone when it returns.
func (r *Runtime) RemoveImage(ctx context.Context, reference string) error {
	r.images.Lock()
	defer r.images.Unlock()
	if _, err := r.client.ImageService().Get(ctx, reference); err != nil {
		return r.failed(err, "image %s", reference)
	}
	users, err := r.client.ContainerService().List(ctx, fmt.Sprintf("image==%q", reference))
	if err != nil {
		return r.failed(err, "list the containers of image %s", reference)
	}
	if len(users) > 0 {
		return fmt.Errorf("image %s: container %s was made from it (%d in all); delete that first: %w",
			reference, users[0].ID, len(users), runtime.ErrInUse)
	}
	if err := r.client.ImageService().Delete(ctx, reference, images.SynchronousDelete()); err != nil {
		return r.failed(err, "remove image %s", reference)
	}
	return nil
}

// image finds what a container is to be made from. wanted, when not empty, is
// the digest it must have.
func (r *Runtime) image(ctx context.Context, reference, wanted string) (images.Image, *imageDetails, error) {
	image, err := r.client.ImageService().Get(ctx, reference)
	if err != nil {
		return images.Image{}, nil, r.failed(err, "image %q on this host", reference)
	}
	digest := image.Target.Digest
	if wanted != "" && digest.String() != wanted {
		return images.Image{}, nil, fmt.Errorf("image %s is %s on this host, %s is wanted; import that one: %w",
			reference, digest, wanted, runtime.ErrNotFound)
	}
	r.mu.Lock()
	details := r.details[digest]
	r.mu.Unlock()
	if details != nil {
		return image, details, nil
	}
	if details, err = r.readDetails(ctx, image); err != nil {
		return images.Image{}, nil, r.failed(err, "read image %s", reference)
	}
	r.mu.Lock()
	r.details[digest] = details
	r.mu.Unlock()
	return image, details, nil
}

func (r *Runtime) readDetails(ctx context.Context, image images.Image) (*imageDetails, error) {
	store := r.client.ContentStore()
	descriptor, err := image.Config(ctx, store, r.platform())
	if err != nil {
		return nil, err
	}
	blob, err := content.ReadBlob(ctx, store, descriptor)
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(blob, &config); err != nil {
		return nil, fmt.Errorf("%w: its configuration: %w", runtime.ErrInvalid, err)
	}
	details := &imageDetails{config: config.Config, parent: identity.ChainID(config.RootFS.DiffIDs).String()}
	return details, r.resolveUser(ctx, image, details)
}

// resolveUser looks the image's user up in the image's own files, by means of a
// snapshot that lives only that long.
func (r *Runtime) resolveUser(ctx context.Context, image images.Image, details *imageDetails) error {
	name, err := r.snapshotterName(ctx)
	if err != nil {
		return err
	}
	ctx, release, err := r.lease(ctx)
	if err != nil {
		return err
	}
	defer release()
	snapshotter := r.client.SnapshotService(name)
	key := "user-" + uuid.NewString()
	if _, err := r.onUnpacked(ctx, image, func() ([]mount.Mount, error) {
		return snapshotter.View(ctx, key, details.parent)
	}); err != nil {
		return err
	}
	defer func() { _ = snapshotter.Remove(context.WithoutCancel(ctx), key) }()

	container := &containers.Container{Snapshotter: name, SnapshotKey: key}
	spec := &specs.Spec{Process: &specs.Process{}, Root: &specs.Root{}, Linux: &specs.Linux{}}
	if declared := details.config.User; declared != "" {
		if err := oci.WithUser(declared)(ctx, r.client, container, spec); err != nil {
			return fmt.Errorf("%w: user %q of the image: %w", runtime.ErrInvalid, declared, err)
		}
	}
	uid := strconv.FormatUint(uint64(spec.Process.User.UID), 10)
	if err := oci.WithAdditionalGIDs(uid)(ctx, r.client, container, spec); err != nil {
		return fmt.Errorf("groups of user %s: %w", uid, err)
	}
	details.user = spec.Process.User
	return nil
}

// onUnpacked makes a snapshot on top of the image's layers. They were unpacked
// at import; an image that came another way is unpacked now.
func (r *Runtime) onUnpacked(ctx context.Context, image images.Image, snapshot func() ([]mount.Mount, error)) ([]mount.Mount, error) {
	mounts, err := snapshot()
	if err == nil || !errdefs.IsNotFound(native(err)) {
		return mounts, err
	}
	if err := r.unpack(ctx, image); err != nil {
		return nil, err
	}
	return snapshot()
}

func (r *Runtime) unpack(ctx context.Context, image images.Image) error {
	name, err := r.snapshotterName(ctx)
	if err != nil {
		return err
	}
	return client.NewImageWithPlatform(r.client, image, r.platform()).Unpack(ctx, name)
}

// leaseTime bounds what a crash in the middle leaves to containerd's garbage
// collector.
const leaseTime = time.Hour

// lease keeps what is made under the context it gives from containerd's garbage
// collector until release, which also collects what nothing refers to by then.
func (r *Runtime) lease(ctx context.Context) (leased context.Context, release func(), err error) {
	manager := r.client.LeasesService()
	lease, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime))
	if err != nil {
		return nil, nil, r.failed(err, "take a lease")
	}
	return leases.WithLease(ctx, lease.ID), func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
		defer cancel()
		if err := manager.Delete(bounded, lease, leases.SynchronousDelete); err != nil {
			r.cfg.Log.Warn("a lease in containerd stays until it expires", "error", err, "expires_in", leaseTime)
		}
	}, nil
}
