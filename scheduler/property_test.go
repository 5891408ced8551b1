package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"berth/gpu"
	"berth/workspace"
)

// The rules of placement once more, written naively and without a look at how
// Place does it: every device set is tried, one request at a time.

// fitsNaively reports whether this node can run the request on exactly these
// devices.
func fitsNaively(n *Node, r *Request, milli int, chosen []int) bool {
	if n.Closed != "" || r.Node != "" && r.Node != n.ID || milli < 1000 && !n.Shares {
		return false
	}
	if n.Used.CPUMilli+r.Resources.CPUMilli > n.Total.CPUMilli ||
		n.Used.MemoryMiB+r.Resources.MemoryMiB > n.Total.MemoryMiB ||
		addsNaively(n, r) > 0 && n.Used.StorageMiB+addsNaively(n, r) > n.Total.StorageMiB {
		return false
	}
	for _, i := range chosen {
		d := &n.Devices[i]
		if d.Missing || d.Unusable != "" || d.Health != gpu.Healthy || d.HeldMilli()+milli > 1000 ||
			!d.HasMemory(r.Resources.GPUMemoryMiB) || !gpu.Matches(r.Resources.GPUType, &d.Info) {
			return false
		}
		for _, h := range d.Holders {
			if h.Releasing || h.Stuck {
				return false
			}
		}
		for j := range n.Devices {
			related := n.Devices[j].Parent == d.UUID || d.Parent == n.Devices[j].UUID
			if related && (n.Devices[j].HeldMilli() > 0 || slices.Contains(chosen, j)) {
				return false
			}
		}
	}
	return true
}

// addsNaively is what the request adds to the storage promised on a node.
func addsNaively(n *Node, r *Request) int64 {
	if r.Node == n.ID {
		return max(0, r.Resources.StorageMiB-r.VolumeMiB)
	}
	return r.Resources.StorageMiB
}

func asked(r *Request) (count, milli int) {
	if share := r.Resources.GPUShare; share > 0 && share < 1000 {
		return max(1, r.Resources.GPUCount), share
	}
	return r.Resources.GPUCount, 1000
}

// possibleNaively reports whether any device set of the node will do.
func possibleNaively(n *Node, r *Request) bool {
	count, milli := asked(r)
	for set := range uint(1) << len(n.Devices) {
		if popcount(set) != count {
			continue
		}
		var chosen []int
		for i := range n.Devices {
			if set>>i&1 == 1 {
				chosen = append(chosen, i)
			}
		}
		if fitsNaively(n, r, milli, chosen) {
			return true
		}
	}
	return false
}

// idle is the node with nothing running, nothing broken, open.
func idle(n Node) Node {
	n.Closed, n.Used = "", Capacity{}
	n.Devices = slices.Clone(n.Devices)
	for i := range n.Devices {
		n.Devices[i].Holders, n.Devices[i].Health = nil, gpu.Healthy
	}
	return n
}

func drawDevice(t *rapid.T, node, i int) gpu.Device {
	model := rapid.SampledFrom([]string{a100, a100, t4}).Draw(t, "model")
	d := gpu.Device{Health: gpu.Healthy, Info: gpu.Info{
		UUID: fmt.Sprintf("GPU-%d-%d", node, i), Model: model, Type: gpu.TypeName(model), Vendor: "NVIDIA",
		MemoryMiB: rapid.SampledFrom([]int64{16384, 40960}).Draw(t, "device memory"),
	}}
	switch rapid.IntRange(0, 10).Draw(t, "condition") {
	case 10:
		d.Unusable = "left out"
	case 0:
		d.Missing = true
	case 1:
		d.Health = gpu.Unhealthy
	case 2:
		d.Holders = []gpu.Holder{{Run: "x", Milli: 300, Releasing: true}}
	case 3:
		d.Holders = []gpu.Holder{{Run: "x", Milli: 1000, Stuck: true}}
	case 4:
		d.Holders = []gpu.Holder{{Run: "x", Milli: 1000}}
	case 5:
		d.Holders = []gpu.Holder{{Run: "x", Milli: rapid.IntRange(1, 999).Draw(t, "held")}}
	}
	return d
}

func drawNode(t *rapid.T, id int) Node {
	n := Node{
		ID: fmt.Sprint(id), Name: fmt.Sprint(id), Reported: true,
		Closed: rapid.SampledFrom([]string{"", "", "", "draining"}).Draw(t, "closed"),
		Shares: rapid.IntRange(0, 4).Draw(t, "shares") > 0,
		Total:  Capacity{8000, 8192, 8192},
		Used: Capacity{CPUMilli: 1000 * rapid.Int64Range(0, 8).Draw(t, "used cores"),
			StorageMiB: rapid.SampledFrom([]int64{0, 0, 5000, 9000}).Draw(t, "used storage")},
	}
	for i := range rapid.IntRange(0, 6).Draw(t, "devices") {
		n.Devices = append(n.Devices, drawDevice(t, id, i))
		if i > 0 && rapid.IntRange(0, 3).Draw(t, "slice") == 0 {
			n.Devices[i].Parent = n.Devices[0].UUID
			n.Devices[i].Type += "-MIG-1G"
		}
	}
	if len(n.Devices) == 0 {
		n.Reported = rapid.Bool().Draw(t, "reported")
	}
	return n
}

func drawRequest(t *rapid.T, i, nodes int) Request {
	r := Request{Run: fmt.Sprint("run-", i), Resources: workspace.Resources{
		GPUCount:     rapid.IntRange(0, 4).Draw(t, "count"),
		GPUType:      rapid.SampledFrom([]string{"", "", "a100", "t4", "t4|a100", "h100", "t4|t4-mig|a100|a100-sxm4-80gb-mig", "a100-sxm4-80gb-mig"}).Draw(t, "type"),
		GPUMemoryMiB: rapid.SampledFrom([]int64{0, 0, 40960}).Draw(t, "memory of the device"),
		GPUShare:     rapid.SampledFrom([]int{0, 0, 1, 300, 700, 999, 1000}).Draw(t, "share"),
		CPUMilli:     1000 * rapid.Int64Range(0, 9).Draw(t, "cores"),
		MemoryMiB:    rapid.SampledFrom([]int64{0, 3000, 8192, 9000}).Draw(t, "memory"),
		StorageMiB:   rapid.SampledFrom([]int64{0, 3000, 8192}).Draw(t, "storage"),
	}}
	if rapid.IntRange(0, 4).Draw(t, "pin") == 0 {
		r.Node = fmt.Sprint(rapid.IntRange(0, nodes).Draw(t, "pinned to")) // one past the end: gone
		r.VolumeMiB = rapid.SampledFrom([]int64{1000, 3000, 9000}).Draw(t, "has")
	}
	return r
}

// A decision is valid by the naive rules and takes what it says; a refusal is
// one that no device set of any node would have avoided, and it is final
// exactly when no idle node could ever do it.
func TestPlaceAgainstNaiveRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var nodes []Node
		for i := range rapid.IntRange(1, 3).Draw(t, "nodes") {
			nodes = append(nodes, drawNode(t, i))
		}
		var requests []Request
		for i := range rapid.IntRange(1, 5).Draw(t, "requests") {
			requests = append(requests, drawRequest(t, i, len(nodes)))
		}
		before := clone(nodes)
		decisions := Place(View{nodes}, requests)
		if diff := cmp.Diff(before, nodes); diff != "" {
			t.Fatalf("Place changed its view (-before +after):\n%s", diff)
		}
		if shuffled := Place(View{shuffle(t, nodes)}, requests); !cmp.Equal(decisions, shuffled) {
			t.Fatalf("the order of nodes matters:\n%s", cmp.Diff(decisions, shuffled))
		}
		for i := range requests {
			d, r := &decisions[i], &requests[i]
			if d.Run != r.Run || (d.Reason == nil) != (d.Node != "") {
				t.Fatalf("decision %+v for %+v", d, r)
			}
			if d.Reason == nil {
				takeNaively(t, nodes, r, d)
				continue
			}
			mustRefuse(t, nodes, r, d.Reason)
		}
	})
}

func mustRefuse(t *rapid.T, nodes []Node, r *Request, reason *Reason) {
	ever := false
	anywhere := *r
	anywhere.Node = ""
	for i := range nodes {
		if possibleNaively(&nodes[i], r) {
			t.Fatalf("%+v refused (%+v), but node %s could", r, reason, nodes[i].ID)
		}
		empty, want := idle(nodes[i]), anywhere
		if !empty.Reported {
			want.Resources.GPUCount, want.Resources.GPUShare = 0, 0
		}
		if empty.ID == r.Node {
			want.Resources.StorageMiB = min(addsNaively(&empty, r), want.Resources.StorageMiB)
		}
		ever = ever || possibleNaively(&empty, &want)
	}
	if reason.Final() == ever {
		t.Fatalf("%+v: final %v (%+v), an idle node could: %v", r, reason.Final(), reason, ever)
	}
}

// takeNaively checks a placement and notes it in the nodes.
func takeNaively(t *rapid.T, nodes []Node, r *Request, d *Decision) {
	n := &nodes[slices.IndexFunc(nodes, func(n Node) bool { return n.ID == d.Node })]
	count, milli := asked(r)
	var chosen []int
	for _, a := range d.Devices {
		i := slices.IndexFunc(n.Devices, func(x gpu.Device) bool { return x.UUID == a.UUID })
		if i < 0 || a.Milli != milli || slices.Contains(chosen, i) {
			t.Fatalf("%+v got %+v", r, d)
		}
		chosen = append(chosen, i)
	}
	if len(chosen) != count || !fitsNaively(n, r, milli, chosen) {
		t.Fatalf("%+v got %+v, which breaks a rule", r, d)
	}
	n.Used.CPUMilli += r.Resources.CPUMilli
	n.Used.MemoryMiB += r.Resources.MemoryMiB
	n.Used.StorageMiB += addsNaively(n, r)
	for _, i := range chosen {
		n.Devices[i].Holders = append(n.Devices[i].Holders, gpu.Holder{Run: r.Run, Milli: milli})
		if n.Devices[i].HeldMilli() > 1000 {
			t.Fatalf("%s is held %d milli", n.Devices[i].UUID, n.Devices[i].HeldMilli())
		}
	}
}

func clone(nodes []Node) []Node {
	copied := slices.Clone(nodes)
	for i := range copied {
		copied[i].Devices = slices.Clone(copied[i].Devices)
	}
	return copied
}

func shuffle(t *rapid.T, nodes []Node) []Node {
	shuffled := slices.Clone(nodes)
	random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
	random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	return shuffled
}
