package workspace

import (
	"encoding/json"
	"time"
)

// Plan gates which limits may be enabled (docs/domain.md, plans).
type Plan string

// The plans, smallest first.
const (
	PlanBasic      Plan = "basic"
	PlanPro        Plan = "pro"
	PlanScale      Plan = "scale"
	PlanEnterprise Plan = "enterprise"
)

var planOrder = map[Plan]int{PlanBasic: 1, PlanPro: 2, PlanScale: 3, PlanEnterprise: 4}

// Valid reports whether there is such a plan.
func (p Plan) Valid() bool { return planOrder[p] > 0 }

// Includes reports whether p has what comes with a plan.
func (p Plan) Includes(least Plan) bool { return planOrder[p] >= planOrder[least] }

// MonthlyRuns is how many runs a month a plan has; false: any number.
func (p Plan) MonthlyRuns() (n int64, limited bool) {
	switch p {
	case PlanBasic:
		return 1_000, true
	case PlanPro:
		return 50_000, true
	}
	return 0, false
}

// Defaults of a new workspace.
const (
	DefaultMaxConcurrentRuns = 10
	BasicMaxConcurrentRuns   = 3
	DefaultRetentionDays     = 7
)

// Workspace is the tenant boundary.
type Workspace struct {
	ID          string          `json:"id"`
	Name        *string         `json:"name"`
	Slug        string          `json:"slug"`
	Description string          `json:"description"`
	IsDefault   bool            `json:"is_default"`
	Settings    json.RawMessage `json:"settings,omitempty"` // a JSON object, at most 64 KiB
	Plan        Plan            `json:"plan"`
	KillSwitch  bool            `json:"kill_switch"`
	Limits      Limits          `json:"limits"`
	Retention   Retention       `json:"data_retention"`
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
	ArchivedAt  time.Time       `json:"archived_at,omitzero"`
	DeletedAt   time.Time       `json:"deleted_at,omitzero"` // gone from lists, slug kept
	// Generation is the number of the latest spending limit there was.
	Generation  uint64 `json:"-" cbor:"generation,omitempty"`
	ModifyIndex uint64 `json:"modify_index"`
}

// Archived reports whether nothing may start here any more.
func (w *Workspace) Archived() bool { return !w.ArchivedAt.IsZero() }

// Limits of a workspace. A nil pointer means unlimited. Money is micro-USD.
type Limits struct {
	MaxConcurrentRuns int            `json:"max_concurrent_runs"`
	DailyBudget       *int64         `json:"daily_budget_micro_usd,omitempty"`
	UserDailyBudget   *int64         `json:"user_daily_budget_micro_usd,omitempty"`
	MonthlyRuns       *int64         `json:"monthly_run_limit,omitempty"` // nil: the plan's
	Spending          *SpendingLimit `json:"spending_limit,omitempty"`
	Ceilings          *Ceilings      `json:"ceilings,omitempty"`
}

// SpendingLimit is a lifetime amount. Each null → set starts a generation.
// Accrued and Reserved are for display: the state keeps them in its books.
type SpendingLimit struct {
	Amount     int64  `json:"amount_micro_usd"`
	Generation uint64 `json:"generation"`
	Accrued    int64  `json:"accrued_micro_usd" cbor:"-"`
	Reserved   int64  `json:"reserved_micro_usd" cbor:"-"`
}

// Ceilings bound what a workspace's owners may set; cluster admins set them.
type Ceilings struct {
	DailyBudget       *int64 `json:"daily_budget_micro_usd,omitempty" minimum:"0" maximum:"9007199254740991"`
	UserDailyBudget   *int64 `json:"user_daily_budget_micro_usd,omitempty" minimum:"0" maximum:"9007199254740991"`
	MaxConcurrentRuns *int   `json:"max_concurrent_runs,omitempty" minimum:"1" maximum:"2147483647"`
}

// Retention is how long result data outlives its run.
type Retention struct {
	Unit  string `json:"unit"` // "hours" or "days"
	Value int    `json:"value"`
}

// Validate checks the published range: 1 to 14 days or 336 hours.
func (r Retention) Validate() error {
	highest := map[string]int{"hours": 336, "days": 14}[r.Unit]
	if highest == 0 {
		return InvalidField("data_retention.unit", "%q is neither hours nor days", r.Unit)
	}
	if r.Value < 1 || r.Value > highest {
		return InvalidField("data_retention.value", "%d is outside 1 to %d %s", r.Value, highest, r.Unit)
	}
	return nil
}

// Duration of the retention.
func (r Retention) Duration() time.Duration {
	if r.Unit == "hours" {
		return time.Duration(r.Value) * time.Hour
	}
	return time.Duration(r.Value) * 24 * time.Hour
}

// Role of a member in a workspace, or of a caller in the cluster.
type Role string

// Roles, most powerful first. RoleAdmin on an envelope without a workspace is
// the cluster's admin.
const (
	RoleClusterAdmin Role = "cluster_admin"
	RoleOwner        Role = "owner"
	RoleAdmin        Role = "admin"
	RoleMember       Role = "member"
	RoleNode         Role = "node"   // a node's agent, reporting
	RoleSystem       Role = "system" // the leader's own loops
)

// Member of a workspace.
type Member struct {
	Workspace string    `json:"workspace"`
	User      string    `json:"user"`
	Role      Role      `json:"role"`
	Blocked   bool      `json:"blocked,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Project groups instances of a workspace.
type Project struct {
	ID          string          `json:"id"`
	Workspace   string          `json:"workspace"`
	Title       string          `json:"title"`
	Description string          `json:"description"`
	Icon        string          `json:"icon"`
	Status      string          `json:"status"`
	Settings    json.RawMessage `json:"settings,omitempty"`
	CreatedAt   time.Time       `json:"created_at"`
	UpdatedAt   time.Time       `json:"updated_at"`
}

// Validate checks the plan and the amounts.
func (d *WorkspaceDefaults) Validate() error {
	if d.Plan != "" && !d.Plan.Valid() {
		return InvalidField("new_workspace_defaults.plan", "%.40q is none of basic, pro, scale, enterprise", d.Plan)
	}
	if d.MaxConcurrentRuns < 0 {
		return InvalidField("new_workspace_defaults.max_concurrent_runs", "%d is negative", d.MaxConcurrentRuns)
	}
	for _, b := range []struct {
		field  string
		amount *int64
	}{{"daily_budget", d.DailyBudget}, {"user_daily_budget", d.UserDailyBudget}} {
		if b.amount != nil {
			if err := CheckMoney("new_workspace_defaults."+b.field+"_micro_usd", *b.amount); err != nil {
				return err
			}
		}
	}
	return nil
}
