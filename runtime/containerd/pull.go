package containerd

import (
	"context"
	"errors"

	"berth/runtime"
)

// Resolve implements runtime.Puller.
func (r *Runtime) Resolve(_ context.Context, _ runtime.ImageSource) (string, error) {
	return "", errors.ErrUnsupported
}

// Pull implements runtime.Puller.
func (r *Runtime) Pull(_ context.Context, _ runtime.ImageSource, _ func(runtime.PullProgress)) (runtime.Image, error) {
	return runtime.Image{}, errors.ErrUnsupported
}

// ImageUser implements runtime.Puller.
func (r *Runtime) ImageUser(ctx context.Context, reference string) (runtime.User, error) {
	_, details, err := r.image(ctx, reference, "")
	if err != nil {
		return runtime.User{}, err
	}
	return runtime.User{UID: details.user.UID, GID: details.user.GID}, nil
}
