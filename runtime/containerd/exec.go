package containerd

import (
	"context"
	"errors"

	"berth/runtime"
)

// Exec implements runtime.Executor.
func (r *Runtime) Exec(_ context.Context, _ string, _ runtime.ExecSpec, _ runtime.ExecStreams) (int, error) {
	return 0, errors.ErrUnsupported
}
