package agent

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/runtime"
	"berth/workspace"
)

// At each point of a start and a stop the daemon dies; the next one, on the
// same host, ends up with exactly what was wanted, and the cluster hears of
// each step at most once and in order.
func TestACrashAtAnyPoint(t *testing.T) {
	for _, point := range CrashPoints() {
		t.Run(point, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) { crashAt(t, h, point) })
		})
	}
}

func crashAt(t *testing.T, h *host, point string) {
	c := h.cluster
	first := h.startDaemon(point)
	settle()
	h.networks.Serve("run-1", 8888, answer(200))
	c.place("run-1", both(command("ignore-term"), complete), uuid(0))
	settle()
	stopping := !isClosed(first.crashed)
	if stopping {
		c.stop("run-1", "user_stop")
		pass(time.Minute)
	}
	if !isClosed(first.crashed) {
		t.Fatal("the point was never met")
	}
	if err := <-first.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	pass(3 * time.Second) // any go-ahead is over

	second := h.startDaemon("")
	pass(time.Minute)
	if !stopping {
		want := map[string]runtime.State{"run-1": runtime.StateRunning}
		if diff := cmp.Diff(want, h.containers()); diff != "" {
			t.Error(diff)
		}
		if got := c.phases("run-1"); got != "pulling, starting, running" && got != "pulling, running" && got != "running" {
			t.Errorf("phases: %s", got)
		}
		if diff := cmp.Diff([]string{"network run-1", "volume volume-1"}, h.left()); diff != "" {
			t.Error(diff)
		}
		c.stop("run-1", "user_stop")
		pass(time.Minute)
	}
	if left := h.containers(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if left := h.left(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	got := c.phases("run-1")
	if !strings.HasSuffix(got, "running, stopping, stopped, release "+uuid(0)) && !strings.HasSuffix(got, "running, stopped, release "+uuid(0)) {
		t.Errorf("phases: %s", got)
	}
	if r := c.now("run-1"); r.listed() || len(r.starts) != 1 {
		t.Errorf("%d starts, held %v", len(r.starts), r.held)
	}
	second.stop(t)
	c.check(t)
}

// complete gives a run a volume, a port and a probe.
func complete(a *workspace.Assignment) {
	a.Volume = &workspace.VolumeClaim{ID: "volume-1", SizeMiB: 64}
	a.Spec.VolumePath = "/home/user"
	a.Spec.Ports = []workspace.Port{{Name: "page", Number: "8888", Protocol: "HTTP", Path: "/lab?token=${token}"}}
	a.Spec.Probe = &workspace.Probe{HTTPPath: "/api", Port: "8888", Timeout: 60}
}

func both(edits ...func(*workspace.Assignment)) func(*workspace.Assignment) {
	return func(a *workspace.Assignment) {
		for _, edit := range edits {
			edit(a)
		}
	}
}

// answer serves one HTTP request with a status.
func answer(status int) func(net.Conn) {
	return func(conn net.Conn) {
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			fmt.Fprintf(conn, "HTTP/1.1 %d answer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", status)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A daemon that is restarted leaves the container alone and takes it on again,
// whatever happened to it meanwhile.
func TestARestartAdopts(t *testing.T) {
	for _, test := range []struct {
		name  string
		while func(h *host)
		want  string
	}{
		{"still running", func(*host) {}, "pulling, starting, running"},
		{"exited meanwhile", func(h *host) { h.Exit("run-1", 3) }, "pulling, starting, running, failed, release " + uuid(0)},
		{"stopped meanwhile", func(h *host) { h.cluster.stop("run-1", "user_stop") },
			"pulling, starting, running, stopping, stopped, release " + uuid(0)},
	} {
		t.Run(test.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, h *host) {
				h.start(t, nil).stop(t)
				before, _ := h.Inspect(t.Context(), "run-1")
				pass(time.Hour)
				if after, _ := h.Inspect(t.Context(), "run-1"); after.State != runtime.StateRunning || after.Pid != before.Pid {
					t.Errorf("without a daemon: %+v", after)
				}
				test.while(h)
				second := h.startDaemon("")
				pass(time.Minute)
				if got := h.cluster.phases("run-1"); got != test.want {
					t.Errorf("phases: %s, want %s", got, test.want)
				}
				if test.name == "still running" && second.Stats().Adoptions != 1 {
					t.Errorf("stats: %+v", second.Stats())
				}
				second.stop(t)
				h.cluster.check(t)
			})
		})
	}
}

// A container that lost its task before it was started is made anew, and what
// it took to remove it has no bearing on the new one.
func TestACreatedContainerWithoutATaskIsMadeAnew(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		first := h.startDaemon(crashBeforeStart)
		settle()
		c.place("run-1", command("ignore-term"), uuid(0))
		settle()
		<-first.done
		h.taskless = true
		times(9, func() { h.FailNext("Delete", runtime.ErrInUse) })
		second := h.startDaemon("")
		pass(2 * killPatience)
		if r := c.now("run-1"); r.Phase.Terminal() || r.reason != "container_left" || !strings.Contains(r.message, runtime.ErrInUse.Error()) {
			t.Errorf("while it can't be removed: %s (%s: %s)", r.Phase, r.reason, r.message)
		}
		pass(time.Minute)
		if len(h.created()) != 2 || h.containers()["run-1"] != runtime.StateRunning {
			t.Errorf("made %d, there: %v", len(h.created()), h.containers())
		}
		times(2, func() { h.FailNext("Delete", runtime.ErrInUse) })
		c.stop("run-1", "user_stop")
		pass(time.Minute)
		if got := c.phases("run-1"); got != "pulling, starting, running, stopping, stopped, release "+uuid(0) {
			t.Errorf("phases: %s", got)
		}
		second.stop(t)
		c.check(t)
	})
}

// The grace of a stop doesn't start anew with a daemon: one that never lives
// long enough kills in time all the same. Only a new boot is another matter.
func TestRestartsDoNotPutKillOff(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, command("ignore-term"))
		c.stop("run-1", "user_stop")
		for range 5 {
			pass(5 * time.Second)
			d.stop(t)
			d = h.startDaemon("")
		}
		pass(5*time.Second - time.Millisecond)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopping {
			t.Errorf("%s before its grace ended", r.Phase)
		}
		pass(time.Millisecond)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopped || *r.end.ExitCode != 137 || r.listed() {
			t.Errorf("%s (%s) after it", r.Phase, r.message)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestTheLedgerKeepsStopsOfThisBoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.json")
	first, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	for run, boot := range map[string]string{"run-1": "boot-1", "run-0": "boot-0", "old": "boot-1"} {
		if err := first.keepStop(run, workspace.Stamp{BootID: boot, BoottimeMS: 1500}); err != nil {
			t.Fatal(err)
		}
	}
	second, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	second.forget(func(run string) bool { return run != "old" })
	for run, want := range map[string]time.Duration{"run-1": 1500 * time.Millisecond, "run-0": 0, "old": 0, "never": 0} {
		if got := second.stop(run, "boot-1"); got != want {
			t.Errorf("%s: its grace began at %s, want %s", run, got, want)
		}
	}
}

// An end that the cluster didn't hear of before the daemon died, and whose
// container is deleted, isn't lost, and the run isn't run again.
func TestAnEndOutlivesTheDaemon(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		first := h.start(t, nil)
		c.set(func() { c.deaf = true })
		h.Exit("run-1", 3)
		pass(time.Minute)
		if left := h.containers(); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
		first.stop(t)
		c.entry(func() { c.deaf = false })
		second := h.startDaemon("")
		pass(time.Minute)
		r := c.now("run-1")
		if r.Phase != workspace.PhaseFailed || r.end.ExitCode == nil || *r.end.ExitCode != 3 || r.listed() {
			t.Errorf("end: %+v", r.end)
		}
		second.stop(t)
		c.check(t)
	})
}

// While the cluster takes no reports they wait: none is lost, none is out of
// order, none comes twice.
func TestReportsOverAFlakyCluster(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		c.reportTakes = 100 * time.Millisecond // more comes while a batch is under way
		d := h.startDaemon("")
		settle()
		runs := []string{"run-1", "run-2", "run-3", "run-4"}
		for i, run := range runs {
			c.set(func() { c.failures = 3 })
			c.place(run, command("exit", itoa(uint64(i))), uuid(i%2))
			pass(5 * time.Second)
		}
		pass(time.Minute)
		for i, run := range runs {
			end := map[bool]string{true: "succeeded", false: "failed"}[i == 0]
			if got := c.phases(run); got != "pulling, starting, running, "+end+", release "+uuid(i%2) {
				t.Errorf("%s: %s", run, got)
			}
		}
		if s := d.Stats(); s.ReportFailures < 8 {
			t.Errorf("only %d reports failed: the test tests nothing", s.ReportFailures)
		}
		if unique := slices.Compact(slices.Sorted(slices.Values(c.history))); len(unique) != len(c.history) {
			t.Errorf("recorded twice: %v", c.history)
		}
		d.stop(t)
		c.check(t)
	})
}
