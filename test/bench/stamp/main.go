// Command stamp is what the benchmark's containers run: it says when it began,
// in nanoseconds since 1970, and waits to be stopped.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	fmt.Println(time.Now().UnixNano())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}
