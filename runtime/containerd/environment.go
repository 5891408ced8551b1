package containerd

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/runtime"
)

const (
	defaultPath    = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	loaderVariable = "LD_LIBRARY_PATH"
)

// environment is the image's under the container's, without NVIDIA_*.
func environment(image *imageDetails, own []string) []string {
	env := mergeEnv([]string{"PATH=" + defaultPath}, image.config.Env, own)
	return slices.DeleteFunc(env, func(variable string) bool { return strings.HasPrefix(variable, "NVIDIA_") })
}

// mergeEnv joins KEY=value lists, sorted; later ones win.
func mergeEnv(lists ...[]string) []string {
	values := map[string]string{}
	for _, variable := range slices.Concat(lists...) {
		name, value, _ := strings.Cut(variable, "=")
		values[name] = value
	}
	env := make([]string, 0, len(values))
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env = append(env, name+"="+values[name])
	}
	return env
}

// hasDriver says whether a device brought libraries of its driver.
func hasDriver(mounts []specs.Mount) bool {
	return slices.ContainsFunc(mounts, func(m specs.Mount) bool {
		target := path.Clean(m.Destination)
		return target == runtime.DriverLibDir || strings.HasPrefix(target, runtime.DriverLibDir+"/")
	})
}

// findDriver makes the loader look for the driver's libraries first. It adds no
// empty element to the variable, which would stand for the working directory.
func findDriver(env []string) []string {
	for _, variable := range env {
		if value, ok := strings.CutPrefix(variable, loaderVariable+"="); ok && value != "" {
			first, _, _ := strings.Cut(value, ":")
			if first == runtime.DriverLibDir {
				return env
			}
			return mergeEnv(env, []string{loaderVariable + "=" + runtime.DriverLibDir + ":" + value})
		}
	}
	return mergeEnv(env, []string{loaderVariable + "=" + runtime.DriverLibDir})
}
