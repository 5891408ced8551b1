package state

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"berth/gpu"
	"berth/workspace"
)

const (
	billedDays       = 30
	billedWorkspaces = 50
)

// TestBiller lets 50 workspaces live for 30 days at random, and has a naive biller
// work out at the end of each day what everybody owes.
func TestBiller(t *testing.T) {
	l := newLife(t, 20260101)
	day := 1
	for day <= billedDays {
		l.pass()
		l.act()
		if l.at.YearDay() > day {
			day = l.at.YearDay()
			l.biller.compare(t, l.store.View())
		}
	}
	l.biller.compare(t, l.store.View())
	l.print()
}

// TestBillerCatches plants bugs that TestBiller must find: one, or with
// BERTH_TORTURE=1 all that it should.
func TestBillerCatches(t *testing.T) {
	if planted != "" {
		t.Skip("a bug is planted already")
	}
	bugs := []mutant{mutantPostingDay, mutantTruncate, mutantChargeTwice}
	if os.Getenv("BERTH_TORTURE") == "" {
		bugs = bugs[:1]
	}
	for _, bug := range bugs {
		out, err := exec.Command("go", "test", "-count=1", "-tags=mutant_"+string(bug), "-run=^TestBiller$", ".").CombinedOutput() // #nosec G204 -- a constant
		if err == nil || !strings.Contains(string(out), "biller: ") {
			t.Errorf("TestBiller with %s gave %v, want that the biller complains:\n%s", bug, err, out)
		}
	}
}

// life is a cluster in which random things happen. Three clocks run: the true one,
// the leader's, which is corrected at times, and that of the log, which never goes
// back.
type life struct {
	*rand.Rand
	t      *testing.T
	store  *Store
	biller *biller
	index  uint64
	ids    int
	wall   time.Time
	skew   time.Duration // of the leader's clock
	at     time.Time
	hosts  []*host
	live   []*lifeRun
	idle   []*lifeRun // ended ones, whose instance can start again
	counts map[string]int
}

type host struct {
	id, gpuType string
	boot        int
	booted      time.Time
}

// lifeRun is a run that is live, in the life's own words.
type lifeRun struct {
	*bill
	instance string
	gpus     int
	milli    int64
	cpu, mem int64
	host     *host // nil: external
	started  time.Time
	expires  time.Time // of an external one
	began    time.Time
}

func newLife(t *testing.T, seed uint64) *life {
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	l := &life{Rand: rand.New(rand.NewPCG(seed, 1)), t: t, store: New(), biller: newBiller(), wall: begin, at: begin, counts: map[string]int{}}
	system := Caller{Role: workspace.RoleSystem}
	l.must(&InitCluster{ID: "c1", Name: "berth", Workspace: "w0", Templates: []workspace.Template{{Name: "shell", Image: "i", Kind: workspace.KindInteractive}}}, system)
	for n := range billedWorkspaces {
		l.must(&CreateWorkspace{ID: fmt.Sprintf("w%d", n+1), Slug: fmt.Sprintf("team-%d", n+1), Plan: workspace.PlanScale}, l.admin("root"))
	}
	for n, gpuType := range []string{"A100-SXM4-80GB", "A100-PCIE-40GB", "H100-SXM5-80GB", "L4"} {
		h := &host{id: fmt.Sprintf("n%d", n+1), gpuType: gpuType, booted: begin.Add(-time.Hour)}
		l.hosts = append(l.hosts, h)
		l.hello(h)
	}
	for _, what := range []string{"cpu", "memory", "*", "A100"} {
		l.setPrice("", what)
	}
	return l
}

func (l *life) admin(user string) Caller {
	return Caller{Principal: user, Role: workspace.RoleClusterAdmin}
}

func (l *life) chance(percent int) bool { return l.IntN(100) < percent }

func (l *life) id(kind string) string { l.ids++; return fmt.Sprintf("%s%06d", kind, l.ids) }

// pass lets time go by: milliseconds, seconds, minutes, or an hour.
func (l *life) pass() {
	steps := []time.Duration{50 * time.Millisecond, time.Minute, 6 * time.Minute}
	step := steps[l.IntN(3)]
	if l.chance(1) {
		step = 90 * time.Minute
	}
	l.wall = l.wall.Add(time.Duration(1 + l.Int64N(int64(step)))).Truncate(time.Microsecond)
	if l.IntN(300) == 0 {
		l.skew = time.Duration(l.Int64N(int64(20*time.Minute))) - 10*time.Minute
	}
}

// do proposes a command.
func (l *life) do(cmd Command, by Caller) Result {
	l.t.Helper()
	l.index++
	now := l.wall.Add(l.skew)
	if now.After(l.at) {
		l.at = now
	}
	entry, err := Encode(cmd, by, now)
	if err != nil {
		l.t.Fatal(err)
	}
	res, err := l.store.ApplyInTerm(l.index, 1, entry)
	if err != nil {
		l.t.Fatal(err)
	}
	l.counts[strings.TrimPrefix(fmt.Sprintf("%T", cmd), "*state.")]++
	if res.Err != nil {
		l.counts["refused: "+string(res.Err.Code)]++
	}
	return res
}

func (l *life) must(cmd Command, by Caller) {
	l.t.Helper()
	if res := l.do(cmd, by); res.Err != nil {
		l.t.Fatalf("%T: %v", cmd, res.Err)
	}
}

func (l *life) stamp(h *host) workspace.Stamp {
	return workspace.Stamp{BootID: fmt.Sprintf("%s-boot%d", h.id, h.boot), BoottimeMS: l.wall.Sub(h.booted).Milliseconds()}
}

// report is a node's, with what the caller fills in.
func (l *life) report(h *host, fill func(*workspace.Report)) {
	r := &Report{workspace.Report{Node: h.id, Stamp: l.stamp(h)}}
	fill(&r.Report)
	l.must(r, Caller{Role: workspace.RoleNode, Principal: h.id})
}

const gpusPerHost = 24

func (l *life) hello(h *host) {
	l.report(h, func(r *workspace.Report) {
		r.Facts = &workspace.NodeFacts{Name: h.id, BootID: r.Stamp.BootID, CPUMilli: 1e9, MemoryMiB: 1e9, StorageMiB: 1e9, Sharing: "timeslice"}
		r.Ready = &workspace.Readiness{Ready: true}
		r.Devices = &gpu.Inventory{}
		for n := range gpusPerHost {
			r.Devices.Devices = append(r.Devices.Devices, gpu.Info{UUID: fmt.Sprintf("%s-gpu%d", h.id, n), Type: h.gpuType, MemoryMiB: 40960})
		}
	})
}

// livedMS is what the process of a run has lived, by the clock of its host.
func (l *life) livedMS(x *lifeRun) int64 {
	switch {
	case x.host == nil:
		until := l.at
		if x.expires.Before(until) {
			until = x.expires
		}
		return until.Truncate(time.Millisecond).Sub(x.began.Truncate(time.Millisecond)).Milliseconds()
	case x.started.IsZero():
		return 0
	}
	return l.wall.Sub(x.started).Milliseconds()
}

// act does one thing.
func (l *life) act() {
	switch n := l.IntN(1000); {
	case n < 430:
		l.renew()
	case n < 620:
		l.start()
	case n < 770:
		l.progress()
	case n < 850:
		l.stop()
	case n < 900:
		l.external()
	case n < 930:
		l.callExternal()
	case n < 945:
		l.sweep()
	case n < 950:
		l.setPrice([]string{"", l.hosts[l.IntN(4)].id}[l.IntN(2)], []string{"cpu", "memory", "*", "A100", "A100-SXM4", "H100", "L4"}[l.IntN(7)])
	case n < 996:
		l.limit()
	case n < 998:
		l.loseContact()
	default:
		l.reboot()
	}
}

func (l *life) workspace() string { return fmt.Sprintf("w%d", 1+l.IntN(billedWorkspaces)) }

func (l *life) setPrice(node, what string) {
	c := &SetPrice{Resource: what, Node: node, Amount: l.Int64N(9_000_000)}
	switch what {
	case "cpu", "memory":
		c.Amount /= 50
	default:
		c.Resource, c.GPUType = "gpu", what
	}
	l.must(c, l.admin("root"))
	l.biller.prices[node+" "+what] = c.Amount
}

// print shows what it all came to.
func (l *life) print() {
	var spent, lived, unpaid int64
	rows := l.biller.rows()
	for _, x := range l.biller.order {
		spent, lived, unpaid = spent+x.cost(x.paid()), lived+x.paid(), unpaid+x.unpaid
	}
	lost := 0
	for r := range l.store.View().AllRuns() {
		if r.Phase == workspace.PhaseLost {
			lost++
		}
	}
	l.t.Logf("%d entries, %d runs (%d lost), %d ledger rows: %s for %s, and %s unpaid", l.index, len(l.biller.order), lost, len(rows),
		workspace.FormatUSD(spent), ms(lived), ms(unpaid))
	l.t.Logf("%v", l.counts)
}
