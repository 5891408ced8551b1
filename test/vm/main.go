// Command vm proves berth's package on a bare host: Debian with systemd as PID 1,
// cgroup v2 and AppArmor, booted in software emulation. It installs the package as
// an operator would and shows that a restart, an upgrade, a reboot and a power cut
// do what the operator guide says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

func say(format string, args ...any) { fmt.Printf("vm: "+format+"\n", args...) }

// step is one thing that is seen to hold; the host stays as it leaves it.
type step struct {
	what string
	do   func(context.Context, *proof) error
}

func main() {
	keep := flag.Bool("keep", false, "leave disk and consoles when a step fails")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *keep); err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, keep bool) error {
	began := time.Now()
	debs, err := filepath.Glob("build/berth_*.deb")
	if err != nil || len(debs) == 0 {
		return fmt.Errorf("no package in build/: make deb writes one (%w)", err)
	}
	slices.SortFunc(debs, newestFirst)
	base, err := baseImage(ctx)
	if err != nil {
		return err
	}
	err = once(ctx, keep, base, debs[0], began)
	if errors.Is(err, errHung) {
		say("%v; once more, on a new one", err)
		err = once(ctx, keep, base, debs[0], began)
	}
	return err
}

// errHung: software emulation stops now and then with all its processors busy,
// and nothing in it answers. That says nothing about berth.
var errHung = errors.New("the emulated machine hangs")

// once proves everything on one machine.
func once(ctx context.Context, keep bool, base, deb string, began time.Time) (err error) {
	dir, err := os.MkdirTemp("", "berth-vm")
	if err != nil {
		return err
	}
	m, err := newMachine(ctx, base, dir)
	if err != nil {
		return err
	}
	defer func() {
		m.cut()
		if err == nil || !keep {
			_ = os.RemoveAll(dir)
			return
		}
		say("disk and consoles are in %s", dir)
	}()
	return prove(ctx, &proof{machine: m, deb: deb}, began)
}

func prove(ctx context.Context, p *proof, began time.Time) error {
	for _, s := range steps {
		at := time.Now()
		if err := s.do(ctx, p); err != nil && p.hung.Load() {
			return fmt.Errorf("%s: %w: %w", s.what, errHung, err)
		} else if err != nil {
			p.explain(context.WithoutCancel(ctx))
			return fmt.Errorf("%s: %w", s.what, err)
		}
		say("ok: %s (%.1f s)", s.what, time.Since(at).Seconds())
	}
	say("every step was seen to hold (%.0f s)", time.Since(began).Seconds())
	return nil
}

func newestFirst(a, b string) int { return modified(b).Compare(modified(a)) }

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
