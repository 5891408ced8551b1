package scheduler

import (
	"cmp"
	"slices"

	"berth/gpu"
)

// exhaustiveLimit is up to how many devices every set is tried: at most
// 12 870 sets (8 of 16).
const exhaustiveLimit = 16

// chooseDevices picks the demand's devices among those with room, by index in
// ascending order. Whole devices: the set with the highest link score, ties by
// the best score left behind. Shares: the fullest devices that still have room.
func chooseDevices(f fit) []int {
	k := f.demand.count
	if k == 0 || k == len(f.room) {
		return slices.Clone(f.room)
	}
	links := newLinks(f)
	if !f.demand.whole() {
		return fullest(f, links)
	}
	if len(f.room) <= exhaustiveLimit {
		s := search{links: links, k: k, picked: make([]int, 0, k)}
		s.try(0, 0, 0)
		return links.devices(s.best)
	}
	return greedy(links, k)
}

// links holds the pair scores between the devices with room; positions in it
// are positions in room.
type links struct {
	room  []int
	score []int // n × n
	sum   []int // of one device's pairs: what its leaving costs the rest
}

func newLinks(f fit) *links {
	n := len(f.room)
	l := &links{room: f.room, score: make([]int, n*n), sum: make([]int, n)}
	position := make(map[string]int, n)
	for p, i := range f.room {
		position[f.host.node.Devices[i].UUID] = p
	}
	unlinked := gpu.Link{}.Score()
	for i := range l.score {
		if i/n != i%n {
			l.score[i] = unlinked
		}
	}
	for _, link := range f.host.node.Links {
		a, okA := position[link.A]
		b, okB := position[link.B]
		if okA && okB && a != b {
			l.score[a*n+b], l.score[b*n+a] = link.Score(), link.Score()
		}
	}
	for i, score := range l.score {
		l.sum[i/n] += score
	}
	return l
}

// devices turns positions into device indexes.
func (l *links) devices(positions []int) []int {
	devices := make([]int, len(positions))
	for i, p := range positions {
		devices[i] = l.room[p]
	}
	slices.Sort(devices)
	return devices
}

// with is the score that adding p to picked brings.
func (l *links) with(picked []int, p int) int {
	score, n := 0, len(l.room)
	for _, q := range picked {
		score += l.score[q*n+p]
	}
	return score
}

// search walks all sets of k in lexicographic order. What a set of inside score
// I and pair sums S leaves behind is total − S + I, so of two sets with equal I
// the one with the smaller S leaves more.
type search struct {
	links                *links
	k                    int
	picked, best         []int
	bestInside, bestSums int
}

func (s *search) try(from, inside, sums int) {
	if len(s.picked) == s.k {
		if s.best == nil || inside > s.bestInside || inside == s.bestInside && sums < s.bestSums {
			s.best, s.bestInside, s.bestSums = append(s.best[:0], s.picked...), inside, sums
		}
		return
	}
	for p := from; p <= len(s.links.room)-(s.k-len(s.picked)); p++ {
		gain := s.links.with(s.picked, p)
		s.picked = append(s.picked, p)
		s.try(p+1, inside+gain, sums+s.links.sum[p])
		s.picked = s.picked[:len(s.picked)-1]
	}
}

// greedy grows a set from each device in turn, by the device that adds most,
// and keeps the best set.
func greedy(l *links, k int) []int {
	var best []int
	bestInside, bestSums := 0, 0
	for seed := range l.room {
		picked, inside, sums := []int{seed}, 0, l.sum[seed]
		for len(picked) < k {
			next, gain := -1, 0
			for p := range l.room {
				if slices.Contains(picked, p) {
					continue
				}
				g := l.with(picked, p)
				if next < 0 || g > gain {
					next, gain = p, g
				}
			}
			picked, inside, sums = append(picked, next), inside+gain, sums+l.sum[next]
		}
		if best == nil || inside > bestInside || inside == bestInside && sums < bestSums {
			best, bestInside, bestSums = picked, inside, sums
		}
	}
	return l.devices(best)
}

// fullest picks the devices with the most held already, ties by what leaves
// the best linked devices whole.
func fullest(f fit, l *links) []int {
	order := make([]int, len(f.room))
	for p := range order {
		order[p] = p
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Or(
			cmp.Compare(f.host.devices[f.room[b]].held, f.host.devices[f.room[a]].held),
			cmp.Compare(l.sum[a], l.sum[b]),
		)
	})
	return l.devices(order[:f.demand.count])
}
