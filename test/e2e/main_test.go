// Package e2e runs berthd as its users do: the real binaries, real containerd
// and runc, real sockets. Only the GPUs are simulated.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"log/slog"

	"berth/agent/guard"
	"berth/runtime/containerd"
	"berth/test/image/ociarchive"
)

// host is what all tests of the package share: the binaries, a containerd, and
// an archive of the workload's image.
var host struct {
	dir, bin, containerd string
	archive              []byte
}

const imageName = "demo:latest"

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if why := missing(); why != "" {
		if os.Getenv("BERTH_REQUIRE_INTEGRATION") != "" {
			fmt.Fprintln(os.Stderr, "e2e:", why)
			return 1
		}
		host.dir = "" // every test skips, and says why
		skipped = why
		return m.Run()
	}
	dir, err := os.MkdirTemp("/tmp", "berth-e2e")
	if err != nil {
		panic(err)
	}
	host.dir, host.bin = dir, filepath.Join(dir, "bin")
	defer func() {
		ctx := context.Background()
		endGuards(ctx)
		if err := containerd.Clear(ctx, filepath.Join(dir, "c"), cgroupParent); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
		}
		_ = os.RemoveAll(dir)
	}()
	if err := setUp(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return m.Run()
}

// endGuards is for tests that failed before they could clear up.
func endGuards(ctx context.Context) {
	sockets, _ := filepath.Glob(filepath.Join(host.dir, "*", "run", "guard", "guard.sock"))
	for _, socket := range sockets {
		if s, err := guard.NewClient(socket).Status(ctx); err == nil {
			_ = syscall.Kill(s.Pid, syscall.SIGTERM)
		}
	}
}

var skipped string

func missing() string {
	if os.Geteuid() != 0 {
		return "containers need root"
	}
	for _, b := range []string{"containerd", "runc", "ctr"} {
		if _, err := exec.LookPath(b); err != nil {
			return b + " isn't installed"
		}
	}
	return ""
}

func setUp() error {
	for name, flags := range map[string][]string{
		"berthd":       {"-race", "-tags", "crashpoints"},
		"berth":        nil,
		"berth-helper": nil,
	} {
		if err := build(name, flags...); err != nil {
			return err
		}
	}
	var err error
	host.containerd, err = containerd.Spawn(context.Background(), containerd.SpawnConfig{
		Dir: filepath.Join(host.dir, "c"), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	err = ociarchive.Write(&archive, ociarchive.Options{Name: imageName})
	host.archive = archive.Bytes()
	return err
}

// build builds a command; the helper runs in containers, so it must be static.
func build(name string, flags ...string) error {
	args := append([]string{"build", "-buildvcs=false", "-o", filepath.Join(host.bin, name)}, flags...)
	cmd := exec.Command("go", append(args, "berth/cmd/"+name)...)
	cmd.Dir = "../.."
	cmd.Env = os.Environ()
	if name != "berthd" {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return nil
}
