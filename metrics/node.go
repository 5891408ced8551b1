package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"berth/state"
	"berth/workspace"
)

var (
	nodeInfo     = gauge("node_info", "What this host runs; always 1.", "node", "arch", "kernel", "runtime", "gpu_source", "driver_version", "cuda_version")
	nodeCordoned = gauge("node_cordoned", "Whether this host takes no new runs by an operator's order: 1 or 0.", "node")
	nodeDraining = gauge("node_draining", "Whether this host's runs are being moved away: 1 or 0.", "node")
	nodeReported = gauge("node_last_report_timestamp_seconds", "When a report of this host was last recorded. A host where nothing changes reports nothing.", "node")
	nodeCPU      = gauge("node_cpu_offered_cores", "Cores that this host offers to runs.", "node")
	nodeCPUs     = gauge("node_cpu_assigned_cores", "Cores of this host's active runs.", "node")
	nodeMem      = gauge("node_memory_offered_bytes", "Memory that this host offers to runs.", "node")
	nodeMems     = gauge("node_memory_assigned_bytes", "Memory of this host's active runs.", "node")
	nodeDisk     = gauge("node_storage_offered_bytes", "Disk that this host offers to runs.", "node")
	nodeDisks    = gauge("node_storage_assigned_bytes", "Disk promised to this host's volumes, detached ones too, and to its runs without one.", "node")
	volumes      = gauge("volumes", "Volumes of this host, by whether an instance has them.", "node", "state")
	volumeBytes  = gauge("volumes_bytes", "Size of these volumes when full.", "node", "state")
	images       = gauge("images", "Images on this host, by content.", "node")
	imageBytes   = gauge("images_bytes", "Compressed size of these images.", "node")
	diskSize     = gauge("disk_size_bytes", "Size of the disk that holds the data directory, or the images.", "node", "disk")
	diskFree     = gauge("disk_free_bytes", "What is free on it.", "node", "disk")
)

// nodeCollector tells of this host.
type nodeCollector struct{ *Metrics }

// Describe sends the families.
func (nodeCollector) Describe(ch chan<- *prometheus.Desc) {
	describe(ch, nodeInfo, nodeCordoned, nodeDraining, nodeReported, nodeCPU, nodeCPUs, nodeMem, nodeMems, nodeDisk, nodeDisks,
		volumes, volumeBytes, images, imageBytes, diskSize, diskFree)
}

// Collect sends the readings.
func (c nodeCollector) Collect(ch chan<- prometheus.Metric) {
	for _, d := range c.disks.get(staleAfter * c.Every) {
		diskSize.send(ch, float64(d.Size), c.Node, d.Name)
		diskFree.send(ch, float64(d.Free), c.Node, d.Name)
	}
	view := c.View()
	c.volumes(ch, view)
	n := view.Node(c.Node)
	if n == nil {
		return
	}
	f := &n.Facts
	nodeInfo.send(ch, 1, n.ID, f.Arch, f.Kernel, f.Runtime, f.GPUSource, f.DriverVersion, f.CUDAVersion)
	nodeCordoned.send(ch, truth(n.Cordoned), n.ID)
	nodeDraining.send(ch, truth(n.Draining), n.ID)
	nodeReported.send(ch, float64(n.UpdatedAt.UnixMilli())/1000, n.ID)
	var used workspace.Resources
	for r := range view.NodeRuns(n.ID) {
		if r.Phase.Active() {
			used.CPUMilli += r.Resources.CPUMilli
			used.MemoryMiB += r.Resources.MemoryMiB
		}
	}
	nodeCPU.send(ch, cores(f.CPUMilli), n.ID)
	nodeCPUs.send(ch, cores(used.CPUMilli), n.ID)
	nodeMem.send(ch, bytes(f.MemoryMiB), n.ID)
	nodeMems.send(ch, bytes(used.MemoryMiB), n.ID)
	nodeDisk.send(ch, bytes(f.StorageMiB), n.ID)
	nodeDisks.send(ch, bytes(view.PromisedStorage(n.ID)), n.ID)
	size := map[string]int64{} // one content may have several names
	for _, image := range n.Images {
		size[image.Digest] = image.Size
	}
	var sum int64
	for _, s := range size {
		sum += s
	}
	images.send(ch, float64(len(size)), n.ID)
	imageBytes.send(ch, float64(sum), n.ID)
}

func (c nodeCollector) volumes(ch chan<- prometheus.Metric, view state.View) {
	count, mib := map[string]int{}, map[string]int64{}
	for v := range view.NodeVolumes(c.Node) {
		is := "attached"
		switch {
		case v.Lost():
			is = "lost"
		case v.Detached:
			is = "detached"
		}
		count[is]++
		mib[is] += v.SizeMiB
	}
	for _, is := range []string{"attached", "detached", "lost"} {
		volumes.send(ch, float64(count[is]), c.Node, is)
		volumeBytes.send(ch, bytes(mib[is]), c.Node, is)
	}
}
