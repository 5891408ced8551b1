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
