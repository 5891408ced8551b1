package containerd

import (
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/runtime"
)

func validateExec(spec runtime.ExecSpec) error {
	if len(spec.Args) == 0 || spec.Args[0] == "" {
		return fmt.Errorf("%w: no command to run", runtime.ErrInvalid)
	}
	for _, variable := range spec.Env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" {
			return fmt.Errorf("%w: environment entry %q isn't KEY=value", runtime.ErrInvalid, variable)
		}
	}
	if spec.Dir != "" && !path.IsAbs(spec.Dir) {
		return fmt.Errorf("%w: directory %q must be absolute", runtime.ErrInvalid, spec.Dir)
	}
	for _, text := range slices.Concat(spec.Args, spec.Env, []string{spec.Dir}) {
		if strings.ContainsRune(text, 0) {
			return fmt.Errorf("%w: %q has a zero byte in it", runtime.ErrInvalid, text)
		}
	}
	return nil
}

// execProcess is the container's own process with another command: the same
// confinement, limits and environment. HOME is runc's doing, for both.
func execProcess(encoded []byte, spec runtime.ExecSpec) (*specs.Process, error) {
	var container struct {
		Process *specs.Process `json:"process"`
		Mounts  []specs.Mount  `json:"mounts"`
	}
	if err := json.Unmarshal(encoded, &container); err != nil {
		return nil, fmt.Errorf("read the container's spec: %w", err)
	}
	p := container.Process
	if p == nil {
		return nil, fmt.Errorf("the container's spec has no process")
	}
	p.Args = spec.Args
	p.Env = mergeEnv(p.Env, spec.Env)
	if hasDriver(container.Mounts) {
		p.Env = findDriver(p.Env)
	}
	p.Cwd = cmp.Or(spec.Dir, p.Cwd)
	if spec.User != nil {
		p.User = specs.User{UID: spec.User.UID, GID: spec.User.GID}
	}
	p.Terminal, p.ConsoleSize = spec.Terminal, nil
	if spec.Terminal {
		p.Env = mergeEnv([]string{"TERM=xterm"}, p.Env)
		if spec.Size != (runtime.TerminalSize{}) {
			p.ConsoleSize = &specs.Box{Width: uint(spec.Size.Columns), Height: uint(spec.Size.Rows)}
		}
	}
	return p, nil
}
