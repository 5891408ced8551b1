package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notify tells systemd where the daemon stands; without systemd it does nothing.
func notify(log *slog.Logger, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		log.Warn("systemd wasn't told", "state", state, "err", err)
	}
}

// watchdog pets systemd's watchdog for as long as alive says so, at a third of
// the time it allows. Without one it ends at once.
func watchdog(ctx context.Context, log *slog.Logger, alive func(context.Context) error) error {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil || limit == 0 {
		return nil //nolint:nilerr // a malformed WATCHDOG_USEC is as good as none
	}
	tick := time.NewTicker(limit / 3)
	defer tick.Stop()
	for {
		check, cancel := context.WithTimeout(ctx, limit/3)
		err := alive(check)
		cancel()
		if err == nil {
			notify(log, daemon.SdNotifyWatchdog)
		} else if ctx.Err() == nil {
			log.Error("the watchdog isn't petted: the daemon doesn't answer itself", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
