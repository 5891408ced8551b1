package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// runPause does nothing until it is asked to end, so that a container lives for
// those who exec in it. It collects what is orphaned to it, if it is PID 1.
func runPause() int {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGCHLD)
	fmt.Println("berth: idle until asked to end")
	for s := range signals {
		if s != unix.SIGCHLD {
			return 0
		}
		reap(0)
	}
	return 0
}
