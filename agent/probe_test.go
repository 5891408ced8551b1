package agent

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/workspace"
)

func TestARunIsStartingUntilItIsReady(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		d := h.start(t, complete)
		r := c.now("run-1")
		if r.Phase != workspace.PhaseStarting || r.reason != "waiting_for_probe" || !strings.Contains(r.message, "port 8888 answers GET /api") {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		h.networks.Serve("run-1", 8888, answer(503))
		pass(time.Second)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStarting {
			t.Errorf("with status 503: %s", r.Phase)
		}
		h.networks.Serve("run-1", 8888, answer(302)) // to the login page
		pass(20 * time.Millisecond)
		if r := c.now("run-1"); r.Phase != workspace.PhaseRunning || r.message != "its container is ready" {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		d.stop(t)
		c.check(t)
	})
}

// With no path, a connection is enough; nothing is sent.
func TestAPortThatTakesConnectionsIsEnough(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		var asked atomic.Bool
		h.networks.Serve("run-1", 22, func(conn net.Conn) {
			if n, _ := conn.Read(make([]byte, 1)); n > 0 {
				asked.Store(true)
			}
		})
		d := h.start(t, func(a *workspace.Assignment) { a.Spec.Probe = &workspace.Probe{Port: "22"} })
		if got := h.cluster.phases("run-1"); got != "pulling, starting, running" || asked.Load() {
			t.Errorf("phases: %s; asked: %v", got, asked.Load())
		}
		d.stop(t)
		h.cluster.check(t)
	})
}

// A run that isn't ready in time fails; its process is asked to end, as in a stop.
func TestARunThatIsNotReadyInTimeFails(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		h.networks.Serve("run-1", 8888, answer(500))
		d := h.start(t, both(complete, command("ignore-term"), func(a *workspace.Assignment) { a.Spec.StopGrace = 10 }))
		pass(60*time.Second - time.Millisecond)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStarting {
			t.Errorf("%s before its time", r.Phase)
		}
		pass(time.Millisecond)
		if r := c.now("run-1"); r.Phase != workspace.PhaseStopping || r.reason != "not_ready" {
			t.Errorf("at the end: %s (%s: %s)", r.Phase, r.reason, r.message)
		}
		pass(10 * time.Second)
		r := c.now("run-1")
		if r.Phase != workspace.PhaseFailed || r.reason != "not_ready" || !strings.Contains(r.message, "status 500") || r.listed() {
			t.Errorf("%s (%s: %s)", r.Phase, r.reason, r.message)
		}
		if len(h.left()) != 0 || len(h.containers()) != 0 {
			t.Errorf("left: %v, %v", h.left(), h.containers())
		}
		d.stop(t)
		c.check(t)
	})
}

// A restart in its grace doesn't let it live.
func TestAnUnreadyRunEndsOverARestart(t *testing.T) {
	for _, point := range []string{"", crashAfterTerm, crashBeforeKill, crashBeforeDelete} {
		inBubble(t, func(t *testing.T, h *host) {
			c := h.cluster
			d := h.startDaemon(point)
			settle()
			c.place("run-1", both(complete, command("ignore-term")), uuid(0))
			pass(61 * time.Second)
			if point == "" {
				d.stop(t)
			} else {
				pass(time.Minute)
				<-d.done
			}
			h.networks.Serve("run-1", 8888, answer(200)) // too late
			d = h.startDaemon("")
			pass(time.Minute)
			r := c.now("run-1")
			if r.Phase != workspace.PhaseFailed || r.reason != "not_ready" || r.listed() || len(h.containers())+len(h.left()) > 0 {
				t.Errorf("%s: %s (%s: %s), containers %v", point, r.Phase, r.reason, r.message, h.containers())
			}
			d.stop(t)
			c.check(t)
		})
	}
}

// The time to get ready goes on over a restart of the daemon.
func TestAnAdoptedContainerIsProbedOn(t *testing.T) {
	for _, ready := range []bool{true, false} {
		inBubble(t, func(t *testing.T, h *host) {
			c := h.cluster
			h.start(t, complete).stop(t)
			pass(50 * time.Second)
			d := h.startDaemon("")
			pass(time.Second)
			if r := c.now("run-1"); r.Phase != workspace.PhaseStarting || d.Stats().Adoptions != 1 {
				t.Errorf("%s, stats %+v", r.Phase, d.Stats())
			}
			if ready {
				h.networks.Serve("run-1", 8888, answer(200))
			}
			pass(10 * time.Second)
			r := c.now("run-1")
			if ready && r.Phase != workspace.PhaseRunning || !ready && r.reason != "not_ready" {
				t.Errorf("ready %v: %s (%s: %s)", ready, r.Phase, r.reason, r.message)
			}
			d.stop(t)
			c.check(t)
		})
	}
}

func TestEndsWhileItIsNotReady(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(*host)
		want string
	}{
		{"stop", func(h *host) { h.cluster.stop("run-1", "user_stop") }, "pulling, starting, stopping, stopped"},
		{"exit", func(h *host) { h.Exit("run-1", 1) }, "pulling, starting, failed"},
		{"deleted by others", func(h *host) { h.Vanish("run-1"); _ = h.Delete(h.t.Context(), "run-1") }, "pulling, starting, failed"},
	} {
		inBubble(t, func(t *testing.T, h *host) {
			d := h.start(t, complete)
			test.end(h)
			pass(time.Minute)
			if got := h.cluster.phases("run-1"); got != test.want+", release "+uuid(0) || len(h.created()) != 1 {
				t.Errorf("%s: phases: %s; made %d", test.name, got, len(h.created()))
			}
			d.stop(t)
			h.cluster.check(t)
		})
	}
}

// Secrets in a probe's path reach the container, and nobody else.
func TestAProbesSecretIsNotTold(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		var path atomic.Value
		h.networks.Serve("run-1", 8888, func(conn net.Conn) {
			line := make([]byte, 64)
			n, _ := conn.Read(line)
			path.Store(strings.Fields(string(line[:n]))[1])
			conn.Close()
		})
		d := h.start(t, both(complete, func(a *workspace.Assignment) {
			a.Spec.Probe.HTTPPath, a.Spec.Probe.Timeout = "/api?token=${token}", 1
			a.Secrets = map[string]workspace.Secret{"token": workspace.NewSecret("s3cret &x")}
		}))
		if message := c.now("run-1").message; strings.Contains(message, "s3cret") {
			t.Errorf("while it waits: %s", message)
		}
		pass(time.Minute)
		if r := c.now("run-1"); r.reason != "not_ready" || strings.Contains(r.message, "s3cret") || path.Load() != "/api?token=s3cret%20%26x" {
			t.Errorf("asked %v; %s (%s: %s)", path.Load(), r.Phase, r.reason, r.message)
		}
		d.stop(t)
		c.check(t)
	})
}
