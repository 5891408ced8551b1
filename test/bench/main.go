// Command bench measures berth on this host: what has a counterpart (containerd
// alone, bare Raft) is compared with it side by side in the same run. It prints
// a table and writes build/bench.json; with words as arguments it runs only the
// steps that have one of them in their names, and writes nothing. No speed makes it fail, only errors do.
// It needs root and the binaries of make build, runs a berthd and a containerd
// of its own, and removes what it made, also when it is interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	output = "build/bench.json"
	setUp  = "(a host: containerd, berthd, an image)" // measures nothing; what comes after needs it
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := bench(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// bench measures all, or only what has one of the words in its name.
func bench(ctx context.Context, words []string) (err error) {
	h, err := newHost()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	var results []result
	// What needs no host comes before there is one.
	for _, step := range []struct {
		what string
		run  func(context.Context) ([]result, error)
	}{
		{"Apply of a start", measureApply},
		{"money", measureMoney},
		{"acknowledged writes, beside bare Raft", h.measureWrites},
		{setUp, h.setUp},
		{"starts, beside containerd alone", h.measureStarts},
		{"creates", h.measureCreates},
		{"reads", h.measureReads},
		{"first leader", h.measureFirstLeader},
		{"an idle berthd", h.measureIdle},
	} {
		if !wanted(step.what, words) {
			continue
		}
		began := time.Now()
		fmt.Fprintf(os.Stderr, "bench: %s …", step.what)
		more, err := step.run(ctx)
		fmt.Fprintf(os.Stderr, " %.1f s\n", time.Since(began).Seconds())
		if ctx.Err() != nil {
			return errors.New("interrupted; nothing was written")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		results = append(results, more...)
	}
	if err := printTable(os.Stdout, results); err != nil {
		return err
	}
	if len(words) > 0 {
		return nil // the file has all or nothing
	}
	return writeJSON(output, results)
}

func wanted(step string, words []string) bool {
	return len(words) == 0 || step == setUp || slices.ContainsFunc(words, func(word string) bool { return strings.Contains(step, word) })
}
