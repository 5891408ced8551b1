// Package lease is the leader's part of leases (docs/domain.md): it says which
// nodes are heard from, grants further time to runs whose node was just heard,
// and ends those whose time is over on nodes that are silent.
package lease

import (
	"log/slog"
	"slices"
	"sync"
	"time"

	"berth/workspace"
)

// SilentAfter is how long a node may send no beat before it counts as
// unreachable: five beats.
const SilentAfter = 5 * workspace.BeatEvery

// youngBeat is how old a beat may be whose stamp a first lease answers. The lease
// begins at the stamp: what lies before the placement is time lost for the run.
const youngBeat = 2 * workspace.BeatEvery

// Keeper has the latest beat of each node. A server has one Keeper for its whole
// life; what a leader does with it is a Term. Its methods may be called by any
// goroutine.
type Keeper struct {
	log      *slog.Logger
	boottime func() time.Duration // CLOCK_BOOTTIME of this server
	wake     chan struct{}        // a beat came

	mu    sync.Mutex
	beats map[string]heard // by node
}

// heard is a beat and when it came, by this server's boot clock.
type heard struct {
	beat  workspace.Beat
	at    time.Duration
	fresh bool // no term has answered it yet
}

// NewKeeper makes a Keeper that has heard nothing.
func NewKeeper(log *slog.Logger, boottime func() time.Duration) *Keeper {
	return &Keeper{log: log, boottime: boottime, wake: make(chan struct{}, 1), beats: map[string]heard{}}
}

// Beat takes a node's beat. One that isn't newer than what the node said before,
// in the same boot, came late and is passed over.
func (k *Keeper) Beat(beat workspace.Beat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	old, ok := k.beats[beat.Node]
	if ok && old.beat.Stamp.BootID == beat.Stamp.BootID && old.beat.Stamp.BoottimeMS >= beat.Stamp.BoottimeMS {
		return
	}
	k.beats[beat.Node] = heard{beat: beat, at: k.boottime(), fresh: true}
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// Stamp of a node's latest beat, for a lease that begins now; nil when the node
// wasn't heard lately.
func (k *Keeper) Stamp(node *workspace.Node) *workspace.Stamp {
	h, ok := k.heard(node)
	if !ok || k.boottime()-h.at > youngBeat {
		return nil
	}
	return &h.beat.Stamp
}

// heard gives the latest beat of a node; one of a boot before the present one,
// delivered late, is none.
func (k *Keeper) heard(node *workspace.Node) (heard, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.beats[node.ID]
	if !ok || slices.Contains(node.PastBoots, h.beat.Stamp.BootID) {
		return heard{}, false
	}
	return h, true
}

// answered notes that a beat needs no further answer.
func (k *Keeper) answered(beat workspace.Beat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if h := k.beats[beat.Node]; h.beat.Stamp == beat.Stamp {
		h.fresh = false
		k.beats[beat.Node] = h
	}
}
