package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/client"
)

// holds is what a daemon holds, and what the host holds for it.
type holds struct {
	counts
	fds, goroutines, rules int
}

// holding is what they hold now. endpoint is where its metrics are.
func (d *daemon) holding(endpoint string) holds {
	d.t.Helper()
	_, body := get(d.t, "http://"+endpoint+"/metrics")
	h := holds{counts: leftovers(d.t), rules: d.rules()}
	for line := range strings.Lines(body) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "process_open_fds":
			h.fds = int(n)
		case "go_goroutines":
			h.goroutines = int(n)
		}
	}
	return h
}

// rules counts the lines of the host's packet filters that are about the
// daemon's network.
func (d *daemon) rules() (n int) {
	d.t.Helper()
	for _, args := range [][]string{{"nft", "list", "ruleset"}, {"iptables-save"}} {
		out, err := exec.Command(args[0], args[1:]...).Output()
		if err != nil {
			d.t.Fatalf("%v: %v", args, err)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, d.bridge) || strings.Contains(line, strings.TrimSuffix(d.subnet, "0/24")) {
				n++
			}
		}
	}
	return n
}

// Rounds of start and stop, with a volume, a network, a port, a probe and a
// process in the container, leave nothing behind: neither on the host nor in the
// daemon.
func TestNothingLeaks(t *testing.T) {
	rounds := 20
	if os.Getenv("BERTH_TORTURE") != "" {
		rounds = 200
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	endpoint := l.Addr().String()
	_ = l.Close()
	d := newDaemon(t, "--http-listen", endpoint)
	d.up()
	d.prepare()
	d.served("web", "count")
	n := newInstance("box", "web", 1)
	n.Start = new(bool)
	if _, err := d.client.CreateInstance(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	round := func() {
		t.Helper()
		d.startAgain("box")
		d.must("box", "test -e /data")
		d.stop("box")
	}
	for range 3 { // whatever is made once
		round()
	}
	d.tidy()
	d.client.Close()
	before := d.holding(endpoint)
	begun := time.Now()
	for range rounds {
		round()
	}
	t.Logf("%d rounds took %s", rounds, time.Since(begun).Round(time.Millisecond))
	d.client.Close()
	var after holds
	d.eventually("all is as before", func(context.Context) error {
		after = d.holding(endpoint)
		// A connection or a timer more or less is no leak; one a round is.
		const slack = 5
		if after.counts != before.counts || after.rules != before.rules || after.fds > before.fds+slack || after.goroutines > before.goroutines+slack {
			return fmt.Errorf("before %+v\nafter  %+v", before, after)
		}
		return nil
	})
	t.Logf("before %+v\nafter  %+v", before, after)
	inst, err := d.client.Instance(t.Context(), "box")
	if err != nil || inst.Attempts != rounds+3 {
		t.Errorf("%d runs were made in %d rounds (%v)", inst.Attempts, rounds+3, err)
	}
}

// A UUID in the configuration that no GPU has is told where an operator looks.
func TestUnknownGPUs(t *testing.T) {
	d := newDaemon(t)
	d.up()
	page, err := d.client.Devices(t.Context(), client.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	known, unknown := page.Items[0].UUID, "GPU-00000000-1111-2222-3333-444444444444"
	d.signal(15)
	d.args = []string{"--gpu-exclude", known + "," + unknown}
	d.up()
	d.eventually("seven GPUs are left, and the other is named", func(ctx context.Context) error {
		s, err := d.client.Status(ctx)
		if err != nil {
			return err
		}
		nodes, err := d.client.Nodes(ctx, client.ListOptions{})
		if err != nil {
			return err
		}
		told := strings.Join(s.Warnings, "\n")
		if !strings.Contains(told, unknown) || !strings.Contains(nodes.Items[0].Facts.GPUMessage, unknown) {
			return fmt.Errorf("warnings %q, node %q", told, nodes.Items[0].Facts.GPUMessage)
		}
		return nil
	})
	says(t, d.fails("--gpu-include", "nonsense"), "gpu", "nonsense")
}
