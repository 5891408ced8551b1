package lease

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The model of leases: replicas of the real state behind a simulated log, the
// real work of a leader, and nodes that follow the protocol of docs/domain.md to
// the letter, in simulated time. Clocks drift and step, servers come and go,
// messages are lost, late, doubled and out of order, hosts reboot, budgets run
// out. What must never happen is looked for at every entry and every end of a
// process.

// protocol is the rules that a world lives by. The wrong ones show that the model
// can fail.
type protocol int

const (
	asDesigned    protocol = iota
	byServerClock          // a node takes the end of a lease from the server's time
	lateExtends            // a node counts a grant from when it is delivered
	noMargin               // the leader waits for what was granted and no longer
)

// The bounds that the model keeps its nodes to.
const (
	mostDrift = 500             // ppm
	mostKill  = 5 * time.Second // from KILL to the last process gone
)

// found is what was wrong in one world or in many.
type found struct {
	broken   int // entries above a budget, and runs that lived beyond what was reserved
	freed    int // runs given up by the state while they lived
	cut      int // runs without a deadline that lost contact ended
	unlike   int // worlds that didn't converge
	expired  int // runs ended by the expiry of their lease, which is how it should be
	killed   int // processes ended by their guard
	entries  int
	messages []string
}

func (f *found) add(o *found) {
	f.broken, f.freed, f.cut, f.unlike = f.broken+o.broken, f.freed+o.freed, f.cut+o.cut, f.unlike+o.unlike
	f.expired, f.killed, f.entries = f.expired+o.expired, f.killed+o.killed, f.entries+o.entries
	f.messages = append(f.messages, o.messages...)
}

// world is one run of the model. Everything in it is guarded by mu.
type world struct {
	t        *testing.T
	seed     uint64
	protocol protocol
	mu       sync.Mutex
	rng      *rand.Rand
	began    time.Time
	faulty   bool // faults go on
	over     bool
	servers  []*server
	leader   *server // nil: there is none
	term     uint64
	log      []logged
	nodes    []*node
	made     int // instances
	moments  int
	books    books
	found    found
}

// newWorld is called in a bubble.
func newWorld(t *testing.T, seed uint64, p protocol) *world {
	w := &world{t: t, seed: seed, protocol: p, rng: rand.New(rand.NewPCG(seed, uint64(p))), faulty: true}
	w.books = newBooks()
	// Half of the worlds see midnight.
	wait := w.between(0, 23*time.Hour)
	if w.chance(0.5) {
		wait = 24*time.Hour - w.between(time.Minute, 30*time.Minute)
	}
	time.Sleep(wait)
	w.began = time.Now()
	for i := range 3 {
		w.servers = append(w.servers, w.newServer(i))
	}
	for i := range 3 {
		w.nodes = append(w.nodes, w.newNode(i))
	}
	return w
}

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) between(low, high time.Duration) time.Duration {
	return low + time.Duration(w.rng.Int64N(int64(high-low)+1))
}

func pick[T any](w *world, from ...T) T { return from[w.rng.IntN(len(from))] }

// after calls f in its time, at a moment of its own.
func (w *world) after(d time.Duration, f func()) *time.Timer {
	w.moments++
	return time.AfterFunc(max(d, 0)+time.Duration(1+w.moments%10_000), func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !w.over {
			f()
		}
	})
}

// every calls f again and again, at odd intervals.
func (w *world) every(low, high time.Duration, f func()) {
	w.after(w.between(low, high), func() {
		f()
		w.every(low, high, f)
	})
}

func (w *world) say(format string, args ...any) {
	w.found.messages = append(w.found.messages,
		fmt.Sprintf("seed %d, %s: ", w.seed, time.Since(w.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// clock is the boot clock of a host: it drifts.
type clock struct {
	begun time.Time
	base  time.Duration
	ppm   int64
}

func (w *world) newClock() clock {
	return clock{begun: time.Now(), base: w.between(time.Second, 1000*time.Hour), ppm: w.rng.Int64N(2*mostDrift+1) - mostDrift}
}

func (c *clock) now() time.Duration {
	d := time.Since(c.begun)
	return c.base + d + time.Duration(int64(d)/1_000_000*c.ppm)
}

// until is how long it really is until the clock shows a time.
func (c *clock) until(at time.Duration) time.Duration {
	left := at - c.now()
	return left - time.Duration(int64(left)/1_000_000*c.ppm) + time.Millisecond
}

// live runs a world: faults for a while, then none until it has settled.
func (w *world) live() {
	w.mu.Lock()
	w.elect()
	w.setUp(w.chance(0.3))
	w.users()
	w.faults()
	length := w.between(20*time.Minute, 60*time.Minute)
	w.mu.Unlock()
	time.Sleep(length)
	w.mu.Lock()
	w.heal()
	w.mu.Unlock()
	w.end()
}

// end lets a healed world settle, and looks at it.
func (w *world) end() {
	time.Sleep(6 * time.Minute)
	synctest.Wait()
	w.mu.Lock()
	w.checkSettled()
	w.over = true
	for _, s := range w.servers {
		s.resign()
	}
	w.mu.Unlock()
	synctest.Wait()
}

// modelled runs the worlds of some seeds, two at a time, and gives what was
// found in all.
func modelled(t *testing.T, first, seeds int, p protocol) *found {
	var all found
	var mu sync.Mutex
	var group sync.WaitGroup
	next := make(chan uint64)
	for range 2 {
		group.Go(func() {
			for seed := range next {
				var w *world
				synctest.Test(t, func(t *testing.T) {
					w = newWorld(t, seed, p)
					w.live()
				})
				mu.Lock()
				all.add(&w.found)
				mu.Unlock()
			}
		})
	}
	for i := range seeds {
		next <- uint64(first + i) // #nosec G115 -- small
	}
	close(next)
	group.Wait()
	return &all
}

func TestModel(t *testing.T) {
	first, seeds := 0, 300
	if raced {
		seeds = 40 // the others are run without the detector
	}
	if os.Getenv("BERTH_TORTURE") != "" {
		seeds = 3000
	}
	if s, err := strconv.Atoi(os.Getenv("BERTH_SEED")); err == nil { // one world again
		first, seeds = s, 1
	}
	began := time.Now()
	f := modelled(t, first, seeds, asDesigned)
	t.Logf("%d seeds in %s, %d entries: budget broken %d, freed while alive %d, cut off without a deadline %d, not converged %d; "+
		"%d leases expired, %d processes ended by their guard", seeds, time.Since(began).Round(time.Second), f.entries, f.broken, f.freed, f.cut,
		f.unlike, f.expired, f.killed)
	if f.broken+f.freed+f.cut+f.unlike > 0 {
		var text bytes.Buffer
		for _, m := range f.messages[:min(len(f.messages), 20)] {
			fmt.Fprintln(&text, m)
		}
		t.Errorf("%s", text.String())
	}
	if seeds > 1 && (f.expired < seeds/4 || f.killed < seeds/4) {
		t.Errorf("only %d leases expired and %d processes were ended by their guard: the model tests little", f.expired, f.killed)
	}
}

// Each rule that is taken out breaks the budget or frees a run that lives.
func TestModelFindsNaiveRules(t *testing.T) {
	for name, c := range map[string]struct {
		protocol protocol
		broken   func(*found) int
	}{
		"the end by the server's clock": {byServerClock, func(f *found) int { return f.broken + f.freed }},
		"a late delivery extends":       {lateExtends, func(f *found) int { return f.broken + f.freed }},
		"no margin before the expiry":   {noMargin, func(f *found) int { return f.freed }},
	} {
		var f found
		seeds := 0
		for ; seeds < 100 && c.broken(&f) == 0; seeds += 10 {
			f.add(modelled(t, seeds, 10, c.protocol))
		}
		t.Logf("%s: budget broken %d, freed while alive %d in %d seeds", name, f.broken, f.freed, seeds)
		if c.broken(&f) == 0 {
			t.Errorf("%s: nothing was broken", name)
		}
	}
}
