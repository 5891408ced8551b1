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
	beats map[string][]heard // by node: the latest of each boot, the boot heard last at the end
}

// bootsHeard is of how many boots of a node the latest beat is kept. Which of them
// are past is for the state to say.
const bootsHeard = 4

// heard is a beat and when it came, by this server's boot clock.
type heard struct {
	beat  workspace.Beat
	at    time.Duration
	fresh bool // no term has answered it yet
}

// NewKeeper makes a Keeper that has heard nothing.
func NewKeeper(log *slog.Logger, boottime func() time.Duration) *Keeper {
	return &Keeper{log: log, boottime: boottime, wake: make(chan struct{}, 1), beats: map[string][]heard{}}
}

// Beat takes a node's beat. One that isn't newer than what the node said before,
// in the same boot, came late and is passed over.
func (k *Keeper) Beat(beat workspace.Beat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := k.beats[beat.Node]
	if i := slices.IndexFunc(all, func(h heard) bool { return h.beat.Stamp.BootID == beat.Stamp.BootID }); i >= 0 {
		if all[i].beat.Stamp.BoottimeMS >= beat.Stamp.BoottimeMS {
			return
		}
		all = slices.Delete(all, i, i+1)
	}
	all = append(all, heard{beat: beat, at: k.boottime(), fresh: true})
	k.beats[beat.Node] = all[max(0, len(all)-bootsHeard):]
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

// heard gives the latest beat of a node. One of a boot before the present one was
// delivered late: it says nothing of the node now.
func (k *Keeper) heard(node *workspace.Node) (heard, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := slices.DeleteFunc(k.beats[node.ID], func(h heard) bool { return slices.Contains(node.PastBoots, h.beat.Stamp.BootID) })
	k.beats[node.ID] = all
	if len(all) == 0 {
		return heard{}, false
	}
	return all[len(all)-1], true
}

// answered notes that a beat needs no further answer.
func (k *Keeper) answered(beat workspace.Beat) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, h := range k.beats[beat.Node] {
		if h.beat.Stamp == beat.Stamp {
			k.beats[beat.Node][i].fresh = false
		}
	}
}
