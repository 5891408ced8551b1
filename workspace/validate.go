package workspace

import (
	"cmp"
	"encoding/json"
	"slices"
)

// Bounds of what can be asked for. They catch slips of the keyboard; what a
// node really has is the scheduler's to know.
const (
	MaxGPUCount      = 64
	MaxCPUMilli      = 1_024_000
	MaxMemoryMiB     = 16 << 20 // 16 TiB
	MaxStorageMiB    = 1 << 30  // 1 PiB
	MaxStopGrace     = 600      // seconds
	DefaultStopGrace = 30
)

// Cluster-wide defaults of an instance (docs/domain.md, defaults).
const (
	DefaultCPUMilli   = 1000
	DefaultMemoryMiB  = 2 * 1024
	DefaultStorageMiB = 10 * 1024
)

// Validate checks a workspace's own fields.
func (w *Workspace) Validate() error {
	if err := ValidateLabel("slug", w.Slug, MaxSlug); err != nil {
		return err
	}
	if !slices.Contains([]Plan{PlanBasic, PlanPro, PlanScale, PlanEnterprise}, w.Plan) {
		return InvalidField("plan", "%q is none of basic, pro, scale, enterprise", w.Plan)
	}
	if w.Name != nil {
		if *w.Name == "" || len(*w.Name) > MaxName {
			return InvalidField("name", "must have 1 to %d bytes, or be null", MaxName)
		}
		if err := validateName("name", *w.Name, MaxName); err != nil {
			return err
		}
	}
	if err := cmp.Or(validateText("description", w.Description, MaxText), validateSettings(w.Settings)); err != nil {
		return err
	}
	if w.Limits.MaxConcurrentRuns < 1 {
		return InvalidField("max_concurrent_runs", "%d is less than 1", w.Limits.MaxConcurrentRuns)
	}
	return w.Retention.Validate()
}

func validateSettings(s json.RawMessage) error {
	if len(s) == 0 {
		return nil
	}
	if len(s) > MaxSettings {
		return InvalidField("settings", "%d bytes; at most %d", len(s), MaxSettings)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(s, &object); err != nil || object == nil {
		return InvalidField("settings", "must be a JSON object")
	}
	return nil
}

// Validate checks an instance's own fields.
func (i *Instance) Validate() error {
	if err := ValidateLabel("name", i.Name, MaxInstanceName); err != nil {
		return err
	}
	if i.Kind != KindInteractive && i.Kind != KindJob {
		return InvalidField("kind", "%q is neither interactive nor job", i.Kind)
	}
	if i.Spec.Image == "" {
		return InvalidField("template.image", "is empty")
	}
	if f := i.FailoverAfter; f != 0 && (f < MinFailoverAfter || f > MaxFailoverAfter) {
		return InvalidField("failover_after_seconds", "%d is outside %d to %d; 0 means that lost contact never ends a run", f, MinFailoverAfter, MaxFailoverAfter)
	}
	return cmp.Or(
		validateText("description", i.Description, MaxText),
		validateText("template.description", i.Template.Description, MaxText),
		validateCount("template.variables", len(i.Template.Variables)+len(i.Secrets), MaxVariables),
		validateStoragePolicy(i.StoragePolicy),
		i.RestartPolicy.Validate(),
		i.Spec.Validate(),
		i.Resources.Validate(),
	)
}

// Validate checks a request for resources.
func (r *Resources) Validate() error {
	switch {
	case r.GPUCount < 0 || r.GPUCount > MaxGPUCount:
		return InvalidField("resources.gpu_count", "%d is outside 0 to %d", r.GPUCount, MaxGPUCount)
	case r.GPUShare < 0 || r.GPUShare > 1000:
		return InvalidField("resources.gpu_share", "%d is outside 1 to 1000 thousandths", r.GPUShare)
	case r.Shared() && r.GPUCount != 1:
		return InvalidField("resources.gpu_share", "a share is of one GPU: gpu_count must be 1, not %d", r.GPUCount)
	case r.GPUMemoryMiB < 0 || r.GPUMemoryMiB > MaxMemoryMiB:
		return InvalidField("resources.gpu_memory_mib", "%d is outside 0 to %d", r.GPUMemoryMiB, MaxMemoryMiB)
	case r.CPUMilli < 10 || r.CPUMilli > MaxCPUMilli:
		return InvalidField("resources.cpu_milli", "%d is outside 10 to %d thousandths of a core", r.CPUMilli, MaxCPUMilli)
	case r.MemoryMiB < 16 || r.MemoryMiB > MaxMemoryMiB:
		return InvalidField("resources.memory_mib", "%d is outside 16 to %d", r.MemoryMiB, MaxMemoryMiB)
	case r.StorageMiB < 0 || r.StorageMiB > MaxStorageMiB:
		return InvalidField("resources.storage_mib", "%d is outside 0 to %d", r.StorageMiB, MaxStorageMiB)
	}
	return cmp.Or(
		validateName("resources.gpu_vendor", r.GPUVendor, MaxName),
		validateName("resources.gpu_type", r.GPUType, MaxName),
	)
}

// Shared reports whether less than a whole device is asked for.
func (r *Resources) Shared() bool { return r.GPUShare > 0 && r.GPUShare < 1000 }

// MilliPerGPU is how much of each device is asked for.
func (r *Resources) MilliPerGPU() int {
	if r.Shared() {
		return r.GPUShare
	}
	return 1000
}

// Over fills what a request leaves open with a template's defaults, then the
// cluster's.
func (q *ResourceRequest) Over(d Resources) Resources {
	r := Resources{
		GPUCount: pick(q.GPUCount, d.GPUCount), GPUVendor: pick(q.GPUVendor, d.GPUVendor),
		GPUType: pick(q.GPUType, d.GPUType), GPUMemoryMiB: pick(q.GPUMemoryMiB, d.GPUMemoryMiB),
		GPUShare:   pick(q.GPUShare, d.GPUShare),
		CPUMilli:   pick(q.CPUMilli, or(d.CPUMilli, DefaultCPUMilli)),
		MemoryMiB:  pick(q.MemoryMiB, or(d.MemoryMiB, DefaultMemoryMiB)),
		StorageMiB: pick(q.StorageMiB, or(d.StorageMiB, DefaultStorageMiB)),
	}
	return r
}

func pick[T any](asked *T, otherwise T) T {
	if asked != nil {
		return *asked
	}
	return otherwise
}

func or(v, otherwise int64) int64 {
	if v != 0 {
		return v
	}
	return otherwise
}
