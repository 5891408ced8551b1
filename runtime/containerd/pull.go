package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/runtime"
)

// labelPulled is on images that came from a registry; its value is when.
const labelPulled = "berth.dev/pulled"

// Resolve implements runtime.Puller.
func (r *Runtime) Resolve(ctx context.Context, source runtime.ImageSource) (string, error) {
	remote, err := r.remote(ctx, source)
	if err != nil {
		return "", err
	}
	target, err := remote.resolve(ctx)
	if err != nil {
		return "", err
	}
	return target.Digest.String(), nil
}

// Pull implements runtime.Puller. The image is stored under the reference as it
// was asked for, which is what a run's spec names. Pulls of one name take turns,
// so that the second finds what the first has fetched; those of different names
// share the layers that they have in common.
func (r *Runtime) Pull(ctx context.Context, source runtime.ImageSource, progress func(runtime.PullProgress)) (runtime.Image, error) {
	remote, err := r.remote(ctx, source)
	if err != nil {
		return runtime.Image{}, err
	}
	meter := startMeter(progress)
	defer meter.stop()
	release, err := r.pulls.take(ctx, remote.name, meter)
	if err != nil {
		return runtime.Image{}, fmt.Errorf("image %s: wait for another pull of it: %w", remote.name, err)
	}
	defer release()
	target, err := remote.resolve(ctx)
	if err != nil {
		return runtime.Image{}, err
	}
	leased, lease, err := r.leasePull(ctx, remote.full)
	if err != nil {
		return runtime.Image{}, err
	}
	p := &pull{Runtime: r, remote: remote, meter: meter}
	image, err := p.run(leased, target)
	switch {
	case err == nil, errors.Is(err, runtime.ErrInvalid), errors.Is(err, runtime.ErrPlatform), errors.Is(err, runtime.ErrNoSpace):
		r.endLease(ctx, lease) // what was fetched is the image's, or never of use
	}
	return image, err
}

// pull is one that goes on.
type pull struct {
	*Runtime
	remote *remoteImage
	meter  *meter
}

// run fetches the documents first, so that all that can be refused by them is,
// then the layers, and names the image after all is unpacked.
func (p *pull) run(ctx context.Context, target ocispec.Descriptor) (runtime.Image, error) {
	found, err := p.documents(ctx, target)
	if err != nil {
		return runtime.Image{}, p.explain(ctx, err)
	}
	if err := p.layers(ctx, found); err != nil {
		return runtime.Image{}, p.explain(ctx, err)
	}
	image := images.Image{
		Name: p.remote.name, Target: target,
		Labels: map[string]string{labelPulled: time.Now().UTC().Format(time.RFC3339)},
	}
	if err := p.tie(ctx, image, found); err != nil {
		return runtime.Image{}, p.explain(ctx, err)
	}
	p.meter.unpacking()
	stored, err := p.unpackBounded(ctx, image)
	if err != nil {
		return runtime.Image{}, p.explain(ctx, err)
	}
	if err := p.nameImage(ctx, image); err != nil {
		return runtime.Image{}, p.failed(err, "store image %s", image.Name)
	}
	return stored, nil
}

// explain names the image in an error, and turns containerd's into the
// contract's.
func (p *pull) explain(ctx context.Context, err error) error {
	what := "pull image " + p.remote.name
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	for _, class := range []error{
		runtime.ErrInvalid, runtime.ErrPlatform, runtime.ErrNoSpace, runtime.ErrDenied, runtime.ErrRegistry,
		runtime.ErrNotFound, runtime.ErrUnavailable,
	} {
		if errors.Is(err, class) {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return p.failed(err, "%s", what)
}
