// Report reads what `go test -json` prints, shows each package's closing line
// and the whole output of whatever failed or was skipped, and counts. It exits
// with 1 when anything failed, when a test was skipped (a check that didn't run
// isn't a check that passed) or when no test ran at all.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
	}
	if !ok || err != nil {
		os.Exit(1)
	}
}

// event is a line of `go test -json`; Test is empty for the package itself and
// ImportPath is set instead of Package while it is being built.
type event struct {
	Action, Package, ImportPath, Test, Output string
}

type test struct{ pkg, name string }

// report copies what matters from events to out. A line that is no event, such
// as a message of the go command itself, is shown as it is.
func report(events io.Reader, out io.Writer) (ok bool, err error) {
	outputs := map[test][]string{}
	counts := map[string]int{}
	broken := false
	lines := bufio.NewReader(events)
	for {
		line, readErr := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(out, "%s", line)
			} else {
				broken = handle(e, outputs, counts, out) || broken
			}
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return false, fmt.Errorf("read the test events: %w", readErr)
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", counts["pass"], counts["fail"], counts["skip"])
	return !broken && counts["pass"] > 0 && counts["fail"] == 0 && counts["skip"] == 0, nil
}

// handle takes one event in and says whether it ends a package badly.
func handle(e event, outputs map[test][]string, counts map[string]int, out io.Writer) (broken bool) {
	key := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		outputs[key] = append(outputs[key], e.Output)
	case "build-output":
		fmt.Fprint(out, e.Output)
	case "pass", "fail", "skip":
		if e.Test != "" {
			counts[e.Action]++
		}
		show := outputs[key]
		if e.Test == "" && e.Action != "fail" {
			show = closing(show)
		}
		if e.Test == "" || e.Action != "pass" {
			fmt.Fprint(out, strings.Join(show, ""))
		}
		delete(outputs, key)
		return e.Test == "" && e.Action == "fail"
	}
	return false
}

// closing keeps go test's own last line about a package that is well.
func closing(output []string) []string {
	if len(output) == 0 {
		return nil
	}
	return output[len(output)-1:]
}
