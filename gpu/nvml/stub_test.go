package nvml

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"berth/gpu"
)

// asChild makes this test binary the child of a Driver, as berthd is its own.
const asChild = "BERTH_TEST_NVML_CHILD"

// asParent makes this test binary a process with a Driver whose child hangs; its
// value is the child's command.
const asParent = "BERTH_TEST_NVML_PARENT"

func parent(command []string, root string) {
	if err := os.Unsetenv(asParent); err != nil {
		panic(err)
	}
	d := NewDriver(Config{Root: root, Command: command, InventoryTimeout: time.Hour})
	go func() { _, _ = d.Inventory(context.Background()) }()
	for {
		d.mu.Lock()
		c := d.child
		d.mu.Unlock()
		if c != nil {
			fmt.Println(c.pid())
			select {} // until it is killed
		}
		time.Sleep(time.Millisecond)
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(asChild) != "" {
		if err := ChildMain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if command := os.Getenv(asParent); command != "" {
		parent(strings.Fields(command), os.Getenv("ROOT"))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if builtIn != "" {
			os.RemoveAll(builtIn)
		}
		os.Exit(code)
	}))
}

var (
	buildOnce sync.Once
	builtIn   string // directory with the stubs: new/ and old/
	errBuild  error
)

// stubs compiles testdata/nvml.c, once for all tests.
func stubs(t *testing.T) string {
	t.Helper()
	buildOnce.Do(func() {
		if builtIn, errBuild = os.MkdirTemp("", "nvml-stub-"); errBuild != nil {
			return
		}
		header, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/NVIDIA/go-nvml").Output()
		if err != nil {
			errBuild = fmt.Errorf("where go-nvml's header is: %w", err)
			return
		}
		for name, define := range map[string]string{"new": "-DNEW", "old": "-DOLD"} {
			out := filepath.Join(builtIn, name, defaultLibrary)
			if errBuild = os.MkdirAll(filepath.Dir(out), 0o755); errBuild != nil {
				return
			}
			compile := exec.Command("gcc", "-shared", "-fPIC", "-fvisibility=hidden", "-w", define, "-DNVML_NO_UNVERSIONED_FUNC_DEFS=1",
				"-I"+filepath.Join(strings.TrimSpace(string(header)), "pkg", "nvml"), "-o", out, "testdata/nvml.c")
			if text, err := compile.CombinedOutput(); err != nil {
				errBuild = fmt.Errorf("compile the stub: %w\n%s", err, text)
				return
			}
		}
	})
	if errBuild != nil {
		t.Fatal(errBuild)
	}
	return builtIn
}

// stubbed is a host with the stub for a driver.
type stubbed struct {
	t    *testing.T
	dir  string // the stub's control directory
	root string // the host's file system
	cfg  Config
}

// newStub makes a host whose library is the new or the old stub, found as the
// loader finds it.
func newStub(t *testing.T, kind string) *stubbed {
	t.Helper()
	s := &stubbed{t: t, dir: t.TempDir(), root: t.TempDir()}
	s.load("550.54.15")
	s.cfg = Config{
		Command: []string{"/usr/bin/env", asChild + "=1", "STUB_DIR=" + s.dir,
			"LD_LIBRARY_PATH=" + filepath.Join(stubs(t), kind), "/proc/self/exe"},
		Root:          s.root,
		WatchInterval: 20 * time.Millisecond,
		LostInterval:  50 * time.Millisecond,
		MinBackoff:    time.Millisecond,
		MaxBackoff:    50 * time.Millisecond,
	}
	// The command is a wrapper here, so that it can't be /proc/self/exe.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Command[len(s.cfg.Command)-1] = self
	return s
}

// load makes the kernel's side of a driver.
func (s *stubbed) load(version string) {
	s.t.Helper()
	s.write(filepath.Join(s.root, procVersion), "NVRM version: NVIDIA UNIX x86_64 Kernel Module  "+version+"  Tue Mar  5 22:23:56 UTC 2024\n")
}

// control sets what the stub does from now on.
func (s *stubbed) control(lines ...string) {
	s.t.Helper()
	s.write(filepath.Join(s.dir, "control"), strings.Join(lines, "\n")+"\n")
}

// raise makes the stub report an event.
func (s *stubbed) raise(text string) {
	s.t.Helper()
	s.write(filepath.Join(s.dir, "event"), text)
}

// write is atomic: the stub reads at any time.
func (s *stubbed) write(path, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		s.t.Fatal(err)
	}
}

// open makes a Driver that is closed with the test.
func (s *stubbed) open() *Driver {
	s.t.Helper()
	d := NewDriver(s.cfg)
	s.t.Cleanup(func() {
		if err := d.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return d
}

// patience is for what must come, on a busy machine too.
const patience = 30 * time.Second

// eventually asks again until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// watching gathers a Driver's events until the test ends.
func watching(t *testing.T, d gpu.Reader) <-chan gpu.Event {
	t.Helper()
	events := make(chan gpu.Event, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Events(ctx, func(e gpu.Event) { events <- e }) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return events
}

// next gives the next event.
func next(t *testing.T, events <-chan gpu.Event) gpu.Event {
	t.Helper()
	select {
	case e := <-events:
		return e
	case <-time.After(patience):
		t.Fatalf("no event within %s", patience)
		return gpu.Event{}
	}
}
