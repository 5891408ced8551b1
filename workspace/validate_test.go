package workspace

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// check wants err to be about a field, or nil where that is empty.
func check(t *testing.T, what string, err error, field string) {
	t.Helper()
	switch {
	case field == "" && err != nil:
		t.Errorf("%s: %v", what, err)
	case field != "" && (CodeOf(err) != CodeInvalid || err.(*Error).Fields[field] == ""):
		t.Errorf("%s: %v, want it to be about %s", what, err, field)
	}
}

func TestValidateWorkspace(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Workspace)
		field  string
	}{
		"good":             {func(*Workspace) {}, ""},
		"slug":             {func(w *Workspace) { w.Slug = "Team" }, "slug"},
		"long slug":        {func(w *Workspace) { w.Slug = strings.Repeat("a", MaxSlug+1) }, "slug"},
		"plan":             {func(w *Workspace) { w.Plan = "gold" }, "plan"},
		"empty name":       {func(w *Workspace) { w.Name = new(string) }, "name"},
		"no name":          {func(w *Workspace) { w.Name = nil }, ""},
		"line in name":     {func(w *Workspace) { *w.Name = "Team\nA" }, "name"},
		"zero in text":     {func(w *Workspace) { w.Description = "a\x00" }, "description"},
		"description":      {func(w *Workspace) { w.Description = strings.Repeat("a", MaxText+1) }, "description"},
		"settings":         {func(w *Workspace) { w.Settings = json.RawMessage(`{"a":[1]}`) }, ""},
		"settings list":    {func(w *Workspace) { w.Settings = json.RawMessage(`[1]`) }, "settings"},
		"settings null":    {func(w *Workspace) { w.Settings = json.RawMessage(`null`) }, "settings"},
		"settings torn":    {func(w *Workspace) { w.Settings = json.RawMessage(`{"a":`) }, "settings"},
		"settings large":   {func(w *Workspace) { w.Settings = json.RawMessage(`{"a":"` + strings.Repeat("a", MaxSettings) + `"}`) }, "settings"},
		"concurrency":      {func(w *Workspace) { w.Limits.MaxConcurrentRuns = 0 }, "max_concurrent_runs"},
		"retention unit":   {func(w *Workspace) { w.Retention.Unit = "weeks" }, "data_retention.unit"},
		"retention none":   {func(w *Workspace) { w.Retention.Value = 0 }, "data_retention.value"},
		"retention days":   {func(w *Workspace) { w.Retention.Value = 15 }, "data_retention.value"},
		"retention hours":  {func(w *Workspace) { w.Retention = Retention{"hours", 336} }, ""},
		"retention hours+": {func(w *Workspace) { w.Retention = Retention{"hours", 337} }, "data_retention.value"},
	} {
		name := "Team"
		w := &Workspace{Slug: "team", Name: &name, Plan: PlanPro, Limits: Limits{MaxConcurrentRuns: 10}, Retention: Retention{"days", 7}}
		c.change(w)
		check(t, what, w.Validate(), c.field)
	}
}

func many(n int) map[string]string {
	values := map[string]string{}
	for i := range n {
		values[strconv.Itoa(i)] = ""
	}
	return values
}

func TestStoragePolicy(t *testing.T) {
	for policy, good := range map[string]bool{
		"": true, "retain": true, "delete": true, "retain:1": true, "retain:3650": true,
		"nonsense": false, "Retain": false, "retain:": false, "retain:0": false, "retain:3651": false, "retain:-1": false,
		"retain:+1": false, "retain:01": false, "retain:1d": false, "delete:1": false, "3": false, "retain:99999999999999999999": false,
	} {
		field := ""
		if !good {
			field = "storage_policy"
		}
		i := &Instance{Name: "dev", Kind: KindJob, Spec: RunSpec{Image: "demo"}, Resources: Resources{CPUMilli: 10, MemoryMiB: 16}, StoragePolicy: policy}
		check(t, "an instance with "+policy, i.Validate(), field)
		n := notebook()
		n.StoragePolicy = policy
		check(t, "a template with "+policy, n.Validate(), field)
	}
}

func TestRetentionDuration(t *testing.T) {
	for r, want := range map[Retention]time.Duration{{"hours", 5}: 5 * time.Hour, {"days", 2}: 48 * time.Hour} {
		if got := r.Duration(); got != want {
			t.Errorf("%+v lasts %s, want %s", r, got, want)
		}
	}
}

func TestValidateInstance(t *testing.T) {
	for what, c := range map[string]struct {
		change func(*Instance)
		field  string
	}{
		"good":          {func(*Instance) {}, ""},
		"name":          {func(i *Instance) { i.Name = "a_b" }, "name"},
		"long name":     {func(i *Instance) { i.Name = strings.Repeat("a", MaxInstanceName+1) }, "name"},
		"description":   {func(i *Instance) { i.Description = strings.Repeat("a", MaxText+1) }, "description"},
		"zero in text":  {func(i *Instance) { i.Description = "a\x00" }, "description"},
		"two lines":     {func(i *Instance) { i.Description = "a\n日本" }, ""},
		"template text": {func(i *Instance) { i.Template.Description = "a\x00" }, "template.description"},
		"variables":     {func(i *Instance) { i.Template.Variables = many(MaxVariables + 1) }, "template.variables"},
		"command":       {func(i *Instance) { i.Spec.Command = []string{"a\x00"} }, "command"},
		"port":          {func(i *Instance) { i.Spec.Ports = []Port{{Name: "web", Number: "0"}} }, "ports.web"},
		"zero in type":  {func(i *Instance) { i.Resources.GPUType = "a100\x00" }, "resources.gpu_type"},
		"vendor":        {func(i *Instance) { i.Resources.GPUVendor = strings.Repeat("a", MaxName+1) }, "resources.gpu_vendor"},
		"kind":          {func(i *Instance) { i.Kind = KindExternal }, "kind"},
		"image":         {func(i *Instance) { i.Spec.Image = "" }, "template.image"},
		"gpus":          {func(i *Instance) { i.Resources.GPUCount = -1 }, "resources.gpu_count"},
		"many gpus":     {func(i *Instance) { i.Resources.GPUCount = MaxGPUCount + 1 }, "resources.gpu_count"},
		"share":         {func(i *Instance) { i.Resources.GPUCount, i.Resources.GPUShare = 1, 500 }, ""},
		"whole share":   {func(i *Instance) { i.Resources.GPUCount, i.Resources.GPUShare = 2, 1000 }, ""},
		"large share":   {func(i *Instance) { i.Resources.GPUCount, i.Resources.GPUShare = 1, 1001 }, "resources.gpu_share"},
		"less share":    {func(i *Instance) { i.Resources.GPUCount, i.Resources.GPUShare = 1, -1 }, "resources.gpu_share"},
		"two shares":    {func(i *Instance) { i.Resources.GPUCount, i.Resources.GPUShare = 2, 500 }, "resources.gpu_share"},
		"share of none": {func(i *Instance) { i.Resources.GPUShare = 500 }, "resources.gpu_share"},
		"gpu memory":    {func(i *Instance) { i.Resources.GPUMemoryMiB = -1 }, "resources.gpu_memory_mib"},
		"cpu":           {func(i *Instance) { i.Resources.CPUMilli = 9 }, "resources.cpu_milli"},
		"much cpu":      {func(i *Instance) { i.Resources.CPUMilli = MaxCPUMilli + 1 }, "resources.cpu_milli"},
		"memory":        {func(i *Instance) { i.Resources.MemoryMiB = 15 }, "resources.memory_mib"},
		"much memory":   {func(i *Instance) { i.Resources.MemoryMiB = MaxMemoryMiB + 1 }, "resources.memory_mib"},
		"storage":       {func(i *Instance) { i.Resources.StorageMiB = -1 }, "resources.storage_mib"},
		"much storage":  {func(i *Instance) { i.Resources.StorageMiB = MaxStorageMiB + 1 }, "resources.storage_mib"},
	} {
		i := &Instance{Name: "dev", Kind: KindJob, Spec: RunSpec{Image: "demo"}, Resources: Resources{CPUMilli: 10, MemoryMiB: 16}}
		c.change(i)
		check(t, what, i.Validate(), c.field)
	}
}

// TestResources: what a request leaves open comes from the template, then from
// the cluster; a zero that was asked for stays.
func TestResources(t *testing.T) {
	template := Resources{GPUCount: 2, GPUType: "a100", GPUVendor: "NVIDIA", GPUMemoryMiB: 40000, GPUShare: 1000, CPUMilli: 4000, MemoryMiB: 8192, StorageMiB: 100}
	if diff := cmp.Diff(template, (&ResourceRequest{}).Over(template)); diff != "" {
		t.Error(diff)
	}
	cluster := Resources{CPUMilli: DefaultCPUMilli, MemoryMiB: DefaultMemoryMiB, StorageMiB: DefaultStorageMiB}
	if diff := cmp.Diff(cluster, (&ResourceRequest{}).Over(Resources{})); diff != "" {
		t.Error(diff)
	}
	zero, share, kind, size := 0, 300, "", int64(0)
	asked := ResourceRequest{GPUCount: &zero, GPUVendor: &kind, GPUType: &kind, GPUMemoryMiB: &size, GPUShare: &share, CPUMilli: &size, MemoryMiB: &size, StorageMiB: &size}
	got := asked.Over(template)
	if diff := cmp.Diff(Resources{GPUShare: 300}, got); diff != "" {
		t.Error(diff)
	}
	for share, want := range map[int]int{0: 1000, 1000: 1000, 1: 1, 999: 999} {
		if r := (Resources{GPUShare: share}); r.MilliPerGPU() != want || r.Shared() != (want < 1000) {
			t.Errorf("a share of %d is %d milli, shared %v", share, r.MilliPerGPU(), r.Shared())
		}
	}
}
