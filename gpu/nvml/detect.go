package nvml

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"berth/gpu"
)

// Where the NVIDIA kernel driver shows that it is loaded, below the root.
const (
	procVersion = "proc/driver/nvidia/version"
	sysModule   = "sys/module/nvidia"
)

// Kernel is what this host's kernel says of the NVIDIA driver.
type Kernel struct {
	Loaded  bool
	Version string // such as "550.54.15"; empty when it doesn't say
}

// Detect reports whether an NVIDIA driver is loaded on the host whose file
// system begins at root ("/"). It needs no library of the driver. A path that
// exists but can't be read counts as loaded: simulated devices must never
// stand beside real ones.
func Detect(root string) Kernel {
	var driver Kernel
	for _, place := range []struct{ present, version string }{
		{procVersion, procVersion},
		{sysModule, filepath.Join(sysModule, "version")},
	} {
		if _, err := os.Stat(filepath.Join(root, place.present)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		driver.Loaded = true
		if driver.Version == "" {
			driver.Version = readVersion(filepath.Join(root, place.version))
		}
	}
	return driver
}

// versionNumber is the first dotted number of the file, which is the driver's
// version for the closed and the open kernel module alike.
var versionNumber = regexp.MustCompile(`\b[0-9]+\.[0-9]+(\.[0-9]+)?\b`)

func readVersion(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(versionNumber.Find(text))
}

// noDriver is the inventory of a host without a loaded driver.
func noDriver() gpu.Inventory {
	return gpu.Inventory{
		Source:  "none",
		Message: "no NVIDIA driver is loaded: neither /" + procVersion + " nor /" + sysModule + " exists",
		Devices: []gpu.Info{},
	}
}
