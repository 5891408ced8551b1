package lease

import (
	"bytes"
	"fmt"
	"time"

	"berth/state"
	"berth/workspace"
)

// books are what the model knows of the state's promises.
type books struct {
	granted map[string]int64 // ms of a run's life, the most there was
	hard    map[string]bool  // runs that ever had a deadline
	soft    map[string]bool  // runs that ever lived without one
	placed  map[string]time.Time
	told    map[string]bool  // runs whose fault was counted
	usage   map[string]int64 // spent and reserved of each budget
	limits  map[string]int64 // the highest there ever was, by budget without its day
}

func newBooks() books {
	return books{granted: map[string]int64{}, hard: map[string]bool{}, soft: map[string]bool{}, told: map[string]bool{}, placed: map[string]time.Time{},
		usage: map[string]int64{}, limits: map[string]int64{}}
}

func (w *world) wrong(count *int, run, format string, args ...any) {
	if w.books.told[run] {
		return
	}
	w.books.told[run] = true
	*count++
	w.say("run %s: "+format, append([]any{run}, args...)...)
}

// slack is how far beyond its end a run may live: until KILL has worked.
const slack = mostKill + 100*time.Millisecond

// checkEntry looks at what an entry has changed.
func (w *world) checkEntry(before, after state.View, cmd state.Command) {
	w.checkBudgets(after)
	for _, n := range w.nodes {
		for _, p := range n.sorted() {
			if p.alive {
				w.checkAlive(after, p, fmt.Sprintf("%T", cmd))
			}
		}
		for run := range after.NodeRuns(n.id) {
			w.bookRun(after, run)
		}
	}
	expiry, ok := cmd.(*state.ExpireLeases)
	if !ok {
		return
	}
	for _, e := range expiry.Runs {
		if before.Run(e.Run).Phase.Terminal() || !after.Run(e.Run).Phase.Terminal() {
			continue
		}
		w.found.expired++
		if !w.books.hard[e.Run] {
			w.wrong(&w.found.cut, e.Run, "it expired and had no deadline")
		}
	}
}

// checkBudgets: nothing raises spent and reserved above a limit in force.
func (w *world) checkBudgets(view state.View) {
	for _, id := range []string{"ws0", "ws1"} {
		if view.Workspace(id) == nil {
			continue
		}
		for _, b := range view.WorkspaceUsage(id, view.At()).Budgets {
			name := fmt.Sprintf("%s of %s %s %d", b.Budget, id, b.User, b.Generation)
			key := fmt.Sprintf("%s on %s", name, b.Day)
			old, known := w.books.usage[key]
			now := b.Spent + b.Reserved
			w.books.usage[key] = now
			if b.Limit == nil {
				w.books.limits[name] = workspace.MaxMoney
				continue
			}
			w.books.limits[name] = max(w.books.limits[name], *b.Limit)
			most := *b.Limit
			if !known { // a day that had its reservations before it came
				most = w.books.limits[name]
			}
			if now > old && now > most {
				w.found.broken++
				w.say("the %s rose from %d to %d, the limit is %d", key, old, now, *b.Limit)
			}
		}
	}
}

// checkAlive: a run that lives isn't over in the state, and what it has lived is
// reserved.
func (w *world) checkAlive(view state.View, p *process, cmd string) {
	run := view.Run(p.run)
	if run.Phase.Terminal() {
		w.wrong(&w.found.freed, p.run, "%s ended it (%s, %s) while it lives: %v, end %v at %v", cmd, run.Phase, run.Reason, p.leased, p.end, p.n.clock.now())
	}
	w.checkLived(p, cmd)
}

func (w *world) checkLived(p *process, when string) {
	w.books.soft[p.run] = w.books.soft[p.run] || p.soft
	if granted := time.Duration(w.books.granted[p.run]) * time.Millisecond; !p.soft && p.lived() > granted+slack {
		w.wrong(&w.found.broken, p.run, "at %s it has lived %s, granted are %s", when, p.lived(), granted)
	}
}

func (w *world) bookRun(view state.View, run *workspace.Run) {
	if w.books.placed[run.ID].IsZero() {
		w.books.placed[run.ID] = time.Now()
	}
	m := view.Metered(run.ID)
	if m == nil {
		return
	}
	w.books.granted[run.ID] = max(w.books.granted[run.ID], m.GrantedMS)
	if m.Lease != nil && m.Lease.Hard {
		w.books.hard[run.ID] = true
	}
	if m.ChargedMS > m.GrantedMS {
		w.wrong(&w.found.broken, run.ID, "charged %d ms, granted %d", m.ChargedMS, m.GrantedMS)
	}
}

// checkStart: an instance lives once.
func (w *world) checkStart(p *process) {
	for _, n := range w.nodes {
		for _, other := range n.sorted() {
			if other != p && other.alive && other.instance == p.instance {
				w.wrong(&w.found.freed, p.run, "it starts while run %s of its instance lives on %s", other.run, n.id)
			}
		}
	}
}

// checkEnd looks at a process that has just ended.
func (w *world) checkEnd(p *process, why string) {
	w.checkLived(p, "its end ("+why+")")
	if why == "lease" && !w.books.hard[p.run] {
		w.wrong(&w.found.cut, p.run, "its guard ended it, and the state never gave it a deadline")
	}
}

// checkSettled looks at a world some minutes after its last fault.
func (w *world) checkSettled() {
	view := w.leader.store.View()
	unlike := func(format string, args ...any) {
		w.found.unlike++
		w.say(format, args...)
	}
	for node := range view.Nodes() {
		if !node.Reachable || !node.Ready {
			unlike("node %s: reachable %v, ready %v", node.ID, node.Reachable, node.Ready)
		}
	}
	for _, n := range w.nodes {
		for _, p := range n.sorted() {
			if run := view.Run(p.run); p.alive && (run.Phase != workspace.PhaseRunning || run.Node != n.id) {
				unlike("run %s lives on %s and is %s in the state", p.run, n.id, run.Phase)
			}
		}
	}
	for run := range view.AllRuns() {
		w.checkRun(run, unlike)
	}
	w.checkReplicas(unlike)
	w.checkLedger(view, unlike)
}

// checkRun: a run that is active lives or has just been placed; one that is over
// cost no more than was lived, and little less.
func (w *world) checkRun(run *workspace.Run, unlike func(string, ...any)) {
	recent := time.Since(w.books.placed[run.ID]) < 2*time.Minute
	if run.Phase.Active() && !recent {
		for _, n := range w.nodes {
			if p := n.runs[run.ID]; n.id == run.Node && (p == nil || !p.alive) {
				unlike("run %s is %s on %s and doesn't live there: %s", run.ID, run.Phase, n.id, p.describe(w.leader.store.View()))
			}
		}
		if run.Desired == workspace.RunStopping {
			unlike("run %s is still to stop (%s)", run.ID, run.StopReason)
		}
	}
	if run.Phase.Terminal() && run.Phase != workspace.PhaseLost && w.books.hard[run.ID] && !w.books.soft[run.ID] &&
		time.Duration(run.UnpaidMS)*time.Millisecond > slack {
		w.wrong(&w.found.broken, run.ID, "it is %s and %d ms of its life are unpaid", run.Phase, run.UnpaidMS)
	}
}

func (w *world) checkReplicas(unlike func(string, ...any)) {
	var first []byte
	for i, s := range w.servers {
		s.catchUp()
		var b bytes.Buffer
		if err := s.store.Snapshot().Write(&b); err != nil {
			w.t.Fatal(err)
		}
		if i == 0 {
			first = b.Bytes()
		} else if !bytes.Equal(first, b.Bytes()) {
			unlike("the state of %s isn't that of %s", s.name, w.servers[0].name)
		}
	}
}

// checkLedger: the ledger is what the runs have cost, and what the budgets show.
func (w *world) checkLedger(view state.View, unlike func(string, ...any)) {
	rows, costs := map[string]int64{}, map[string]int64{}
	for e := range view.Ledger("", 0, 0) {
		rows[e.Workspace] += e.Amount
	}
	for run := range view.AllRuns() {
		cost := run.Cost
		if m := view.Metered(run.ID); m != nil {
			cost = m.Cost
		}
		costs[run.Workspace] += cost
	}
	for _, u := range view.Usage(workspace.UsageQuery{By: []string{"workspace"}}) {
		if u.Spent != rows[u.Workspace] {
			unlike("workspace %s: the ledger has %d, used are %d", u.Workspace, rows[u.Workspace], u.Spent)
		}
	}
	for _, id := range []string{"ws0", "ws1"} {
		if spent := view.WorkspaceUsage(id, view.At()).Spent; rows[id] != costs[id] || rows[id] != spent {
			unlike("workspace %s: the ledger has %d, the runs cost %d, the usage is %d", id, rows[id], costs[id], spent)
		}
	}
}

// describe says what the node and the state have of a run.
func (p *process) describe(view state.View) string {
	if p == nil {
		return "its node doesn't know it"
	}
	text := fmt.Sprintf("over %v, lived %s, leased %v to %s at %s", p.over, p.lived(), p.leased, p.end, p.n.clock.now())
	if m := view.Metered(p.run); m != nil {
		text += fmt.Sprintf("; granted %d ms, lease %+v", m.GrantedMS, *m.Lease)
	}
	return text
}
