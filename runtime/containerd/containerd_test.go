package containerd

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/moby/sys/mountinfo"
	"go.uber.org/goleak"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

// host is a containerd of the tests' own, with everything in one directory. The
// directory's name is short because a socket's path can't be long.
type host struct {
	dir     string
	address string
	parent  string // cgroup
}

var shared host

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := shared.start(); err != nil {
		if os.Getenv("BERTH_REQUIRE_INTEGRATION") != "" {
			fmt.Fprintln(os.Stderr, "the tests with a real containerd can't run:", err)
			return 1
		}
		fmt.Fprintln(os.Stderr, "skipping the tests with a real containerd:", err)
		shared.address = ""
	}
	code := m.Run()
	if err := shared.stop(); err != nil {
		fmt.Fprintln(os.Stderr, "clean up:", err)
		code = max(code, 1)
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

func (h *host) start() (err error) {
	if os.Geteuid() != 0 {
		return fmt.Errorf("not root")
	}
	if h.dir, err = os.MkdirTemp("", "bc"); err != nil {
		return err
	}
	h.parent = "/" + filepath.Base(h.dir)
	build := exec.Command("go", "build", "-o", h.helper(), "berth/cmd/berth-helper")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build berth-helper: %w: %s", err, output)
	}
	h.address, err = Spawn(context.Background(), h.spawnConfig())
	return err
}

// namespace of containerd: runc's state of it is shared by all on this machine.
func (h *host) namespace() string { return filepath.Base(h.parent) }

func (h *host) helper() string { return filepath.Join(h.dir, "berth-helper") }

func (h *host) spawnConfig() SpawnConfig {
	return SpawnConfig{Dir: filepath.Join(h.dir, "c"), Log: slog.New(slog.DiscardHandler)}
}

func (h *host) stop() error {
	if h.dir == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := Clear(ctx, h.spawnConfig().Dir, h.parent); err != nil {
		return err
	}
	if err := hostCgroups().remove(h.parent); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(runcState, h.namespace())) // shared, and empty
	return os.RemoveAll(h.dir)
}

func (h *host) execDir() string { return filepath.Join(h.dir, "exec") }

// open gives a Runtime on the shared containerd, or skips the test.
func (h *host) open(t testing.TB) *Runtime {
	t.Helper()
	return h.openBelow(t, h.parent)
}

// openBelow is open with another parent for the cgroups of new containers.
func (h *host) openBelow(t testing.TB, parent string) *Runtime {
	t.Helper()
	if h.address == "" {
		t.Skip("no containerd")
	}
	r, err := New(t.Context(), Config{
		Address: h.address, Namespace: h.namespace(), Helper: h.helper(), CDIDir: filepath.Join(h.dir, "cdi"),
		ExecDir: h.execDir(), CgroupParent: parent, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// leftovers lists what containers leave behind: records, snapshots, bundles,
// mounts, shims, loggers and cgroups.
func (h *host) leftovers(t *testing.T, r *Runtime) []string {
	t.Helper()
	ctx := context.Background()
	var left []string
	containers, err := r.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range containers {
		left = append(left, "container "+c.ID)
	}
	for _, name := range []string{"overlayfs", "native"} {
		err := r.client.SnapshotService(name).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			if info.Kind != snapshots.KindCommitted {
				left = append(left, "snapshot "+info.Name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	bundles, _ := filepath.Glob(filepath.Join(h.dir, "c/state/io.containerd.runtime.v2.task", h.namespace(), "*"))
	left = append(left, bundles...)
	known, _ := filepath.Glob(filepath.Join(runcState, h.namespace(), "*"))
	left = append(left, known...)
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, mount := range mounts {
		left = append(left, "mount "+mount.Mountpoint)
	}
	for _, dir := range r.cgroups.dirs(h.parent) {
		children, _ := filepath.Glob(filepath.Join(dir, "*/"))
		for _, child := range children {
			if info, err := os.Stat(child); err == nil && info.IsDir() {
				left = append(left, "cgroup "+child)
			}
		}
	}
	pipes, _ := filepath.Glob(filepath.Join(h.execDir(), "*"))
	left = append(left, pipes...)
	left = append(left, h.processes()...)
	slices.Sort(left)
	return left
}

// processes are the shims and loggers of this host.
func (h *host) processes() []string {
	var found []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, line := range lines {
		content, _ := os.ReadFile(line)
		words := strings.Split(string(content), "\x00")
		if slices.Contains(words, h.address) || words[0] == h.helper() {
			found = append(found, "process "+strings.Join(words, " "))
		}
	}
	return found
}

func demoArchive(t testing.TB, options ociarchive.Options) []byte {
	t.Helper()
	var buffer bytes.Buffer
	if err := ociarchive.Write(&buffer, options); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

func TestSuite(t *testing.T) {
	registry := newTestRegistry(t)
	r := shared.openPulling(t, func(c *Config) {
		c.Registries = []Registry{registry.config(), {Host: "127.0.0.1:1"}} // where the suite looks for none
	})
	runtimetest.Suite(t, runtimetest.Host{
		Runtime: r,
		Offer:   registry.offer,
		Reopen:  func(t *testing.T) runtime.Runtime { return shared.open(t) },
		Archive: func(t *testing.T, name string) []byte {
			return demoArchive(t, ociarchive.Options{Name: name})
		},
		Leftovers: func(t *testing.T) []string {
			return shared.settled(t, r)
		},
	})
}
