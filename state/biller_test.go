package state

import (
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

// biller works out what everybody owes, from what a bystander sees: the times of
// the entries, what runs have lived by their nodes' word, and up to where each is
// granted time by the answers. It is written from docs/domain.md (money) alone and
// shares no arithmetic with the package: whole numbers of any size, and the
// calendar of package time.
type biller struct {
	bills map[string]*bill
	order []*bill
	// In force, as the commands that were accepted have set it:
	cluster     bool              // the cluster has a daily budget
	budgets     map[string]bool   // of a workspace: has it a daily one, of its own or per user?
	generations map[string]uint64 // of a workspace: of its spending limit, 0 without one
	latest      map[string]uint64 // the highest there was
	prices      map[string]int64  // by node (or none), blank, and what for
}

// bill is one run's.
type bill struct {
	run, workspace, user string
	rate                 int64 // micro-USD an hour
	lived, granted       int64 // ms
	parts                []part
	hard, over           bool
	unpaid               int64
}

// part of a run's life belongs to a day and a generation from the grant on.
type part struct {
	day        string
	generation uint64
	from, to   int64
}

// owed is what one line of an account comes to.
type owed struct{ amount, ms int64 }

func newBiller() *biller {
	return &biller{bills: map[string]*bill{}, budgets: map[string]bool{}, generations: map[string]uint64{}, latest: map[string]uint64{},
		prices: map[string]int64{}}
}

// cost is ⌊rate × ms / 3 600 000⌋ in micro-USD.
func (x *bill) cost(lived int64) int64 {
	all := new(big.Int).Mul(big.NewInt(x.rate), big.NewInt(lived))
	return all.Div(all, big.NewInt(3_600_000)).Int64()
}

// paid is the charged time: what it lived, as far as it was granted.
func (x *bill) paid() int64 { return min(x.lived, x.granted) }

// bound: a budget applies to a run that costs something.
func (b *biller) bound(x *bill) bool {
	return x.rate > 0 && (b.cluster || b.budgets[x.workspace] || b.generations[x.workspace] > 0)
}

// open begins a bill in the entry that places a run or admits an external one.
func (b *biller) open(run, ws, user string, rate int64) *bill {
	x := &bill{run: run, workspace: ws, user: user, rate: rate}
	b.bills[run] = x
	b.order = append(b.order, x)
	return x
}

// grant is of the life up to a moment, by an entry at a time, of a run that has
// lived so long then. It is cut at midnight, and a run never goes back a day.
func (b *biller) grant(x *bill, to, lived int64, at time.Time) {
	born := at.Truncate(time.Millisecond).Add(-time.Duration(lived) * time.Millisecond)
	if n := len(x.parts); n > 0 {
		latest, err := time.Parse(time.DateOnly, x.parts[n-1].day)
		if err != nil {
			panic(err)
		}
		if begins := born.Add(time.Duration(x.granted) * time.Millisecond); begins.Before(latest) {
			born = born.Add(latest.Sub(begins))
		}
	}
	for x.granted < to {
		begins := born.Add(time.Duration(x.granted) * time.Millisecond)
		y, m, d := begins.Date()
		midnight := time.Date(y, m, d+1, 0, 0, 0, 0, time.UTC)
		end := min(to, x.granted+midnight.Sub(begins).Milliseconds())
		x.parts = append(x.parts, part{day: begins.Format(time.DateOnly), generation: b.generations[x.workspace], from: x.granted, to: end})
		x.granted = end
	}
}

// seen takes what an entry says of a live run: that its process has lived so long,
// and up to where it is granted now.
func (b *biller) seen(x *bill, lived, granted int64, hard bool, at time.Time) {
	now := max(lived, x.paid())
	if now > x.granted && !x.hard && !b.bound(x) {
		b.grant(x, now, now, at) // it has no end, so it pays for all it lives
	}
	b.grant(x, granted, now, at)
	x.lived, x.hard = max(x.lived, lived), hard
}

// ended closes a bill. Of a lost run no more is known than what its node said.
func (b *biller) ended(x *bill, lived int64, lost bool, at time.Time) {
	switch {
	case lost:
		x.lived = x.paid()
	case lived > x.granted && !x.hard && !b.bound(x):
		b.grant(x, lived, lived, at)
		fallthrough
	default:
		x.unpaid = max(0, lived-x.granted)
		x.lived = max(x.lived, lived)
	}
	x.over = true
}

// limits takes the spending limit of a workspace: one where there was none begins
// a generation.
func (b *biller) spendingLimit(ws string, on bool) {
	switch {
	case !on:
		b.generations[ws] = 0
	case b.generations[ws] == 0:
		b.latest[ws]++
		b.generations[ws] = b.latest[ws]
	}
}

// rate of a run: GPUs by their share, cores, memory; the node's price before that
// for all, the longest type before a shorter one.
func (b *biller) rate(node, gpuType string, gpus int, milli, cpuMilli, memoryMiB int64) int64 {
	return int64(gpus)*(b.price(node, gpuType)*milli/1000) + b.price(node, "cpu")*cpuMilli/1000 + b.price(node, "memory")*memoryMiB/1024
}

func (b *biller) price(node, what string) int64 {
	for _, where := range []string{node, ""} {
		words := strings.Split(what, "-")
		for n := len(words); n >= 0; n-- {
			name := strings.Join(words[:n], "-")
			if n == 0 {
				name = "*"
			}
			if p, ok := b.prices[where+" "+name]; ok && (n > 0 || what != "cpu" && what != "memory") {
				return p
			}
		}
	}
	return 0
}

// rows are the ledger: what each run owes for each day and generation.
func (b *biller) rows() map[string]owed {
	all := map[string]owed{}
	for _, x := range b.order {
		for _, p := range x.parts {
			if to := min(p.to, x.paid()); to > p.from {
				k := fmt.Sprint(x.run, " ", p.day, " ", p.generation)
				all[k] = owed{all[k].amount + x.cost(to) - x.cost(p.from), all[k].ms + to - p.from}
			}
		}
	}
	return all
}

// money is what is spent and what is reserved.
type money struct{ spent, reserved int64 }

// sums are by day, of the cluster, the workspaces and their users; of workspaces
// over all days; and of the generation in force.
func (b *biller) sums() map[string]money {
	all := map[string]money{}
	add := func(spent, reserved int64, names ...string) {
		for _, name := range names {
			all[name] = money{all[name].spent + spent, all[name].reserved + reserved}
		}
	}
	for _, x := range b.order {
		for _, p := range x.parts {
			names := []string{"c " + p.day, "w " + x.workspace + " " + p.day, "u " + x.workspace + "/" + x.user + " " + p.day, "all " + x.workspace}
			if p.generation > 0 && p.generation == b.latest[x.workspace] {
				names = append(names, "generation "+x.workspace)
			}
			to := max(p.from, min(p.to, x.paid()))
			add(x.cost(to)-x.cost(p.from), 0, names...)
			if !x.over {
				add(0, x.cost(p.to)-x.cost(to), names...)
			}
		}
	}
	return all
}

// compare holds the state against the bills, to the micro-USD.
func (b *biller) compare(t *testing.T, v View) {
	t.Helper()
	rows, got := b.rows(), map[string]owed{}
	for e := range v.Ledger("", 0, 0) {
		got[fmt.Sprint(e.Run, " ", e.Day, " ", e.Generation)] = owed{e.Amount, e.MS}
	}
	same(t, "the row of run, day and generation", rows, got)
	perRun, cost := map[string]owed{}, map[string]owed{}
	for _, x := range b.order {
		perRun[x.run] = owed{x.cost(x.paid()), x.unpaid}
		r := v.Present(v.Run(x.run))
		cost[x.run] = owed{r.Cost, r.UnpaidMS}
	}
	same(t, "cost and unpaid time of run", perRun, cost)
	sums, books := b.sums(), map[string]money{}
	for s := range days.each(v.txn, "id") {
		name := map[scope]string{ofCluster: "c ", ofWorkspace: "w " + s.Workspace + " ", ofUser: "u " + s.Workspace + "/" + s.User + " "}[s.Scope]
		books[name+s.Day.String()] = money{s.Spent, s.Reserved}
	}
	for a := range accounts.each(v.txn, "id") {
		books["all "+a.Workspace] = money{a.Spent, a.Reserved}
		books["generation "+a.Workspace] = money{a.Accrued, a.Held}
	}
	same(t, "spent and reserved of", sums, books)
	if t.Failed() {
		t.FailNow()
	}
}

// same tells of the first few differences; what isn't there is nothing.
func same[T comparable](t *testing.T, what string, want, got map[string]T) {
	t.Helper()
	all := maps.Clone(got)
	maps.Copy(all, want)
	differ := 0
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if want[k] == got[k] {
			continue
		}
		if differ++; differ <= 5 {
			t.Errorf("biller: %s %s: owed is %+v, the state has %+v", what, k, want[k], got[k])
		}
	}
}
