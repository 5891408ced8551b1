package agent

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// A container that has ended and can't be removed doesn't change how its run
// ended, and is no reason to call its device stuck.
func TestAnEndStandsWhateverBecomesOfTheContainer(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		told := 0
		c.remains = true
		c.reported = func(report workspace.RunReport) {
			if report.Reason == reasonUndeleted {
				told++
			}
		}
		d := h.start(t, nil)
		busy := errors.New("snapshot: device or resource busy")
		times(20, func() { h.FailNext("Delete", busy) })
		h.Exit("run-1", 0)
		pass(killPatience - time.Second)
		if r := c.now("run-1"); r.Phase != workspace.PhaseRunning || r.reason != "container_left" || !strings.Contains(r.message, busy.Error()) {
			t.Errorf("at first: %s (%s: %s)", r.Phase, r.reason, r.message)
		}
		pass(longestBackOff)
		r := c.now("run-1")
		if r.Phase != workspace.PhaseSucceeded || r.reason != "exited" || *r.end.ExitCode != 0 || !strings.Contains(r.message, busy.Error()) {
			t.Errorf("then: %s (%s: %s)", r.Phase, r.reason, r.message)
		}
		if !r.held[uuid(0)] || r.stuck[uuid(0)] || told != 1 {
			t.Errorf("held %v, stuck %v, told %d times", r.held, r.stuck, told)
		}
		d.stop(t)
		d = h.startDaemon("")
		pass(2 * time.Minute)
		if got := c.phases("run-1"); got != "pulling, starting, running, succeeded, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		if left := h.containers(); len(left) != 0 || d.Stats().Kills != 0 {
			t.Errorf("left: %v, stats %+v", left, d.Stats())
		}
		d.stop(t)
		c.check(t)
	})
}

// The same while the runtime restarts, and can't even be asked what is there.
func TestAnEndStandsOverAnOutageOfTheRuntime(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, nil)
		h.cluster.set(func() { h.cluster.remains = true })
		times(4, func() { h.FailNext("Delete", runtime.ErrUnavailable) })
		times(8, func() { h.FailNext("Inspect", runtime.ErrUnavailable) })
		h.Exit("run-1", 0)
		pass(time.Minute)
		if got := h.cluster.phases("run-1"); got != "pulling, starting, running, succeeded, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// An end that is on disk isn't replaced by what becomes of what is left.
func TestAKeptEndIsReportedOfAStuckContainer(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.remains = true
		h.start(t, nil).stop(t)
		kept, err := openLedger(filepath.Join(h.dir, "agent.json"))
		if err != nil {
			t.Fatal(err)
		}
		a := c.now("run-1").Assignment
		if err := kept.keepEnd(*endWith(&a, workspace.PhaseSucceeded, reasonExited, "exit code 0")); err != nil {
			t.Fatal(err)
		}
		h.Stick("run-1", true)
		d := h.startDaemon("")
		pass(time.Minute)
		if r := c.now("run-1"); r.Phase != workspace.PhaseSucceeded || !r.stuck[uuid(0)] || !r.held[uuid(0)] {
			t.Errorf("%s (%s), held %v, stuck %v", r.Phase, r.reason, r.held, r.stuck)
		}
		h.Stick("run-1", false)
		pass(time.Minute)
		if got := c.phases("run-1"); got != "pulling, starting, running, succeeded, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		c.check(t)
	})
}

// With the runtime down a stop goes its way: no TERM, but KILL at the end of the
// grace, and the end is recorded when the runtime can tell it.
func TestAStopWithoutARuntime(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, nil)
		h.goDown()
		pass(time.Minute)
		c.stop("run-1", "user_stop")
		pass(30*time.Second - time.Millisecond)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopping || r.reason != "term_failed" || h.containers()["run-1"] != runtime.StateRunning {
			t.Errorf("in grace: %s (%s: %s)", r.Phase, r.reason, r.message)
		}
		pass(time.Millisecond)
		if h.containers()["run-1"] != runtime.StateExited {
			t.Error("not killed at the end of its grace")
		}
		pass(time.Hour)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopping || r.reason != "killed" || !r.held[uuid(0)] || r.stuck[uuid(0)] {
			t.Errorf("killed: %s (%s: %s)", r.Phase, r.reason, r.message)
		}
		if kills := d.Stats().Kills; kills != 1 {
			t.Errorf("%d kills", kills)
		}
		h.startRuntime()
		pass(defaultReconcile)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopped || *r.end.ExitCode != 137 || r.listed() {
			t.Errorf("with the runtime back: %s (%s: %s)", r.Phase, r.reason, r.message)
		}
		d.stop(t)
		c.check(t)
	})
}

// A runtime that hangs holds KILL up by no more than the look at the container.
func TestAStopWithARuntimeThatHangs(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, func(a *workspace.Assignment) { a.Spec.StopGrace = 20 })
		releaseSignal, releaseInspect := h.Block("Signal"), h.Block("Inspect")
		h.cluster.stop("run-1", "user_stop")
		pass(20*time.Second + lookTimeout)
		if h.containers()["run-1"] != runtime.StateExited {
			t.Error("not killed")
		}
		releaseSignal()
		releaseInspect()
		pass(2 * lookTimeout)
		if r := h.cluster.now("run-1"); r.Phase != workspace.PhaseStopped || r.listed() {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// A run that nobody stops lives through it.
func TestARunOutlivesAnOutageOfTheRuntime(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		d := h.start(t, nil)
		h.goDown()
		pass(time.Hour)
		h.startRuntime()
		pass(time.Minute)
		if got := h.cluster.phases("run-1"); got != "pulling, starting, running" || h.containers()["run-1"] != runtime.StateRunning {
			t.Errorf("phases: %s; %v", got, h.containers())
		}
		h.Exit("run-1", 0)
		pass(time.Second)
		if r := h.cluster.now("run-1"); r.Phase != workspace.PhaseSucceeded {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// With leftovers that no look shows, a create isn't tried in a tight circle.
func TestLeftoversOfAnIDAreAnAttempt(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		times(2, func() { h.FailNext("Create", runtime.ErrExists) })
		d := h.start(t, nil)
		if n := len(h.created()); n != 0 {
			t.Errorf("%d containers made without a pause", n)
		}
		pass(time.Second)
		if got := h.cluster.phases("run-1"); got != "pulling, starting, running" {
			t.Errorf("phases: %s", got)
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// What a runtime says of a run may quote its environment: its secrets are in no
// report, no log and no file.
func TestARuntimesWordsKeepNoSecrets(t *testing.T) {
	const secret = "hunter2-\"SECRET\"\n"
	quoting := fmt.Errorf("runc: %q: contains NUL", "A=p\x00"+secret)
	for name, order := range map[string]func(h *host, a *workspace.Assignment){
		"images": func(h *host, a *workspace.Assignment) {
			a.Spec.ImageDigest = "sha256:00"
			h.FailNext("Images", quoting)
		},
		"create": func(h *host, _ *workspace.Assignment) { times(3, func() { h.FailNext("Create", quoting) }) },
		"look": func(h *host, _ *workspace.Assignment) {
			h.FailNext("Start", runtime.ErrUnavailable)
			h.FailNext("Inspect", quoting)
		},
		"start":  func(h *host, _ *workspace.Assignment) { h.FailNext("Start", quoting) },
		"term":   func(h *host, _ *workspace.Assignment) { h.FailNext("Signal", quoting) },
		"kill":   func(h *host, a *workspace.Assignment) { command("ignore-term")(a); h.FailNext("Kill", quoting) },
		"delete": func(h *host, _ *workspace.Assignment) { times(20, func() { h.FailNext("Delete", quoting) }) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				var log, said bytes.Buffer
				h.log = &log
				h.cluster.reported = func(report workspace.RunReport) { fmt.Fprintln(&said, report.Reason, report.Message) }
				d := h.start(t, func(a *workspace.Assignment) {
					order(h, a)
					a.Spec.Env = []workspace.EnvVar{{Name: "A", Value: "p\x00${token}"}}
					a.Secrets = map[string]workspace.Secret{"token": workspace.NewSecret(secret)}
				})
				pass(time.Minute)
				h.cluster.edit("run-1", func(r *clusterRun) { r.Desired, r.Secrets = workspace.RunStopping, nil })
				pass(time.Minute)
				d.stop(t)
				kept, _ := os.ReadFile(filepath.Join(h.dir, "agent.json")) // none, where nothing came so far
				everything := log.String() + said.String() + string(kept)
				if strings.Contains(everything, "hunter2") {
					t.Errorf("in clear: %s", everything)
				}
				if !strings.Contains(everything, "contains NUL") || !strings.Contains(everything, "[redacted]") {
					t.Errorf("the runtime's words are lost: %s", everything)
				}
			})
		})
	}
}

func TestRedactText(t *testing.T) {
	secrets := map[string]workspace.Secret{}
	for i, text := range []string{"pass", "passphrase <1>", "tab\there", "Größe\n", "red", " ", ""} {
		secrets[strconv.Itoa(i)] = workspace.NewSecret(text)
	}
	const gone = "[redacted]"
	for text, want := range map[string]string{
		"nothing to hide":                         "nothing to hide",
		"A=pass, B=passphrase <1>":                "A=" + gone + ", B=" + gone,
		"tab\there":                               gone,
		strconv.Quote("tab\there"):                `"` + gone + `"`,
		strconv.Quote(strconv.Quote("tab\there")): `"\"` + gone + `\""`,
		strconv.QuoteToASCII("Größe"):             `"` + gone + `"`,
		`{"msg":"passphrase \u003c1\u003e"}`:      `{"msg":"` + gone + `"}`,
		"ends with Größe":                         "ends with " + gone,
		"red":                                     gone,
	} {
		if got := redactText(text, secrets); got != want {
			t.Errorf("%s: %s, want %s (secrets %v)", text, got, want, slices.Collect(maps.Keys(secrets)))
		}
	}
	w := &worker{secrets: secrets}
	err := w.redact(fmt.Errorf("pass: %w", runtime.ErrExists))
	if !errors.Is(err, runtime.ErrExists) || errors.Is(err, runtime.ErrInUse) || errors.Unwrap(err) != nil {
		t.Errorf("the class of the error is lost, or its text shows: %v", err)
	}
}
