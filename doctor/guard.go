package doctor

import (
	"context"
	"strings"
)

// Guard is what the process says of itself that ends runs when their time is
// over.
type Guard struct {
	Pid     int
	Lacks   []string // of its protection, with reasons
	Damaged int      // deadlines that were stored and can't be read
	Error   string   // what keeps it from ending a run as it should
}

const guardLog = "journalctl -u berth-guard -e; without systemd see guard.log in the directory guard of berthd's run_dir"

func (e *exam) guard(ctx context.Context) {
	if e.Guard == nil || e.needsRoot("guard") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	g, err := e.Guard(ctx)
	switch {
	case err != nil && e.daemonPid() == 0:
		e.warn("guard", "systemctl start berth-guard, or start berthd", "no guard runs here: a lease that ends now doesn't end its run: %v", err)
	case err != nil:
		e.fail("guard", guardLog, "berthd runs, but its guard doesn't answer: no run with a lease can start: %v", err)
	case g.Damaged > 0:
		e.warn("guard", "see what they are in the directory damaged beside its socket, then remove them", "the guard (pid %d) found %d stored deadlines that it can't read: nothing ends those runs while berthd is down", g.Pid, g.Damaged)
	case g.Error != "":
		e.warn("guard", guardLog, "the guard (pid %d) answers, but can't end a run as it should: %s", g.Pid, g.Error)
	case len(g.Lacks) > 0:
		e.warn("guard", "start it by the package's unit, berth-guard.service", "the guard (pid %d) isn't protected as it should be: %s", g.Pid, strings.Join(g.Lacks, "; "))
	default:
		e.ok("guard", "the guard (pid %d) answers, and is protected", g.Pid)
	}
}
