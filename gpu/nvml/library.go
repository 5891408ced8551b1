package nvml

import (
	"cmp"
	"errors"
	"fmt"
	"sync"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// defaultLibrary is NVML as the loader finds it.
const defaultLibrary = "libnvidia-ml.so.1"

// library is NVML, loaded and initialised: in the child process only. Calling
// what an old driver lacks ends the process (exit 127), so has is asked first.
type library struct {
	nvml.Interface
	mu      sync.Mutex
	symbols map[string]bool
}

// openLibrary loads the library and starts it. A failure is final for this
// process: the loader keeps a library by its name, and would never see one that
// was exchanged since.
func openLibrary(path string) (*library, error) {
	path = cmp.Or(path, defaultLibrary)
	file := dl.New(path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := file.Open(); err != nil {
		return nil, fmt.Errorf("load the driver's library: %w", err)
	}
	for _, needed := range []string{"nvmlErrorString", "nvmlShutdown", "nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo"} {
		if err := file.Lookup(needed); err != nil {
			return nil, fmt.Errorf("%s is no NVML of a driver that can be used: %w", path, err)
		}
	}
	if file.Lookup("nvmlInit_v2") != nil && file.Lookup("nvmlInit") != nil {
		return nil, fmt.Errorf("%s is no NVML: it lacks nvmlInit", path)
	}
	l := &library{Interface: nvml.New(nvml.WithLibraryPath(path)), symbols: map[string]bool{}}
	if ret := l.Init(); ret != nvml.SUCCESS {
		return nil, initError(ret)
	}
	return l, nil
}

// initError says what to do where a person can do something.
func initError(ret nvml.Return) error {
	switch ret {
	case nvml.ERROR_LIB_RM_VERSION_MISMATCH:
		return fmt.Errorf("%s: the driver's files were replaced under the loaded kernel module, reboot this host", ret.Error())
	case nvml.ERROR_DRIVER_NOT_LOADED:
		return fmt.Errorf("%s: the library can't reach the kernel module, look for \"NVRM\" in the kernel's log", ret.Error())
	default:
		return fmt.Errorf("start NVML: %s", ret.Error())
	}
}

// restart shuts the library down and initialises it again: only then a device
// that was lost, and reset since, is seen.
func (l *library) restart() error {
	_ = l.Shutdown()
	if ret := l.Init(); ret != nvml.SUCCESS {
		return initError(ret)
	}
	return nil
}

// has reports whether the library has one of the symbols: the versions of one
// function, of which go-nvml calls the newest.
func (l *library) has(symbols ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, symbol := range symbols {
		known, ok := l.symbols[symbol]
		if !ok {
			known = l.Extensions().LookupSymbol(symbol) == nil
			l.symbols[symbol] = known
		}
		if known {
			return true
		}
	}
	return false
}

var errNotOpen = errors.New("the driver's library isn't open")

// isLost reports whether the driver has lost the device that was asked.
func isLost(ret nvml.Return) bool {
	return ret == nvml.ERROR_GPU_IS_LOST || ret == nvml.ERROR_RESET_REQUIRED
}
