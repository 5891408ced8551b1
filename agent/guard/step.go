package guard

import "fmt"

// action is what is due for an entry.
type action int

const (
	actNone   action = iota
	actTerm          // the notice, then SIGTERM
	actKill          // SIGKILL, or a look whether something came to life again
	actForget        // it ended long ago, and nobody asks any more
)

// keepEnded is for how long an entry is kept after its processes were gone, in
// ms: a daemon that is down for longer has lost more than that.
const keepEnded = 24 * 3600 * 1000

// step says what is due at a moment, and for how many ms nothing will be when it
// is nothing.
func step(e *Entry, now int64) (due action, wait int64) {
	switch {
	case ended(e, now) && e.Emptied != 0 && now >= e.Emptied+keepEnded:
		return actForget, 0
	case ended(e, now):
		return actKill, 0
	case e.Term != 0 && e.Termed == 0 && now >= e.Term:
		return actTerm, 0
	case e.Term != 0 && e.Termed == 0:
		return actNone, e.Term - now
	}
	return actNone, e.Kill - now
}

func ended(e *Entry, now int64) bool { return e.Killed != 0 || now >= e.Kill }

// replace is what a new deadline makes of the entry that is held for its run;
// nil: none is. The end of a run that has come stays.
func replace(held *Entry, d *Deadline, stop bool, now int64) (Entry, error) {
	switch {
	case held == nil:
		return Entry{Deadline: *d}, nil
	case d.Kill < held.Kill && !stop:
		return *held, fmt.Errorf("%w for run %s: %d, not %d", ErrEarlier, d.Run, held.Kill, d.Kill)
	case ended(held, now) && d.Kill > held.Kill && !stop:
		return *held, fmt.Errorf("run %s: %w at %d: it can't be moved to %d", d.Run, ErrEnded, held.Kill, d.Kill)
	case ended(held, now):
		return *held, nil
	}
	next := Entry{Deadline: *d, Termed: held.Termed}
	if d.Term > held.Termed {
		next.Termed = 0
	}
	return next, nil
}
