package scheduler

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"berth/gpu"
)

// switched is an NVSwitch box: equal NVLinks, PCIe pairs and two CPUs.
func switched(id string, n int) Node {
	return wire(box(id, a100, n), func(i, j int) gpu.Link {
		l := gpu.Link{NVLink: 12, PCIe: gpu.LinkSystem}
		switch {
		case i/8 != j/8:
			l.NVLink = 0
		case i/2 == j/2:
			l.PCIe = gpu.LinkMultiSwitch
		case i/4 == j/4:
			l.PCIe = gpu.LinkCPU
		}
		return l
	})
}

// meshed is a DGX-1V by its NVLink counts.
func meshed() Node {
	nvlinks := [8]string{"01122000", "10210200", "12020010", "21200001", "20000112", "02001021", "00101202", "00012120"}
	return wire(box("v", "Tesla V100-SXM2-32GB", 8), func(i, j int) gpu.Link {
		return gpu.Link{NVLink: int(nvlinks[i][j] - '0'), PCIe: gpu.LinkSystem}
	})
}

// indexes runs one request of whole devices and gives the indexes it got.
func indexes(t interface{ Fatalf(string, ...any) }, n Node, count int) []int {
	d := place([]Node{n}, gpus(count, ""))[0]
	if d.Node == "" {
		t.Fatalf("not placed: %+v", d.Reason)
	}
	var got []int
	for _, a := range d.Devices {
		got = append(got, slices.IndexFunc(n.Devices, func(x gpu.Device) bool { return x.UUID == a.UUID }))
	}
	return got
}

func TestDevicesByTopology(t *testing.T) {
	for _, test := range []struct {
		name  string
		node  Node
		count int
		want  []int
	}{
		{"a pair below one switch", switched("a", 8), 2, []int{0, 1}},
		{"a CPU's four", switched("a", 8), 4, []int{0, 1, 2, 3}},
		{"the widow of a broken pair", hold(switched("a", 8), 1000, 4), 1, []int{5}},
		{"the pair of a CPU already used", hold(switched("a", 8), 1000, 0, 1), 2, []int{2, 3}},
		{"all", switched("a", 8), 8, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{"double links of a cube mesh", meshed(), 2, []int{0, 3}},
		{"the double link that is left", hold(meshed(), 1000, 0, 1, 3, 4, 5), 2, []int{6, 7}},
		{"many devices: one board", hold(switched("a", 64), 1000, 0, 9, 17, 25, 33, 49, 57), 8, []int{40, 41, 42, 43, 44, 45, 46, 47}},
	} {
		if got := indexes(t, test.node, test.count); !slices.Equal(got, test.want) {
			t.Errorf("%s: devices %v, want %v", test.name, got, test.want)
		}
	}
}

// The chosen set has the best score, and leaves the best behind of those that
// have it.
func TestChoiceIsBestOfAllSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "devices")
		k := rapid.IntRange(1, n-1).Draw(t, "asked")
		score := make([][]int, n)
		for i := range score {
			score[i] = make([]int, n)
		}
		node := wire(box("a", a100, n), func(i, j int) gpu.Link {
			l := gpu.Link{
				NVLink: rapid.IntRange(0, 2).Draw(t, "nvlink"),
				PCIe:   rapid.SampledFrom([]gpu.PCIeLink{gpu.LinkSwitch, gpu.LinkSystem}).Draw(t, "pcie"),
			}
			score[i][j], score[j][i] = l.Score(), l.Score()
			return l
		})
		of := func(set uint) (inside, behind int) {
			for i := range n {
				for j := i + 1; j < n; j++ {
					switch a, b := set>>i&1, set>>j&1; {
					case a == 1 && b == 1:
						inside += score[i][j]
					case a == 0 && b == 0:
						behind += score[i][j]
					}
				}
			}
			return inside, behind
		}
		var chosen uint
		for _, i := range indexes(t, node, k) {
			chosen |= 1 << i
		}
		inside, behind := of(chosen)
		for set := range uint(1) << n {
			if popcount(set) != k {
				continue
			}
			if in, left := of(set); in > inside || in == inside && left > behind {
				t.Fatalf("%0*b scores %d and leaves %d; chose %0*b with %d and %d", n, set, in, left, n, chosen, inside, behind)
			}
		}
	})
}

func popcount(set uint) int {
	count := 0
	for ; set > 0; set &= set - 1 {
		count++
	}
	return count
}
