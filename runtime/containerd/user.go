package containerd

import (
	"context"

	"berth/runtime"
)

// ImageUser implements runtime.Puller: the user that Create gives a container's
// processes. ErrInvalid when the image names one that its own files don't have.
func (r *Runtime) ImageUser(ctx context.Context, reference string) (runtime.User, error) {
	r.images.RLock()
	defer r.images.RUnlock()
	_, details, err := r.image(ctx, reference, "")
	if err != nil {
		return runtime.User{}, err
	}
	return runtime.User{UID: details.user.UID, GID: details.user.GID}, nil
}
