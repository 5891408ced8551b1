package scheduler

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/gpu"
	"berth/workspace"
)

// box is an open node with 64 cores, 512 GiB, 1 TiB and n free devices without
// links, which runs may share.
func box(id, model string, n int) Node {
	node := Node{ID: id, Name: id, Reported: true, Shares: true, Total: Capacity{64000, 524288, 1048576}}
	for i := range n {
		node.Devices = append(node.Devices, gpu.Device{
			Info: gpu.Info{
				UUID: fmt.Sprintf("GPU-%s-%02d", id, i), Index: i, Model: model, Type: gpu.TypeName(model),
				Vendor: "NVIDIA", MemoryMiB: 40960,
			},
			Node: id, State: gpu.Free, Health: gpu.Healthy,
		})
	}
	return node
}

// wire links every two devices of a node.
func wire(n Node, link func(i, j int) gpu.Link) Node {
	for i := range n.Devices {
		for j := i + 1; j < len(n.Devices); j++ {
			l := link(i, j)
			l.A, l.B = n.Devices[i].UUID, n.Devices[j].UUID
			n.Links = append(n.Links, l)
		}
	}
	return n
}

// hold gives milli of each named device to another run.
func hold(n Node, milli int, devices ...int) Node {
	for _, i := range devices {
		n.Devices[i].Holders = append(n.Devices[i].Holders, gpu.Holder{Run: "other", Milli: milli})
	}
	return n
}

// with changes a node.
func with(n Node, change func(*Node)) Node {
	change(&n)
	return n
}

func gpus(count int, kind string) workspace.Resources {
	return workspace.Resources{GPUCount: count, GPUType: kind, CPUMilli: 1000, MemoryMiB: 1024, StorageMiB: 1024}
}

func place(nodes []Node, resources ...workspace.Resources) []Decision {
	var requests []Request
	for i, r := range resources {
		requests = append(requests, Request{Run: fmt.Sprint(i), Resources: r})
	}
	return Place(View{nodes}, requests)
}

const a100, h100, t4 = "NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3", "Tesla T4"

func TestReasons(t *testing.T) {
	full := func(id, model string) Node { return hold(box(id, model, 8), 1000, 0, 1, 2, 3, 4, 5, 6) }
	closedNode := func(why string) Node { return with(box("d", h100, 8), func(n *Node) { n.Closed = why }) }
	silent := Node{ID: "s", Name: "s", Total: Capacity{64000, 524288, 1048576}}
	for _, test := range []struct {
		name    string
		nodes   []Node
		request Request
		code    Code
		message string
	}{
		{"no nodes", nil, Request{}, CodeWaitingForNode, "no node is registered yet"},
		{"busy and draining", []Node{full("a", h100), full("b", h100), closedNode("draining")},
			Request{Resources: gpus(4, "h100")}, CodeWaitingForGPU,
			"3 nodes: 1 draining, 2 without 4 free H100 (at most 1)"},
		{"all closed", []Node{closedNode("cordoned")}, Request{Resources: gpus(1, "h100")}, CodeWaitingForNode,
			"1 node: 1 cordoned"},
		{"kind on a busy node only", []Node{box("a", t4, 2), full("b", h100)}, Request{Resources: gpus(2, "h100")},
			CodeWaitingForGPU, "2 nodes: 1 without H100, 1 without 2 free H100 (at most 1)"},
		{"share", []Node{hold(box("a", t4, 1), 600, 0)}, Request{Resources: workspace.Resources{GPUShare: 500}},
			CodeWaitingForGPU, "1 node: 1 without 500/1000 of 1 GPU free (at most 0)"},
		{"kind absent", []Node{box("a", a100, 8), box("b", t4, 2), box("c", t4, 2)}, Request{Resources: gpus(1, "h100")},
			CodeKindAbsent, "no node has H100; the cluster has 8 × A100-SXM4-80GB on 1 node, 4 × T4 on 2 nodes"},
		{"no GPUs at all", []Node{box("a", "", 0)}, Request{Resources: gpus(1, "")},
			CodeKindAbsent, "no node has GPUs; the cluster has no GPUs"},
		{"memory of the device", []Node{box("a", a100, 1)},
			Request{Resources: workspace.Resources{GPUCount: 1, GPUType: "a100|h100", GPUMemoryMiB: 81920}},
			CodeKindAbsent, "no node has A100 or H100 of ≥ 81920 MiB; the cluster has 1 × A100-SXM4-80GB on 1 node"},
		{"vendor", []Node{box("a", a100, 1)}, Request{Resources: workspace.Resources{GPUCount: 1, GPUVendor: "amd"}},
			CodeKindAbsent, "no node has AMD GPUs; the cluster has 1 × A100-SXM4-80GB on 1 node"},
		{"kind on a closed node waits", []Node{box("a", t4, 1), closedNode("unreachable")}, Request{Resources: gpus(1, "h100")},
			CodeWaitingForNode, "2 nodes: 1 unreachable, 1 without H100"},
		{"kind unknown while a node is silent", []Node{box("a", t4, 1), silent}, Request{Resources: gpus(1, "h100")},
			CodeWaitingForGPU, "2 nodes: 1 not yet telling its GPUs, 1 without H100"},
		{"missing devices don't count", []Node{with(box("a", t4, 1), func(n *Node) { n.Devices[0].Missing = true })},
			Request{Resources: gpus(1, "t4")}, CodeKindAbsent, "no node has T4; the cluster has no GPUs"},
		{"broken devices do", []Node{with(box("a", t4, 1), func(n *Node) { n.Devices[0].Health = gpu.Unhealthy })},
			Request{Resources: gpus(1, "t4")}, CodeWaitingForGPU, "1 node: 1 without 1 free T4 (at most 0)"},
		{"count over any node", []Node{box("a", a100, 8), box("b", a100, 4)}, Request{Resources: gpus(12, "a100")},
			CodeCountImpossible, "no node has 12 A100, the most on one node is 8; the cluster has 12 × A100-SXM4-80GB on 2 nodes"},
		{"some nodes too small", []Node{full("a", a100), box("b", a100, 1)}, Request{Resources: gpus(2, "a100")},
			CodeWaitingForGPU, "2 nodes: 1 with only 1 A100, 1 without 2 free A100 (at most 1)"},
		{"cores over any node", []Node{box("a", a100, 1)}, Request{Resources: workspace.Resources{CPUMilli: 64500}},
			CodeResourcesImpossible, "no node offers 64.5 cores; the most is 64 cores"},
		{"memory over the nodes with the GPU", []Node{box("a", a100, 1), with(box("b", "", 0), func(n *Node) { n.Total.MemoryMiB *= 4 })},
			Request{Resources: workspace.Resources{GPUCount: 1, MemoryMiB: 600000}},
			CodeResourcesImpossible, "no node with 1 GPU offers 600000 MiB memory; the most is 524288 MiB memory"},
		{"storage over any node", []Node{box("a", a100, 1)}, Request{Resources: workspace.Resources{StorageMiB: 2000000}},
			CodeResourcesImpossible, "no node offers 2000000 MiB storage; the most is 1048576 MiB storage"},
		{"cores taken", []Node{with(box("a", a100, 1), func(n *Node) { n.Used.CPUMilli = 62500 })},
			Request{Resources: workspace.Resources{CPUMilli: 2000}}, CodeWaitingForCPU, "1 node: 1 without 2 cores free (at most 1.5 cores)"},
		{"memory taken", []Node{with(box("a", a100, 1), func(n *Node) { n.Used.MemoryMiB = 524000 })},
			Request{Resources: workspace.Resources{MemoryMiB: 1024}}, CodeWaitingForMemory, "1 node: 1 without 1024 MiB memory free (at most 288 MiB memory)"},
		{"storage taken", []Node{with(box("a", a100, 1), func(n *Node) { n.Used.StorageMiB = 1048000 })},
			Request{Resources: workspace.Resources{StorageMiB: 1024}}, CodeWaitingForStorage, "1 node: 1 without 1024 MiB storage free (at most 576 MiB storage)"},
		{"detached volumes", []Node{with(box("a", a100, 1), func(n *Node) { n.Used.StorageMiB, n.DetachedMiB = 1048000, 4000 })},
			Request{Resources: workspace.Resources{StorageMiB: 1024}}, CodeWaitingForStorage,
			"1 node: 1 without 1024 MiB storage free (at most 576 MiB storage); detached volumes have 4000 MiB storage, removing them makes room"},
		{"volume that grows too far", []Node{with(box("a", a100, 1), func(n *Node) { n.Used.StorageMiB = 1048000 })},
			Request{Resources: workspace.Resources{StorageMiB: 1025}, Node: "a", VolumeMiB: 448}, CodeWaitingForStorage,
			"1 node: 1 without 1025 MiB storage free (at most 1024 MiB storage)"},
		{"no sharing", []Node{with(box("a", t4, 1), func(n *Node) { n.Shares = false }), box("b", a100, 1)},
			Request{Resources: workspace.Resources{GPUCount: 1, GPUType: "t4", GPUShare: 500}}, CodeSharingOff,
			"no node with T4 lets runs share one; ask for whole GPUs, or set [gpu] sharing on a node"},
		{"no sharing here", []Node{with(box("a", t4, 1), func(n *Node) { n.Shares = false }), full("b", t4)},
			Request{Resources: workspace.Resources{GPUCount: 4, GPUShare: 500}}, CodeWaitingForGPU,
			"2 nodes: 1 with only 1 GPU, 1 without 500/1000 of 4 GPUs free (at most 1)"},
		{"sharing unknown while a node is silent", []Node{silent}, Request{Resources: workspace.Resources{GPUCount: 1, GPUShare: 500}},
			CodeWaitingForGPU, "1 node: 1 not yet telling its GPUs"},
		{"unusable", []Node{with(box("a", t4, 2), func(n *Node) { n.Devices[0].Unusable = "left out by [gpu] exclude" })},
			Request{Resources: gpus(2, "t4")}, CodeCountImpossible,
			"no node has 2 T4, the most on one node is 1; the cluster has 1 × T4 on 1 node, 1 × T4 that can't be had (left out by [gpu] exclude)"},
		{"all unusable", []Node{full("b", h100), with(box("a", h100, 1), func(n *Node) { n.Devices[0].Unusable = "MIG is on" })},
			Request{Resources: gpus(2, "h100")}, CodeWaitingForGPU,
			"2 nodes: 1 whose H100 can't be had (MIG is on), 1 without 2 free H100 (at most 1)"},
		{"volume on a busy node", []Node{full("a", h100), box("b", h100, 8)}, Request{Resources: gpus(2, "h100"), Node: "a"},
			CodeWaitingForGPU, "2 nodes: 1 without the volume, 1 without 2 free H100 (at most 1)"},
		{"volume on a node that is gone", []Node{box("b", h100, 8)}, Request{Node: "a"},
			CodeWaitingForVolume, "its volume is on node a, which is not in the cluster; bring the node back, or start with a fresh volume"},
		{"volume where it can never run", []Node{box("a", t4, 8), box("b", h100, 8)}, Request{Resources: gpus(2, "h100"), Node: "a"},
			CodeWaitingForVolume, "its volume is on node a, which can never run it (without H100, even when idle); ask for less, move the volume, or start with a fresh one"},
	} {
		got := Place(View{test.nodes}, []Request{test.request})[0]
		if got.Reason == nil {
			t.Errorf("%s: placed on %s", test.name, got.Node)
			continue
		}
		if diff := cmp.Diff(Reason{test.code, test.message}, *got.Reason); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestLaterRunsSeeWhatEarlierOnesTook(t *testing.T) {
	got := place([]Node{box("a", a100, 4)}, gpus(2, ""), gpus(1, ""), gpus(2, ""), gpus(1, ""), gpus(0, ""))
	if got[0].Node != "a" || got[1].Node != "a" || got[3].Node != "a" || got[4].Node != "a" {
		t.Errorf("runs that fit weren't placed: %+v", got)
	}
	if got[2].Reason == nil || got[2].Reason.Code != CodeWaitingForGPU {
		t.Errorf("a third pair was placed on 4 devices: %+v", got[2])
	}
	seen := map[string]bool{}
	for _, d := range got {
		for _, a := range d.Devices {
			if seen[a.UUID] || a.Milli != 1000 {
				t.Errorf("%s given twice, or not whole: %d", a.UUID, a.Milli)
			}
			seen[a.UUID] = true
		}
	}
	if cpu := place([]Node{box("a", "", 0)}, workspace.Resources{CPUMilli: 64000}, workspace.Resources{CPUMilli: 1}); cpu[1].Reason == nil {
		t.Error("more cores placed than the node has")
	}
}

// Only devices that are whole, healthy, present and not on their way out are
// given.
func TestUnfitDevicesAreNeverGiven(t *testing.T) {
	spoils := map[string]func(*gpu.Device){
		"held":      func(d *gpu.Device) { d.Holders = []gpu.Holder{{Run: "x", Milli: 1}} },
		"releasing": func(d *gpu.Device) { d.Holders = []gpu.Holder{{Run: "x", Milli: 1, Releasing: true}} },
		"stuck":     func(d *gpu.Device) { d.Holders = []gpu.Holder{{Run: "x", Milli: 1, Stuck: true}} },
		"missing":   func(d *gpu.Device) { d.Missing = true },
		"unhealthy": func(d *gpu.Device) { d.Health = gpu.Unhealthy },
		"unusable":  func(d *gpu.Device) { d.Unusable = "MIG is on without instances" },
		"unjudged":  func(d *gpu.Device) { d.Health = "" },
	}
	for name, spoil := range spoils {
		n := box("a", a100, 1)
		spoil(&n.Devices[0])
		if got := place([]Node{n}, gpus(1, ""))[0]; got.Node != "" {
			t.Errorf("a %s device was given whole", name)
		}
		got := place([]Node{n}, workspace.Resources{GPUShare: 100})[0]
		if placed := got.Node != ""; placed != (name == "held") {
			t.Errorf("a share of a %s device: placed %v", name, placed)
		}
	}
}

func TestSlicesAndTheirDevice(t *testing.T) {
	sliced := func() Node {
		n := box("a", a100, 3)
		n.Devices[1].Parent, n.Devices[2].Parent = n.Devices[0].UUID, n.Devices[0].UUID
		n.Devices[1].MemoryMiB, n.Devices[2].MemoryMiB = 10240, 10240
		n.Devices[1].Type, n.Devices[2].Type = "A100-SXM4-80GB-MIG-1G.10GB", "A100-SXM4-80GB-MIG-1G.10GB"
		return n
	}
	const any = "a100|a100-sxm4-80gb-mig"
	big := workspace.Resources{GPUCount: 1, GPUMemoryMiB: 40960}
	for _, test := range []struct {
		name     string
		node     Node
		requests []workspace.Resources
		want     []bool
	}{
		{"slices stand for their device", sliced(), []workspace.Resources{gpus(2, any), gpus(1, any)}, []bool{true, false}},
		{"device, then no slice", sliced(), []workspace.Resources{big, gpus(1, any)}, []bool{true, false}},
		{"slice, then no device", sliced(), []workspace.Resources{gpus(1, any), big, gpus(1, any)}, []bool{true, false, true}},
		{"part of a slice keeps the device", sliced(), []workspace.Resources{{GPUShare: 10, GPUType: any}, big}, []bool{true, false}},
		{"a held slice blocks", hold(sliced(), 1, 2), []workspace.Resources{big}, []bool{false}},
		{"a held device blocks", hold(sliced(), 1, 0), []workspace.Resources{gpus(1, any)}, []bool{false}},
		{"who doesn't name slices gets none", hold(sliced(), 1000, 0), []workspace.Resources{gpus(1, ""), gpus(1, "a100")}, []bool{false, false}},
		{"who names only slices gets no device", sliced(), []workspace.Resources{gpus(2, "a100-sxm4-80gb-mig"), gpus(1, "a100-sxm4-80gb-mig")}, []bool{true, false}},
	} {
		for i, d := range place([]Node{test.node}, test.requests...) {
			if placed := d.Node != ""; placed != test.want[i] {
				t.Errorf("%s: request %d placed %v, want %v", test.name, i, placed, test.want[i])
			}
		}
	}
	impossible := place([]Node{sliced()}, gpus(3, any))[0]
	if impossible.Reason == nil || impossible.Reason.Code != CodeCountImpossible {
		t.Errorf("three devices of a device and its two slices: %+v", impossible)
	}
}

func TestBestFit(t *testing.T) {
	nodes := []Node{box("a", a100, 8), hold(box("b", a100, 8), 1000, 0, 1, 2, 3, 4), box("c", "", 0)}
	for _, test := range []struct {
		name     string
		resource workspace.Resources
		want     string
	}{
		{"fills the fuller node", gpus(2, ""), "b"},
		{"keeps what only the empty node can take", gpus(4, ""), "a"},
		{"without GPUs off the GPU nodes", gpus(0, ""), "c"},
	} {
		if got := place(nodes, test.resource)[0]; got.Node != test.want {
			t.Errorf("%s: node %q, want %q", test.name, got.Node, test.want)
		}
	}
	equal := box("e", a100, 1)
	busier := with(box("g", a100, 1), func(n *Node) { n.Used.CPUMilli = 1 })
	gone := with(box("h", a100, 8), func(n *Node) {
		for i := range 6 {
			n.Devices[i].Missing = true
		}
	})
	for _, test := range []struct {
		name  string
		nodes []Node
		want  string
	}{
		{"of equal ones the first by id", []Node{box("f", a100, 1), equal}, "e"},
		{"fills cores", []Node{equal, busier}, "g"},
		{"devices that are gone aren't left", []Node{box("a", a100, 3), gone}, "h"},
	} {
		if got := place(test.nodes, gpus(1, ""))[0]; got.Node != test.want {
			t.Errorf("%s: node %q, want %q", test.name, got.Node, test.want)
		}
	}
	started := []Node{hold(box("a", t4, 2), 400, 1), hold(box("b", t4, 2), 1000, 0)}
	got := place(started, workspace.Resources{GPUCount: 1, GPUShare: 500})[0]
	if len(got.Devices) != 1 || got.Devices[0] != (workspace.Allotment{UUID: started[0].Devices[1].UUID, Milli: 500}) {
		t.Errorf("a share broke an idle device beside a started one: %+v", got)
	}
}

func TestNodeOf(t *testing.T) {
	ready := workspace.Node{ID: "a", Name: "host", Ready: true, Reachable: true,
		Facts: workspace.NodeFacts{CPUMilli: 1, MemoryMiB: 2, StorageMiB: 3, GPUSource: "none", Sharing: "mps"}}
	want := Node{ID: "a", Name: "host", Reported: true, Shares: true, Total: Capacity{1, 2, 3}, Used: Capacity{CPUMilli: 1}}
	if diff := cmp.Diff(want, NodeOf(&ready, nil, Capacity{CPUMilli: 1})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for why, change := range map[string]func(*workspace.Node){
		"":            func(*workspace.Node) {},
		"draining":    func(n *workspace.Node) { n.Draining, n.Cordoned = true, true },
		"cordoned":    func(n *workspace.Node) { n.Cordoned, n.Ready = true, false },
		"unreachable": func(n *workspace.Node) { n.Reachable, n.Ready = false, false },
		"not ready":   func(n *workspace.Node) { n.Ready = false },
	} {
		n := ready
		change(&n)
		if got := NodeOf(&n, nil, Capacity{}).Closed; got != why {
			t.Errorf("closed because %q, want %q", got, why)
		}
	}
}

func TestReasonIsFinal(t *testing.T) {
	final := []Code{CodeKindAbsent, CodeCountImpossible, CodeResourcesImpossible, CodeSharingOff}
	for _, code := range append(final, CodeWaitingForNode, CodeWaitingForVolume, CodeWaitingForGPU,
		CodeWaitingForCPU, CodeWaitingForMemory, CodeWaitingForStorage) {
		if got := (&Reason{Code: code}).Final(); got != slices.Contains(final, code) {
			t.Errorf("%s: final %v", code, got)
		}
	}
}

func BenchmarkPlaceOneNode(b *testing.B) {
	view := View{[]Node{switched("a", 8)}}
	for _, count := range []int{0, 1, 4} {
		requests := []Request{{Run: "r", Resources: gpus(count, "a100")}}
		b.Run(fmt.Sprintf("gpus=%d", count), func(b *testing.B) {
			for b.Loop() {
				Place(view, requests)
			}
		})
	}
}

func BenchmarkPlaceThousandNodes(b *testing.B) {
	var view View
	for i := range 1000 {
		view.Nodes = append(view.Nodes, switched(fmt.Sprintf("n%04d", i), 8))
	}
	requests := []Request{{Run: "r", Resources: gpus(2, "a100")}}
	for b.Loop() {
		Place(view, requests)
	}
}
