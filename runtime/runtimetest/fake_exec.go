package runtimetest

import (
	"context"
	"errors"

	"berth/runtime"
)

// Exec is not part of the fake yet.
func (f *Fake) Exec(_ context.Context, _ string, _ runtime.ExecSpec, _ runtime.ExecStreams) (int, error) {
	return 0, errors.ErrUnsupported
}
