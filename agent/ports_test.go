package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"berth/workspace"
)

// The ports of an instance stay over stop and start, and a restart of the daemon.
func TestPortsStay(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		twoPorts := func(a *workspace.Assignment) {
			a.Instance = "instance-1"
			a.Spec.Ports = []workspace.Port{{Name: "page", Number: "8888", Protocol: "HTTP"}, {Name: "ssh", Number: "22", Protocol: "SSH"}}
		}
		d := h.start(t, twoPorts)
		want := c.now("run-1").access
		if len(want) != 2 || want[0].Port == want[1].Port {
			t.Fatalf("access: %v", want)
		}
		c.stop("run-1", "user_stop")
		pass(time.Second)
		d.stop(t)
		d = h.startDaemon("")
		c.place("run-0", func(a *workspace.Assignment) { twoPorts(a); a.Instance = "instance-0" }, uuid(1))
		settle()
		c.place("run-2", twoPorts, uuid(0))
		settle()
		if diff := cmp.Diff(want, c.now("run-2").access); diff != "" {
			t.Errorf("after stop and start: %s", diff)
		}
		for _, other := range c.now("run-0").access {
			if other.Port == want[0].Port || other.Port == want[1].Port {
				t.Errorf("another instance got %v", other)
			}
		}
		d.stop(t)
		c.check(t)
	})
}

// A port that something else on the host has is replaced, and that one alone.
func TestATakenPortIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, h *host) {
		c := h.cluster
		var told []string
		running := ""
		c.reported = func(r workspace.RunReport) {
			if r.Reason == reasonPortMoved {
				told = append(told, r.Message)
			}
			if r.Phase == workspace.PhaseRunning {
				running = r.Message
			}
		}
		h.networks.SetPortTaken(30001, true)
		c.reportTakes = time.Millisecond
		d := h.start(t, func(a *workspace.Assignment) {
			a.Spec.Ports = []workspace.Port{{Name: "page", Number: "8888", Protocol: "HTTP"}, {Name: "ssh", Number: "22", Protocol: "SSH"}}
		})
		pass(time.Second)
		access := c.now("run-1").access
		if len(access) != 2 || access[0].Port != 30000 || access[1].Port == 30001 {
			t.Errorf("access: %v", access)
		}
		if len(told) != 1 || !strings.Contains(told[0], "ssh") {
			t.Errorf("told: %v", told)
		}
		if !strings.Contains(running, fmt.Sprint(access[1].Port)) {
			t.Errorf("once it runs, it says %q", running)
		}
		d.stop(t)
		c.check(t)
	})
}

func TestPortsOfTheLongestStoppedGoFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.json")
	l, err := openLedger(path)
	if err != nil {
		t.Fatal(err)
	}
	at := Publish{Address: "127.0.0.1", First: 30000, Last: 30002}
	running := map[string]bool{"b": true}
	publish := func(instance string, move ...string) int {
		t.Helper()
		a := &workspace.Assignment{Instance: instance, Spec: workspace.RunSpec{Ports: []workspace.Port{{Name: "page", Number: "80"}}}}
		ports, err := l.publish(a, at, moving{names: move}, func(owner string) bool { return running[owner] })
		if errors.Is(err, errNoPorts) {
			return 0
		}
		if err != nil {
			t.Fatal(err)
		}
		return ports["page"]
	}
	for _, step := range []struct {
		instance string
		move     []string
		want     int
	}{
		{"a", nil, 30000}, {"b", nil, 30001}, {"c", nil, 30002}, {"a", nil, 30000},
		{"d", nil, 30002},              // c has not run for longest, but for b, which runs
		{"d", []string{"page"}, 30000}, // a's
	} {
		if got := publish(step.instance, step.move...); got != step.want {
			t.Errorf("%s got %d, want %d", step.instance, got, step.want)
		}
	}
	running = map[string]bool{"b": true, "d": true, "e": true}
	if got := publish("e"); got != 30002 {
		t.Errorf("e got %d", got)
	}
	if got := publish("f"); got != 0 {
		t.Errorf("f got %d while all are in use", got)
	}
	again, err := openLedger(path)
	if err != nil || again.kept.Ports["e"].By["page"] != 30002 {
		t.Errorf("on disk: %v, %v", again.kept.Ports, err)
	}
}
