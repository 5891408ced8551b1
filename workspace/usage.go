package workspace

import (
	"strings"
	"time"
)

// LedgerEntry is what one run has cost on one UTC day in one generation of its
// workspace's spending limit. There is one per (run, day, generation), raised
// in place.
type LedgerEntry struct {
	Run            string  `json:"run"`
	Instance       string  `json:"instance,omitempty"`
	Workspace      string  `json:"workspace"`
	User           string  `json:"user"`
	Project        string  `json:"project,omitempty"`
	Kind           RunKind `json:"kind"`
	GPUType        string  `json:"gpu_type,omitempty"` // empty: without GPUs
	Day            Day     `json:"day"`
	Generation     uint64  `json:"generation"` // 0: no spending limit was in force
	Rate           int64   `json:"rate_micro_usd_per_hour"`
	Amount         int64   `json:"amount_micro_usd"`
	MS             int64   `json:"charged_ms"`         // of the run's life that this row charges
	ChargedThrough int64   `json:"charged_through_ms"` // of the run's life, all rows: the replay guard
	Final          bool    `json:"final"`              // it doesn't rise any more
}

// Price of an hour of something, in micro-USD.
type Price struct {
	Resource string `json:"resource" required:"true" enum:"gpu,cpu,memory" doc:"gpu (one device), cpu (a core) or memory (a GB)"`
	GPUType  string `json:"gpu_type,omitempty" doc:"of a gpu: a type, the first words of one, or *"`
	Node     string `json:"node,omitempty" doc:"id; a price for this node only"`
	Amount   int64  `json:"amount_micro_usd_per_hour" required:"true" minimum:"0" maximum:"1000000000000"`
}

// WorkspaceUsage is what a workspace has used of each of its limits.
type WorkspaceUsage struct {
	Workspace   string           `json:"workspace"`
	Slug        string           `json:"slug"`
	At          time.Time        `json:"at"`
	Budgets     []BudgetUsage    `json:"budgets"`
	Concurrency ConcurrencyUsage `json:"concurrency"`
	MonthlyRuns MonthlyUsage     `json:"monthly_runs"`
	Spent       int64            `json:"spent_micro_usd" doc:"in all"`
	Reserved    int64            `json:"reserved_micro_usd" doc:"for running runs, not spent yet"`
	DeniedToday map[Code]int64   `json:"denied_today,omitempty" doc:"starts refused or put off since midnight UTC, by code"`
	KillSwitch  string           `json:"kill_switch,omitempty" enum:"cluster,workspace" doc:"which one is on"`
	Warnings    []string         `json:"warnings,omitempty" doc:"such as budget_never_binds: why"`
}

// BudgetUsage is one budget: a daily one, a user's, the lifetime one or the
// cluster's.
type BudgetUsage struct {
	Budget     string    `json:"budget" enum:"workspace_daily,user_daily,spending_limit,cluster_daily"`
	User       string    `json:"user,omitempty"`
	Day        Day       `json:"day,omitempty" doc:"of a daily one"`
	Generation uint64    `json:"generation,omitempty" doc:"of the spending limit"`
	Limit      *int64    `json:"limit_micro_usd" doc:"null: unlimited"`
	Spent      int64     `json:"spent_micro_usd"`
	Reserved   int64     `json:"reserved_micro_usd"`
	Left       *int64    `json:"left_micro_usd" doc:"null: unlimited"`
	ResetsAt   time.Time `json:"resets_at,omitzero" doc:"absent: never by itself"`
}

// ConcurrencyUsage lists the holders of a workspace's concurrency.
type ConcurrencyUsage struct {
	Limit   int                 `json:"limit"`
	Active  int                 `json:"active"`
	Waiting int                 `json:"waiting" doc:"interactive runs that wait: they count when another is started"`
	Holders []ConcurrencyHolder `json:"holders"`
}

// ConcurrencyHolder is one active run.
type ConcurrencyHolder struct {
	Run       string    `json:"run"`
	Instance  string    `json:"instance,omitempty"`
	Name      string    `json:"name,omitempty" doc:"of the instance"`
	User      string    `json:"user"`
	Kind      RunKind   `json:"kind"`
	Phase     Phase     `json:"phase"`
	Node      string    `json:"node,omitempty"`
	Since     time.Time `json:"since"`
	Rate      int64     `json:"rate_micro_usd_per_hour"`
	PaidUntil time.Time `json:"paid_until,omitzero"`
}

// MonthlyUsage counts the runs first placed in a UTC month.
type MonthlyUsage struct {
	Month    int       `json:"month" doc:"year × 100 + month"`
	Limit    *int64    `json:"limit" doc:"null: unlimited"`
	Runs     int64     `json:"runs"`
	ResetsAt time.Time `json:"resets_at"`
}

// UsageQuery asks what was used. Days are UTC; both ends are included.
type UsageQuery struct {
	Workspace string   // id; empty: all
	Since     Day      // 0: from the first
	Until     Day      // 0: to the last
	By        []string // of UsageDimensions; empty: one total
}

// UsageDimensions are what usage can be told apart by.
var UsageDimensions = []string{"workspace", "user", "project", "day", "gpu_type"}

// UsageRow is a sum over the ledger. Only the dimensions asked for are filled.
type UsageRow struct {
	Workspace string `json:"workspace,omitempty"`
	User      string `json:"user,omitempty"`
	Project   string `json:"project,omitempty"`
	Day       *Day   `json:"day,omitempty"`
	GPUType   string `json:"gpu_type,omitempty"`
	Spent     int64  `json:"spent_micro_usd"`
	MS        int64  `json:"charged_ms" doc:"of runs with a rate"`
	GPUMS     int64  `json:"gpu_ms" doc:"the same, times whole GPUs held"`
	Runs      int64  `json:"runs" doc:"that were charged; one that goes over midnight counts on each day"`
}

// Warning says that something ends soon.
type Warning struct {
	Reason  string    `json:"reason"` // a code such as WORKSPACE_DAILY_BUDGET_EXCEEDED, lifetime, max_duration
	Message string    `json:"message"`
	EndsAt  time.Time `json:"ends_at"`
}

// Metered is the time and money of a live run.
type Metered struct {
	Lease     *Lease `json:"lease,omitempty"`
	Cost      int64  `json:"cost_micro_usd"`     // charged so far
	ChargedMS int64  `json:"charged_ms"`         // of its life
	GrantedMS int64  `json:"granted_ms"`         // of its life; reserved up to here
	Reserved  int64  `json:"reserved_micro_usd"` // what is granted and not charged
	Held      bool   `json:"held"`               // its node keeps to the deadline: it started under one, or has said so
}

// Label says what a price is for: "gpu A100", "cpu on node N".
func (p *Price) Label() string {
	label := p.Resource
	if p.GPUType != "" {
		label += " " + p.GPUType
	}
	if p.Node != "" {
		label += " on node " + p.Node
	}
	return label
}

// Validate checks what a price is for, and its amount.
func (p *Price) Validate() error {
	switch p.Resource {
	case "gpu":
		if p.GPUType == "" || strings.ContainsAny(p.GPUType, "| \t\n") || len(p.GPUType) > MaxSlug {
			return InvalidField("gpu_type", "%.40q isn't one GPU type such as a100 or A100-SXM4-80GB, or * for all", p.GPUType)
		}
	case "cpu", "memory":
		if p.GPUType != "" {
			return InvalidField("gpu_type", "%.40q: only a gpu has a type", p.GPUType)
		}
	default:
		return InvalidField("resource", "%.40q is none of gpu, cpu, memory", p.Resource)
	}
	if p.Amount < 0 || p.Amount > MaxRate {
		return InvalidField("amount_micro_usd_per_hour", "%d is outside 0 to %d", p.Amount, MaxRate)
	}
	return nil
}
