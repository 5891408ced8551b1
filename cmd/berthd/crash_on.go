//go:build crashpoints

package main

import (
	"os"
	"syscall"
)

// crashPoint ends the daemon as kill -9 would at the point that BERTH_CRASH_AT
// names. It is in test builds only.
func crashPoint() func(string) {
	at := os.Getenv("BERTH_CRASH_AT")
	return func(point string) {
		if point == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // nothing more is done while the signal is on its way
		}
	}
}
