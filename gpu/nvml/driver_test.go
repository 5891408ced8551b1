package nvml

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/gpu/gputest"
)

func gpuUUID(n int) string { return fmt.Sprintf("GPU-00000000-0000-0000-0000-%012d", n) }
func migUUID(n int) string { return fmt.Sprintf("MIG-00000000-0000-0000-0000-%012d", n) }

func TestDriverSuite(t *testing.T) {
	for name, lines := range map[string][]string{
		"two": nil, "eight with switches": {"gpus=8", "nvswitch=1"}, "none": {"gpus=0"}, "slices": {"mig=2"}, "MIG without slices": {"mig=0"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStub(t, "new")
			s.control(lines...)
			gputest.Suite(t, func(*testing.T) gpu.Reader { return NewDriver(s.cfg) })
		})
	}
	t.Run("old driver", func(t *testing.T) {
		s := newStub(t, "old")
		gputest.Suite(t, func(*testing.T) gpu.Reader { return NewDriver(s.cfg) })
	})
}

func TestInventoryOfADriver(t *testing.T) {
	s := newStub(t, "new")
	s.write(s.root+"/sys/bus/pci/devices/0000:0f:00.0/numa_node", "1\n")
	got := inventoryOf(t, s.open())
	device := gpu.Info{
		UUID: gpuUUID(0), Model: "NVIDIA A100-SXM4-80GB", Type: "A100-SXM4-80GB", Vendor: "NVIDIA",
		MemoryMiB: 81920, PCIBusID: "00000000:07:00.0", NUMANode: -1, Capability: "8.0",
	}
	second := device
	second.UUID, second.Index, second.Minor, second.PCIBusID, second.NUMANode = gpuUUID(1), 1, 1, "00000000:0F:00.0", 1
	want := gpu.Inventory{
		Source: "nvml", DriverVersion: "550.54.15", CUDAVersion: "12.4", Devices: []gpu.Info{device, second},
		Links: []gpu.Link{{A: gpuUUID(0), B: gpuUUID(1), NVLink: 4, PCIe: gpu.LinkSwitch}},
	}
	for _, part := range []string{"/dev/nvidia-uvm doesn't exist", "libraries of the driver"} {
		if !strings.Contains(got.Message, part) {
			t.Errorf("message %q, want it to say %q", got.Message, part)
		}
	}
	got.Message = ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestLinksThroughSwitches(t *testing.T) {
	s := newStub(t, "new")
	s.control("gpus=3", "nvswitch=1")
	want := []gpu.Link{
		{A: gpuUUID(0), B: gpuUUID(1), NVLink: 4, PCIe: gpu.LinkSwitch},
		{A: gpuUUID(0), B: gpuUUID(2), NVLink: 4, PCIe: gpu.LinkSystem},
		{A: gpuUUID(1), B: gpuUUID(2), NVLink: 4, PCIe: gpu.LinkSystem},
	}
	if diff := cmp.Diff(want, inventoryOf(t, s.open()).Links); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A driver that lacks most calls still tells what its devices are.
func TestOldDriver(t *testing.T) {
	s := newStub(t, "old")
	d := s.open()
	got := inventoryOf(t, d)
	if len(got.Devices) != 2 || got.Devices[1].UUID != gpuUUID(1) || got.Devices[1].PCIBusID != "" || got.CUDAVersion != "" {
		t.Errorf("%+v", got)
	}
	readings, err := d.Readings(t.Context())
	if err != nil || len(readings) != 2 {
		t.Fatalf("%v, %v", readings, err)
	}
	want := map[gpu.Quantity]float64{gpu.MemoryTotal: 81920 * mib, gpu.MemoryUsed: 1000 * mib, gpu.MemoryFree: 80920 * mib}
	if diff := cmp.Diff(want, readings[0].Values); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if processes, err := d.Processes(t.Context()); err != nil || len(processes) != 0 {
		t.Errorf("%v, %v", processes, err)
	}
	if status := d.Status(); status.Restarts != 0 || status.Unresponsive {
		t.Errorf("%+v", status)
	}
}

func TestReadings(t *testing.T) {
	s := newStub(t, "new")
	before := time.Now()
	readings, err := s.open().Readings(t.Context())
	if err != nil || len(readings) != 2 {
		t.Fatalf("%v, %v", readings, err)
	}
	if at := readings[0].At; at.Before(before) || at.After(time.Now()) {
		t.Errorf("read at %s", at)
	}
	want := map[gpu.Quantity]float64{
		gpu.Utilization: 0.75, gpu.MemoryUtilization: 0.2,
		gpu.MemoryTotal: 81920 * mib, gpu.MemoryUsed: 400 * mib, gpu.MemoryFree: 80920 * mib,
		gpu.Temperature: 54, gpu.MemoryTemperature: 61, gpu.Power: 251.5, gpu.PowerLimit: 400, gpu.Energy: 12345.678,
		gpu.SMClock: 1410e6, gpu.MemoryClock: 1593e6, gpu.ECCCorrected: 3, gpu.ECCUncorrected: 1,
		gpu.RemappedRows: 3, gpu.RemapPending: 1, gpu.RemapFailed: 0,
		gpu.PCIeReplays: 9, gpu.PCIeTX: 10000, gpu.PCIeRX: 20000, gpu.ThrottleReasons: 4,
	}
	near := cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) < 1e-6 })
	if diff := cmp.Diff(want, readings[0].Values, near); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProcesses(t *testing.T) {
	s := newStub(t, "new")
	s.control("mig=1")
	got, err := s.open().Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []gpu.Process{
		{UUID: migUUID(100), PID: 4242, UsedMiB: 310}, {UUID: migUUID(100), PID: 4343},
		{UUID: gpuUUID(1), PID: 4242, UsedMiB: 310}, {UUID: gpuUUID(1), PID: 4343},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// mixed is why a device with slices isn't offered itself.
const mixed = "MIG is enabled: its slices are offered in its place"

func TestSlices(t *testing.T) {
	s := newStub(t, "new")
	s.control("mig=0")
	d := s.open()
	devices := inventoryOf(t, d).Devices
	if len(devices) != 2 || !strings.Contains(devices[0].Unusable, "MIG is enabled and has no instance") || devices[1].Unusable != "" {
		t.Fatalf("without instances: %+v", devices)
	}
	s.control("mig=2")
	devices = inventoryOf(t, d).Devices
	if len(devices) != 4 || devices[0].Unusable != mixed {
		t.Fatalf("with instances: %+v", devices)
	}
	want := gpu.Info{
		UUID: migUUID(100), Model: "NVIDIA A100-SXM4-80GB MIG 3g.40gb", Type: "A100-SXM4-80GB-MIG-3G.40GB", Vendor: "NVIDIA",
		MemoryMiB: 40192, PCIBusID: "00000000:07:00.0", NUMANode: -1, Capability: "8.0", Parent: gpuUUID(0), Profile: "3g.40gb",
	}
	if diff := cmp.Diff(want, devices[1]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEvents(t *testing.T) {
	s := newStub(t, "new")
	s.control("mig=2")
	d := s.open()
	inventoryOf(t, d)
	events := watching(t, d)
	for _, test := range []struct {
		raised string
		want   gpu.Event
	}{
		{"8 79 1 4294967295 4294967295", gpu.Event{UUID: gpuUUID(1), Kind: gpu.EventXid, Code: 79}},
		{"8 13 0 2 0", gpu.Event{UUID: migUUID(101), Kind: gpu.EventXid, Code: 13}},
		{"8 48 0 4294967295 4294967295", gpu.Event{UUID: gpuUUID(0), Kind: gpu.EventXid, Code: 48}},
		{"1 0 1 0 0", gpu.Event{UUID: gpuUUID(1), Kind: gpu.EventSingleBitECC}},
		{"2 0 1 0 0", gpu.Event{UUID: gpuUUID(1), Kind: gpu.EventDoubleBitECC}},
	} {
		s.raise(test.raised)
		got := next(t, events)
		if since := time.Since(got.At); since < 0 || since > patience {
			t.Errorf("at %s", got.At)
		}
		got.At = time.Time{}
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", test.raised, got, test.want)
		}
	}
}

// A lost device is told once, stays listed, and comes back without a restart of
// the child.
func TestLostAndBack(t *testing.T) {
	s := newStub(t, "new")
	d := s.open()
	inventoryOf(t, d)
	events := watching(t, d)
	s.control("lost=1")
	if e := next(t, events); e.Kind != gpu.EventLost || e.UUID != gpuUUID(1) {
		t.Fatalf("%+v", e)
	}
	for range 3 {
		devices := inventoryOf(t, d).Devices
		if len(devices) != 2 || devices[0].Unusable != "" || devices[1].UUID != gpuUUID(1) || !strings.Contains(devices[1].Unusable, "lost") {
			t.Fatalf("lost: %+v", devices)
		}
	}
	if readings, err := d.Readings(t.Context()); err != nil || len(readings) != 1 || readings[0].UUID != gpuUUID(0) {
		t.Errorf("readings of a lost device: %+v, %v", readings, err)
	}
	s.control()
	if e := next(t, events); e.Kind != gpu.EventBack || e.UUID != gpuUUID(1) {
		t.Fatalf("%+v", e)
	}
	if devices := inventoryOf(t, d).Devices; len(devices) != 2 || devices[1].Unusable != "" {
		t.Errorf("back: %+v", devices)
	}
	if len(events) != 0 || d.Status().Restarts != 0 {
		t.Errorf("%d more events, %+v", len(events), d.Status())
	}
}

// A device can't be lost in silence while its process is started anew.
func TestLostWhileTheChildIsGone(t *testing.T) {
	s := newStub(t, "new")
	d := s.open()
	inventoryOf(t, d)
	s.control("lost=0", "crash=nvmlDeviceGetUtilizationRates")
	if _, err := d.Readings(t.Context()); !errors.Is(err, gpu.ErrUnresponsive) {
		t.Fatalf("error %v", err)
	}
	s.control("lost=0")
	events := watching(t, d)
	if e := next(t, events); e.Kind != gpu.EventLost || e.UUID != gpuUUID(0) {
		t.Fatalf("%+v", e)
	}
}

func TestMisbehavingLibrary(t *testing.T) {
	for _, test := range []struct{ control, want string }{
		{"hang=nvmlDeviceGetUtilizationRates", `no answer to "readings" within 500ms`},
		{"crash=nvmlDeviceGetUtilizationRates", "SIGSEGV: segmentation violation"},
		{"exit=nvmlDeviceGetUtilizationRates", "the library gives up"},
		{"exit=nvmlInit_v2", "the library gives up"},
		{"init=18", "version mismatch: the driver's files were replaced under the loaded kernel module, reboot this host"},
	} {
		t.Run(test.control, func(t *testing.T) {
			s := newStub(t, "new")
			s.cfg.CallTimeout = 500 * time.Millisecond
			s.control(test.control)
			d := s.open()
			events := watching(t, d)
			var err error
			eventually(t, "the reason is told", func() bool {
				_, err = d.Readings(t.Context())
				return err != nil && strings.Contains(err.Error(), test.want)
			})
			if !errors.Is(err, gpu.ErrUnresponsive) {
				t.Errorf("error %v", err)
			}
			status := d.Status()
			if !status.Unresponsive || status.Message == "" {
				t.Errorf("status %+v", status)
			}
			s.control()
			eventually(t, "it is read again", func() bool {
				readings, err := d.Readings(t.Context())
				return err == nil && len(readings) == 2
			})
			if status := d.Status(); status.Unresponsive || status.Restarts == 0 || time.Since(status.LastSuccess) > patience {
				t.Errorf("status %+v", status)
			}
			s.raise("8 31 0 4294967295 4294967295")
			if e := next(t, events); e.Code != 31 {
				t.Errorf("%+v", e)
			}
		})
	}
}

// What a call returns as an error is no reason to kill anything.
func TestErrorCodes(t *testing.T) {
	s := newStub(t, "new")
	d := s.open()
	s.control("fail=nvmlDeviceGetCount_v2")
	if _, err := d.Inventory(t.Context()); err == nil || errors.Is(err, gpu.ErrUnresponsive) || !strings.Contains(err.Error(), "count the devices: Unknown Error") {
		t.Errorf("error %v", err)
	}
	s.control("fail=nvmlDeviceGetName")
	if got := inventoryOf(t, d); len(got.Devices) != 0 || !strings.Contains(got.Message, "device 1 can't be read: Unknown Error") {
		t.Errorf("%+v", got)
	}
	s.control("fail=nvmlDeviceGetPowerUsage")
	inventoryOf(t, d)
	readings, err := d.Readings(t.Context())
	if err != nil || len(readings) != 2 {
		t.Fatalf("%v, %v", readings, err)
	}
	if _, ok := readings[0].Values[gpu.Power]; ok || readings[0].Values[gpu.Temperature] != 54 {
		t.Errorf("%v", readings[0].Values)
	}
	if status := d.Status(); status.Restarts != 0 || status.Unresponsive {
		t.Errorf("%+v", status)
	}
}

func TestBackOff(t *testing.T) {
	s := newStub(t, "new")
	s.cfg.MinBackoff, s.cfg.MaxBackoff = time.Hour, 2*time.Hour
	s.control("exit=nvmlInit_v2")
	d := s.open()
	if _, err := d.Inventory(t.Context()); !errors.Is(err, gpu.ErrUnresponsive) {
		t.Fatalf("error %v", err)
	}
	s.control()
	eventually(t, "the next try is told", func() bool {
		_, err := d.Inventory(t.Context())
		return err != nil && strings.Contains(err.Error(), "the next try is in ")
	})
	if d.Status().Restarts != 0 {
		t.Errorf("%+v", d.Status())
	}
	for i, want := range []time.Duration{2 * time.Hour, 2 * time.Hour} {
		if d.postpone(); d.backoff != want {
			t.Errorf("wait %d is %s, want %s", i, d.backoff, want)
		}
	}
}

func TestMissingLibrary(t *testing.T) {
	s := newStub(t, "new")
	s.cfg.LibraryPath = s.root + "/libnvidia-ml.so.1"
	d := s.open()
	if _, err := d.Inventory(t.Context()); !errors.Is(err, gpu.ErrUnresponsive) || !strings.Contains(err.Error(), "load the driver's library") {
		t.Errorf("error %v", err)
	}
	complains := func(want string) {
		eventually(t, want, func() bool {
			_, err := d.Inventory(t.Context())
			return err != nil && strings.Contains(err.Error(), want)
		})
	}
	s.write(s.cfg.LibraryPath, "no library")
	complains("file too short")
	fakeDriver(t, s.root)
	if err := os.Rename(filepath.Join(s.root, "usr/lib/x86_64-linux-gnu/libnvidia-ml.so."+fakeVersion), s.cfg.LibraryPath); err != nil {
		t.Fatal(err)
	}
	complains("is no NVML of a driver that can be used")
}

// A driver that is loaded, or exchanged, while berthd runs is noticed.
func TestDriverLoadedLater(t *testing.T) {
	s := newStub(t, "new")
	root := s.root
	s.root = t.TempDir()
	s.cfg.Root = s.root
	d := s.open()
	if got := inventoryOf(t, d); got.Source != "none" || !strings.Contains(got.Message, "no NVIDIA driver is loaded") {
		t.Fatalf("%+v", got)
	}
	if readings, err := d.Readings(t.Context()); err != nil || readings != nil || d.Status().Restarts != 0 {
		t.Errorf("%v, %v", readings, err)
	}
	s.load("550.54.15")
	if got := inventoryOf(t, d); got.Source != "nvml" || len(got.Devices) != 2 {
		t.Fatalf("in %s: %+v", root, got)
	}
	s.load("570.1.2")
	eventually(t, "a child of the new driver", func() bool {
		_, err := d.Inventory(t.Context())
		return err == nil && d.Status().Restarts == 1
	})
}

func TestCloseEndsACallThatHangs(t *testing.T) {
	s := newStub(t, "new")
	s.control("hang=nvmlDeviceGetTemperature")
	s.cfg.CallTimeout = time.Hour
	d := s.open()
	inventoryOf(t, d)
	done := make(chan error, 1)
	go func() {
		_, err := d.Readings(t.Context())
		done <- err
	}()
	eventually(t, "the call is under way", func() bool { return len(d.asking) == 1 })
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
	if _, err := d.Inventory(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
}

func TestIncludeAndExclude(t *testing.T) {
	const ghost = "GPU-ffffffff-0000-0000-0000-000000000000"
	for _, test := range []struct {
		name             string
		include, exclude []string
		want             []string // Unusable of GPU 0, its slice, GPU 1
		message          string
	}{
		{"neither", nil, nil, []string{mixed, "", ""}, ""},
		{"one only", []string{gpuUUID(1)}, nil, []string{mixed, "not in [gpu] include", ""}, ""},
		{"all but one", nil, []string{gpuUUID(0)}, []string{mixed, "excluded by [gpu] exclude", ""}, ""},
		{"a slice only", []string{migUUID(100)}, nil, []string{mixed, "", "not in [gpu] include"}, ""},
		{"both", []string{gpuUUID(1)}, []string{gpuUUID(1)}, []string{mixed, "not in [gpu] include", "excluded by [gpu] exclude"}, ""},
		{"absent", []string{ghost}, nil, []string{mixed, "not in [gpu] include", "not in [gpu] include"},
			"[gpu] include or exclude names " + ghost + ", which this host doesn't have"},
	} {
		s := newStub(t, "new")
		s.control("mig=1")
		s.cfg.Include, s.cfg.Exclude = test.include, test.exclude
		got := inventoryOf(t, s.open())
		var unusable []string
		for _, d := range got.Devices {
			unusable = append(unusable, d.Unusable)
		}
		if diff := cmp.Diff(test.want, unusable); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if !strings.Contains(got.Message, test.message) {
			t.Errorf("%s: message %q, want it to say %q", test.name, got.Message, test.message)
		}
	}
}

// A daemon that is killed leaves no child behind, though that is stuck in the
// library and doesn't see the end of its input.
func TestChildEndsWithItsParent(t *testing.T) {
	s := newStub(t, "new")
	s.control("hang=nvmlInit_v2")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	daemon := exec.Command(self)
	daemon.Env = append(os.Environ(), "ROOT="+s.root, asParent+"="+strings.Join(s.cfg.Command, " "))
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	child := "/proc/" + strings.TrimSpace(line) + "/cmdline"
	eventually(t, "the child has ended", func() bool {
		command, err := os.ReadFile(child)
		return err != nil || len(command) == 0
	})
}

// The library is loaded in the child only.
func TestLibraryStaysOutOfThisProcess(t *testing.T) {
	s := newStub(t, "new")
	fakeDriver(t, s.root)
	inventoryOf(t, s.open())
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"libnvidia-ml", "libcuda"} {
		if strings.Contains(string(maps), name) {
			t.Errorf("%s is loaded here", name)
		}
	}
}

func TestChildEndsWithItsInput(t *testing.T) {
	s := newStub(t, "new")
	cmd := exec.Command(s.cfg.Command[0], s.cfg.Command[1:]...)
	cmd.Stdin = strings.NewReader("")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	cmd = exec.Command(s.cfg.Command[0], s.cfg.Command[1:]...)
	cmd.Stdin = strings.NewReader("no frame")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "are read") {
		t.Errorf("%v: %s", err, out)
	}
}
