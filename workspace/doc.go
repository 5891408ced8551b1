// Package workspace holds what a tenant owns (workspaces, instances, runs,
// templates, volumes) and what the cluster and its nodes tell each other about
// it, with the rules that look at ONE object. Its structs are the native wire
// types (json tags); ids are UUIDv7 in text, made by the leader; money is int64
// micro-USD; sizes are MiB; CPU is thousandths of a core; times are UTC with at
// most microseconds (docs/domain.md).
package workspace
