package runtimetest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/runtime"
)

// Host is a runtime under test and what the suite needs to know of it.
type Host struct {
	Runtime runtime.Runtime
	// Reopen gives another Runtime on the same containers, as a daemon that was
	// restarted has. The suite closes it.
	Reopen func(t *testing.T) runtime.Runtime
	// Archive is an OCI archive with one image of that name. It has the program
	// /bin/workload with the behaviours "count" (until TERM, then 0), "exit N",
	// "ignore-term" and "children" (some processes that ignore TERM). Each but
	// "exit" writes a line when it is ready for signals.
	Archive func(t *testing.T, name string) []byte
	// Offer puts an image in a registry that the Runtime may pull from, in place
	// of another one of that reference, and gives its whole reference. Nil:
	// nothing is pulled.
	Offer func(t *testing.T, remote Remote) (reference string)
	// Leftovers lists all that containers leave on the host: processes, cgroups,
	// snapshots, mounts… It runs in clean-up too, when t's context has ended.
	Leftovers func(t *testing.T) []string
}

const (
	workload   = "/bin/workload"
	suiteImage = "suite:latest"
	patience   = 20 * time.Second
)

// Suite runs the conformance tests of the runtime contract. Each leaves the host
// as it found it.
func Suite(t *testing.T, host Host) {
	s := &suite{Host: host}
	s.images(t)
	s.pulls(t)
	s.mustImport(t, suiteImage)
	for _, test := range []struct {
		name string
		run  func(*suite, *testing.T)
	}{
		{"info", (*suite).info},
		{"create does not start", (*suite).createDoesNotStart},
		{"start, wait, delete", (*suite).exitCode},
		{"start of what wasn't created", (*suite).startUnknown},
		{"TERM ends it", (*suite).term},
		{"signals", (*suite).signals},
		{"kill", (*suite).kill},
		{"kill of children", (*suite).killChildren},
		{"delete of a running one", (*suite).deleteRunning},
		{"delete of a created one", (*suite).deleteCreated},
		{"create twice", (*suite).createTwice},
		{"create of an absent image", (*suite).createAbsentImage},
		{"create with another digest", (*suite).createOtherDigest},
		{"create with an unknown device", (*suite).createUnknownDevice},
		{"create with bad ids", (*suite).createBadID},
		{"list", (*suite).list},
		{"reopen while it runs", (*suite).reopenRunning},
		{"reopen after the end", (*suite).reopenEnded},
		{"wait gives up", (*suite).waitGivesUp},
		{"several at once", (*suite).several},
		{"remove an image in use", (*suite).removeInUse},
		{"exec", (*suite).exec},
		{"exec with input", (*suite).execInput},
		{"exec with much output", (*suite).execLarge},
		{"exec in a terminal", (*suite).execTerminal},
		{"exec gives up", (*suite).execGivesUp},
		{"exec refused", (*suite).execRefused},
		{"exec in a killed container", (*suite).execKilled},
	} {
		t.Run(test.name, func(t *testing.T) {
			leavesNothing(t, host.Leftovers)
			test.run(s, t)
		})
	}
	if err := host.Runtime.RemoveImage(context.Background(), suiteImage); err != nil {
		t.Errorf("remove the suite's image: %v", err)
	}
}

type suite struct {
	Host
}

// spec is a container named after the test.
func (s *suite) spec(t *testing.T, behaviour ...string) runtime.Spec {
	id := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, path.Base(t.Name()))
	return runtime.Spec{
		ID:      id,
		Image:   suiteImage,
		Args:    append([]string{workload}, behaviour...),
		LogPath: filepath.Join(t.TempDir(), "log"),
	}
}

func (s *suite) mustImport(t *testing.T, name string) runtime.Image {
	t.Helper()
	images, err := s.Runtime.Import(t.Context(), bytes.NewReader(s.Archive(t, name)), "")
	if err != nil || len(images) != 1 {
		t.Fatalf("Import: %v, %v", images, err)
	}
	return images[0]
}

func (s *suite) mustCreate(t *testing.T, spec runtime.Spec) runtime.Created {
	t.Helper()
	created, err := s.Runtime.Create(t.Context(), spec)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	t.Cleanup(func() { s.remove(t, spec.ID) })
	return created
}

// mustRun creates and starts, and waits until the command is ready for signals.
func (s *suite) mustRun(t *testing.T, spec runtime.Spec) runtime.Process {
	t.Helper()
	s.mustCreate(t, spec)
	process, err := s.Runtime.Start(t.Context(), spec.ID)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	Eventually(t, "the command is ready", func() bool {
		log, _ := os.ReadFile(spec.LogPath)
		return bytes.Contains(log, []byte("\n"))
	})
	return process
}

func (s *suite) mustWait(t *testing.T, id string) runtime.Exit {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	exit, err := s.Runtime.Wait(ctx, id)
	if err != nil {
		t.Fatalf("Wait: %v", err)
	}
	return exit
}

func (s *suite) mustInspect(t *testing.T, id string) runtime.Container {
	t.Helper()
	container, err := s.Runtime.Inspect(t.Context(), id)
	if err != nil {
		t.Fatalf("Inspect: %v", err)
	}
	return container
}

// remove takes a container away in whatever state it is.
func (s *suite) remove(t *testing.T, id string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Runtime.Kill(ctx, id); err != nil {
		t.Errorf("Kill: %v", err)
	}
	if err := s.Runtime.Delete(ctx, id); err != nil {
		t.Errorf("Delete: %v", err)
	}
}

func wantError(t *testing.T, what string, err, class error) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Errorf("%s: error is %v, want one that is %q", what, err, class)
	}
}

// Eventually waits for a condition that another process brings about.
func Eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so after %s: %s", patience, what)
		}
	}
}

func ids(containers []runtime.Container) []string {
	var list []string
	for _, c := range containers {
		list = append(list, c.ID)
	}
	slices.Sort(list)
	return list
}
