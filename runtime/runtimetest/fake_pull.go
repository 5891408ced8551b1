package runtimetest

import (
	"context"
	"errors"

	"berth/runtime"
)

// Resolve is not part of the fake yet.
func (f *Fake) Resolve(_ context.Context, _ runtime.ImageSource) (string, error) {
	return "", errors.ErrUnsupported
}

// Pull is not part of the fake yet.
func (f *Fake) Pull(_ context.Context, _ runtime.ImageSource, _ func(runtime.PullProgress)) (runtime.Image, error) {
	return runtime.Image{}, errors.ErrUnsupported
}

// ImageUser is root.
func (f *Fake) ImageUser(_ context.Context, _ string) (runtime.User, error) {
	return runtime.User{}, nil
}
