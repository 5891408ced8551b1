package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// The shim hands its logger the container's stdout and stderr as these file
// descriptors, and waits for the last one to be closed before it starts the
// container.
const (
	fdStdout = 3
	fdStderr = 4
	fdReady  = 5
)

// chunk is how much is read, and so written, at once.
const chunk = 32 << 10

// runLog copies the container's output to a file until both streams end. It
// never stops reading early, whatever happens to the file: a container whose
// pipe has no reader stalls or dies.
func runLog(target string) int {
	limit, path, err := parseTarget(target)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	file := &cappedFile{path: path, limit: limit}
	defer file.close()
	ignoreTermination()

	var streams sync.WaitGroup
	for _, fd := range []uintptr{fdStdout, fdStderr} {
		streams.Go(func() {
			buffer := make([]byte, min(chunk, limit))
			// The writer alone, so that io.CopyBuffer uses our buffer.
			_, _ = io.CopyBuffer(struct{ io.Writer }{file}, struct{ io.Reader }{os.NewFile(fd, "output")}, buffer)
		})
	}
	_ = os.NewFile(fdReady, "ready").Close()
	streams.Wait()
	return 0
}

// ignoreTermination: the shim sends SIGTERM as soon as the container is deleted,
// when its last lines may still be in the pipe. The end of the streams is near.
func ignoreTermination() {
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
}

// parseTarget splits MAXBYTES:FILE. It is one word because the shim takes its
// logger's arguments from a URI's query, which has no order.
func parseTarget(target string) (limit int64, path string, err error) {
	size, path, ok := strings.Cut(target, ":")
	limit, err = strconv.ParseInt(size, 10, 64)
	if !ok || err != nil || limit <= 0 || path == "" {
		return 0, "", fmt.Errorf("berth-helper log: %q is not MAXBYTES:FILE", target)
	}
	return limit, path, nil
}

// cappedFile is a log of bounded size: the file, and one older beside it with
// ".1" added. Writes never fail: what can't be stored is dropped, and a note says
// so where it is missing, as soon as there is space for it.
type cappedFile struct {
	path  string
	limit int64

	mu      sync.Mutex
	file    *os.File
	size    int64
	midLine bool  // the last byte written wasn't the end of a line
	dropped int64 // bytes since the last write that succeeded
	reason  error
}

func (c *cappedFile) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stored := 0
	if c.note() {
		stored = c.store(p)
	}
	c.dropped += int64(len(p) - stored)
	return len(p), nil
}

// note says how much was dropped, if anything was. False: that can't be said yet.
func (c *cappedFile) note() bool {
	if c.dropped == 0 {
		return true
	}
	text := fmt.Sprintf("berth: %d bytes of output are missing here: %v\n", c.dropped, c.reason)
	if c.midLine {
		text = "\n" + text
	}
	before, midLine := c.size, c.midLine
	if stored := c.store([]byte(text)); stored < len(text) {
		if c.file != nil && stored > 0 && c.file.Truncate(before) == nil { // no half a note
			c.size = before
		}
		c.midLine = midLine
		return false
	}
	c.dropped = 0
	return true
}

// store says how much it could write.
func (c *cappedFile) store(p []byte) int {
	if c.file == nil {
		c.open()
	}
	if c.file != nil && c.size > 0 && c.size+int64(len(p)) > c.limit {
		c.rotate()
	}
	if c.file == nil {
		return 0
	}
	n, err := c.file.Write(p)
	c.size += int64(n)
	if n > 0 {
		c.midLine = p[n-1] != '\n'
	}
	if err != nil {
		c.reason = err
	}
	return n
}

func (c *cappedFile) open() {
	file, err := os.OpenFile(c.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		c.reason = err
		return
	}
	c.file, c.size = file, 0
	if info, err := file.Stat(); err == nil {
		c.size = info.Size()
	}
}

func (c *cappedFile) rotate() {
	if err := os.Rename(c.path, c.path+".1"); err != nil {
		// The cap is kept even where the directory can't be changed.
		_ = c.file.Truncate(0)
		c.size = 0
		return
	}
	_ = c.file.Close()
	c.file = nil
	c.open()
}

func (c *cappedFile) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.note()
	if c.file != nil {
		_ = c.file.Close()
	}
}
