package doctor

import (
	"context"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// driverVersion is how NVIDIA numbers its drivers, such as 535.129.03.
var driverVersion = regexp.MustCompile(`\b\d{3,}\.\d+(?:\.\d+)?\b`)

func (e *exam) gpus(context.Context) {
	loaded := e.read("/proc/driver/nvidia/version")
	if loaded == "" {
		e.withoutDriver()
		return
	}
	first, _, _ := strings.Cut(loaded, "\n")
	version := driverVersion.FindString(first)
	e.ok("nvidia-driver", "the NVIDIA driver %s is loaded", version)
	e.driverLibraries(version)
	e.deviceNodes()
}

// withoutDriver looks on the PCI bus: 0x10de is NVIDIA, class 0x03 a display
// controller, which is what data centre GPUs are too.
func (e *exam) withoutDriver() {
	found := 0
	for _, dir := range e.glob("/sys/bus/pci/devices/*") {
		if e.read(dir+"/vendor") == "0x10de" && strings.HasPrefix(e.read(dir+"/class"), "0x03") {
			found++
		}
	}
	switch {
	case found == 0:
		e.ok("nvidia-driver", "no NVIDIA GPU on this host, and no driver: it offers none, or simulated ones")
	case e.exists("/sys/module/nouveau"):
		e.warn("nvidia-driver", "install NVIDIA's driver (Debian: nvidia-driver) and reboot", "%d NVIDIA GPUs on this host are driven by nouveau: they can't be offered", found)
	default:
		e.warn("nvidia-driver", "install NVIDIA's driver, or see why it isn't loaded: modprobe nvidia; dmesg", "%d NVIDIA GPUs on this host have no driver: they can't be offered", found)
	}
}

// libraryDirs are where distributions and NVIDIA's installer put the driver's
// libraries.
var libraryDirs = []string{"/usr/lib/*-linux-gnu", "/usr/lib/*-linux-gnu/nvidia/current", "/usr/lib64", "/usr/lib", "/usr/local/lib"}

// driverLibraries compares the libraries with the module: after an upgrade of
// the packages under a running kernel neither works with the other.
func (e *exam) driverLibraries(version string) {
	for _, library := range []struct{ name, install string }{
		{"libnvidia-ml", "install the driver's libraries (Debian: libnvidia-ml1)"},
		{"libcuda", "install the driver's CUDA library (Debian: libcuda1)"},
	} {
		var versions []string
		soname := false
		for _, dir := range libraryDirs {
			for _, file := range e.glob(dir + "/" + library.name + ".so.*") {
				soname = soname || filepath.Base(file) == library.name+".so.1"
				if v := driverVersion.FindString(filepath.Base(file)); v != "" {
					versions = append(versions, v)
				}
			}
		}
		switch {
		case len(versions) == 0 && !soname:
			e.fail("nvidia-"+library.name, library.install, "%s.so.1 isn't on this host", library.name)
		case len(versions) == 0:
			e.warn("nvidia-"+library.name, "", "%s.so.1 doesn't tell its version: whether it fits the driver %s is unknown", library.name, version)
		case !slices.Contains(versions, version):
			e.fail("nvidia-"+library.name, "reboot this host, once its instances are stopped",
				"reboot required: the loaded driver is %s, but %s is of %s", version, library.name, strings.Join(versions, ", "))
		case !soname:
			e.fail("nvidia-"+library.name, "ldconfig", "%s.so.%s has no link %s.so.1", library.name, version, library.name)
		default:
			e.ok("nvidia-"+library.name, "%s.so.1 is of the loaded driver's version", library.name)
		}
	}
}

var minorLine = regexp.MustCompile(`(?m)^Device Minor:\s+(\d+)`)

func (e *exam) deviceNodes() {
	want := []string{"/dev/nvidiactl"}
	gpus := e.glob("/proc/driver/nvidia/gpus/*/information")
	for _, file := range gpus {
		if m := minorLine.FindStringSubmatch(e.read(file)); m != nil {
			want = append(want, "/dev/nvidia"+m[1])
		}
	}
	missing := slices.DeleteFunc(want, e.exists)
	switch {
	case len(missing) > 0:
		e.fail("nvidia-devices", "nvidia-smi, which makes them; see dmesg if it can't", "device nodes are missing: %s", strings.Join(missing, ", "))
	case !e.exists("/dev/nvidia-uvm"):
		e.warn("nvidia-devices", "nvidia-modprobe -c 0 -u", "/dev/nvidia-uvm is missing: CUDA can't work in containers until it is there")
	default:
		e.ok("nvidia-devices", "the device nodes of %d GPUs, nvidiactl and nvidia-uvm are there", len(gpus))
	}
}
