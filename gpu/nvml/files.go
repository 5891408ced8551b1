package nvml

import (
	"cmp"
	"debug/elf"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/nvidia-container-toolkit/pkg/nvcdi"
	"github.com/sirupsen/logrus"
)

// Mount is a file of the driver that containers get, read-only.
type Mount struct {
	Source string `json:"source"`
	Target string `json:"target"`            // inside; of a library, its name
	Lib    bool   `json:"library,omitempty"` // a library: it goes where the container's loader is told to look
}

// knownVersion answers the one question that the discovery of files has for the
// driver. Any other call would load its library here: it ends the child.
type knownVersion struct {
	nvml.Interface
	version string
}

// Init does nothing.
func (knownVersion) Init() nvml.Return { return nvml.SUCCESS }

// Shutdown does nothing.
func (knownVersion) Shutdown() nvml.Return { return nvml.SUCCESS }

// SystemGetDriverVersion gives what was read before.
func (k knownVersion) SystemGetDriverVersion() (string, nvml.Return) { return k.version, nvml.SUCCESS }

// discoverFiles finds the libraries, programs and firmware of the driver below
// root, as NVIDIA's own tools do, and says what is missing. Nothing of it runs
// in a container by itself: hooks and sockets are left out.
func discoverFiles(root, version string) (files []Mount, notes []string) {
	found, err := findFiles(root, version)
	if err != nil {
		why, _, _ := strings.Cut(err.Error(), "\n")
		return nil, []string{fmt.Sprintf("containers get no libraries of the driver: those of version %s aren't installed below %s (%s)", version, root, why)}
	}
	taken := map[string]bool{}
	for _, f := range found {
		for _, m := range mountsOf(f) {
			if !taken[m.Target] {
				taken[m.Target] = true
				files = append(files, m)
			}
		}
	}
	if !taken["libcuda.so.1"] {
		notes = append(notes, fmt.Sprintf("libcuda.so.%s isn't installed: CUDA can't work in containers; install the driver's CUDA library (Debian: libcuda1)", version))
	}
	slices.SortFunc(files, func(a, b Mount) int { return cmp.Compare(a.Target, b.Target) })
	return files, notes
}

type foundFile struct{ host, inside string }

func findFiles(root, version string) ([]foundFile, error) {
	quiet := logrus.New()
	quiet.SetLevel(logrus.ErrorLevel)
	lib, err := nvcdi.New(
		nvcdi.WithMode(nvcdi.ModeManagement),
		nvcdi.WithDriverRoot(root),
		nvcdi.WithNvmlLib(knownVersion{version: version}),
		nvcdi.WithDisabledHooks("all"),
		nvcdi.WithFeatureFlags(nvcdi.FeatureDisableNvsandboxUtils, nvcdi.FeatureDisableIPCDiscoverer),
		nvcdi.WithLogger(quiet),
	)
	if err != nil {
		return nil, err
	}
	edits, err := lib.GetCommonEdits()
	if err != nil {
		return nil, err
	}
	var found []foundFile
	for _, m := range edits.Mounts {
		found = append(found, foundFile{m.HostPath, m.ContainerPath})
	}
	return found, nil
}

// mountsOf says where a file goes. A library goes by the name that the loader
// asks for: in a container no loader cache knows the driver's.
func mountsOf(f foundFile) []Mount {
	name := path.Base(f.inside)
	if !strings.Contains(name, ".so.") {
		return []Mount{{Source: f.host, Target: f.inside}}
	}
	soname, ok := sonameOf(f.host)
	if !ok {
		return nil
	}
	mounts := []Mount{{Source: f.host, Target: soname, Lib: true}}
	if plain, _, _ := strings.Cut(soname, ".so."); plain == "libcuda" {
		// Some programs open it without a version.
		mounts = append(mounts, Mount{Source: f.host, Target: "libcuda.so", Lib: true})
	}
	return mounts
}

// sonameOf is the name under which the loader knows a library of this machine's
// kind; false for one of another kind, such as 32 bits.
func sonameOf(file string) (string, bool) {
	self, err := elf.Open("/proc/self/exe")
	if err != nil {
		return "", false
	}
	defer func() { _ = self.Close() }()
	lib, err := elf.Open(file)
	if err != nil {
		return "", false
	}
	defer func() { _ = lib.Close() }()
	if lib.Machine != self.Machine || lib.Class != self.Class {
		return "", false
	}
	names, err := lib.DynString(elf.DT_SONAME)
	if err != nil || len(names) == 0 || names[0] != filepath.Base(names[0]) {
		return filepath.Base(file), true
	}
	return names[0], true
}
