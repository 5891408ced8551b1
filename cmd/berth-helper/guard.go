package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"berth/agent/guard"
)

// guardArgs are the arguments of `berth-helper guard`.
type guardArgs struct {
	dir, socket string
	daemon      bool // start one that outlives its starter, unless there is one
	detached    bool // this is that one
}

func parseGuardArgs(args []string) (guardArgs, error) {
	var a guardArgs
	flags := flag.NewFlagSet("guard", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&a.dir, "dir", "", "")
	flags.StringVar(&a.socket, "socket", "", "")
	flags.BoolVar(&a.daemon, "daemon", false, "")
	flags.BoolVar(&a.detached, "detached", false, "")
	if err := flags.Parse(args); err != nil {
		return a, err
	}
	if !filepath.IsAbs(a.dir) || !filepath.IsAbs(a.socket) || flags.NArg() > 0 {
		return a, errors.New("want --dir and --socket with absolute paths, and nothing else but --daemon")
	}
	return a, nil
}

// runGuard is a guard in the foreground, or starts one in the background.
func runGuard(args []string) int {
	a, err := parseGuardArgs(args)
	if err == nil && a.daemon {
		err = startGuard(a)
	} else if err == nil {
		err = serveGuard(a)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "berth-helper guard:", err)
		return 1
	}
	return 0
}

// guardLogMax bounds the log of a guard that no service manager listens to, in
// bytes. There may be one older of that size.
const guardLogMax = 1 << 20

func guardLog(dir string) string { return filepath.Join(dir, "guard.log") }

// serveGuard is the guard until it gets TERM or INT, or is told to end.
func serveGuard(a guardArgs) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	unix.Umask(0o022) // users read notices
	protection := guard.Protect()
	out := io.Writer(os.Stderr)
	var left error
	if a.detached {
		left = guard.Leave()
		defer func() { _ = guard.Return() }()
		file := &cappedFile{path: guardLog(a.dir), limit: guardLogMax}
		defer file.close()
		out = file
	}
	protection.Settle(left)
	server := guard.Server{
		Dir: a.dir, Socket: a.socket, Protection: protection, Ready: func() { ready(ctx) },
		Log: slog.New(slog.NewTextHandler(out, nil)),
	}
	return server.Run(ctx)
}

// ready tells systemd that the guard works, now and as often as it wants to
// hear it. What it says to others it needn't know.
func ready(ctx context.Context) {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec <= 0 {
		return
	}
	go func() {
		tick := time.NewTicker(time.Duration(usec) * time.Microsecond / 3)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = daemon.SdNotify(false, daemon.SdNotifyWatchdog)
			}
		}
	}()
}
