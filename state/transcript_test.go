package state

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

var rewrite = flag.Bool("rewrite", false, "write the outputs of transcripts and golden files anew")

// TestTranscripts plays each file of testdata/transcripts against a new store.
// A file is blocks between empty lines: prose (lines that begin with #), or a
// command, "----" and what it prints. dsl_test.go says what the commands are; a
// new block may have several, one a line, which -rewrite takes apart. After every entry the invariants of the state must hold.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := newWorld(t).play(string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got; -rewrite takes what it got):\n%s", file, diff)
			}
		})
	}
}

// world is a store with the log that leads to it.
type world struct {
	t     testing.TB
	store *Store
	index uint64
	clock time.Time // the leader's
	boots map[string]workspace.Stamp
	short []string // pairs: the id of a run that Apply made, r1' for the one after r1
}

func newWorld(t testing.TB) *world {
	return &world{t: t, store: New(), boots: map[string]workspace.Stamp{},
		clock: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// play gives the transcript with the outputs that its commands have now.
func (w *world) play(transcript string) string {
	var out []string
	for block := range strings.SplitSeq(strings.TrimSpace(transcript), "\n\n") {
		commands, _, _ := strings.Cut(block, "\n----")
		if strings.HasPrefix(commands, "#") {
			out = append(out, commands)
			continue
		}
		for text := range strings.SplitSeq(commands, "\n") {
			got := w.command(parseLine(w.t, w.longNames(text)))
			out = append(out, text+"\n----\n"+strings.TrimRight(w.shortNames(got), "\n"))
		}
	}
	return strings.Join(out, "\n\n") + "\n"
}

// shortNames puts r1' in place of the id of the run that followed r1 by policy.
func (w *world) shortNames(text string) string {
	for r := range w.store.View().AllRuns() {
		if len(r.ID) == 36 && !slices.Contains(w.short, r.ID) {
			w.short = append(w.short, r.ID, strings.NewReplacer(w.short...).Replace(r.Replaces)+"'")
		}
	}
	return strings.NewReplacer(w.short...).Replace(text)
}

// longNames is the reverse, the longest names first: r1' is a part of r1”.
func (w *world) longNames(text string) string {
	long := slices.Clone(w.short)
	slices.Reverse(long)
	return strings.NewReplacer(long...).Replace(text)
}

// propose applies a command and says what it did: the outcome and its events.
func (w *world) propose(cmd Command, by Caller) string {
	res := w.apply(cmd, by)
	var out strings.Builder
	fmt.Fprintf(&out, "[%d] ", res.Index)
	switch {
	case res.Err != nil:
		out.WriteString(res.Err.Error())
	default:
		out.WriteString(strings.TrimSpace("ok " + res.Object))
		if res.Run != "" {
			out.WriteString(", run " + res.Run)
		}
	}
	if res.Replay {
		out.WriteString(" (as before)")
	}
	out.WriteString("\n")
	if res.Index == w.index {
		out.WriteString(w.eventsFrom(fmt.Sprintf("%d.%d", w.index-1, math.MaxInt64)))
	}
	return out.String()
}

// apply is propose for tests that want the outcome itself.
func (w *world) apply(cmd Command, by Caller) Result {
	w.t.Helper()
	w.index++
	w.clock = w.clock.Add(time.Second)
	before := w.store.View()
	entry, err := Encode(cmd, by, w.clock)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := w.store.Apply(w.index, entry)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := invariants(before, w.store.View(), cmd); err != nil {
		w.t.Fatalf("after entry %d (%T): %v", w.index, cmd, err)
	}
	return res
}

func (w *world) eventsFrom(after string) string {
	seq, err := w.store.View().Events(after)
	if err != nil {
		return err.Error() + "\n"
	}
	var out strings.Builder
	for e := range seq {
		fmt.Fprintf(&out, "    %s %s: %s", e.Type, e.Object, e.Message)
		if e.Reason != "" {
			fmt.Fprintf(&out, " (%s)", e.Reason)
		}
		out.WriteString("\n")
	}
	return out.String()
}
