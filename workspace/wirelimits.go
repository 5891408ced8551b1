package workspace

// What only requests and answers about limits and money have.

// LimitsChange are the limits and switches that a request sets, in micro-USD.
// Who may set which, and what a plan allows, the state decides (docs/domain.md,
// plans).
type LimitsChange struct {
	DailyBudget       Optional[int64]    `json:"daily_budget_micro_usd,omitzero" minimum:"0" maximum:"9007199254740991" doc:"of a UTC day; null: unlimited"`
	UserDailyBudget   Optional[int64]    `json:"user_daily_budget_micro_usd,omitzero" minimum:"0" maximum:"9007199254740991" doc:"of each user; null: unlimited"`
	SpendingLimit     Optional[int64]    `json:"spending_limit_micro_usd,omitzero" minimum:"0" maximum:"9007199254740991" doc:"for ever; null or 2^53-1 ends it, and the next one counts from 0"`
	MonthlyRuns       Optional[int64]    `json:"monthly_run_limit,omitzero" minimum:"0" maximum:"9007199254740991" doc:"null: the plan's"`
	MaxConcurrentRuns *int               `json:"max_concurrent_runs,omitempty" minimum:"1" maximum:"2147483647"`
	Ceilings          Optional[Ceilings] `json:"ceilings,omitzero" doc:"replaced whole; null: none"`
	KillSwitch        *bool              `json:"kill_switch,omitempty"`
	IsDefault         *bool              `json:"is_default,omitempty" doc:"true takes the flag from the workspace that has it"`
}

// ClusterChange changes the cluster: what is absent stays.
type ClusterChange struct {
	Name              *string            `json:"name,omitempty"`
	KillSwitch        *bool              `json:"kill_switch,omitempty"`
	DailyBudget       Optional[int64]    `json:"daily_budget_micro_usd,omitzero" minimum:"0" maximum:"9007199254740991" doc:"of all workspaces together; null: unlimited"`
	MaxConcurrentRuns Optional[int]      `json:"max_concurrent_runs,omitzero" minimum:"1" maximum:"2147483647" doc:"of all workspaces together; null: unlimited"`
	Defaults          *WorkspaceDefaults `json:"new_workspace_defaults,omitempty" doc:"replaced whole"`
}

// KillSwitchChange turns a kill switch on or off.
type KillSwitchChange struct {
	Active bool `json:"active" required:"true"`
}

// KillSwitch is a kill switch with the runs that turning it on stops: has just
// stopped, as an answer to that, or would stop, as an answer to a question.
type KillSwitch struct {
	Active    bool   `json:"active"`
	Workspace string `json:"workspace,omitempty" doc:"id; absent: it is the cluster's"`
	Name      string `json:"name" doc:"slug of the workspace, or name of the cluster"`
	// Runs and Unreachable have no run in common.
	Runs        []StoppedRun `json:"runs" doc:"stopped with their grace time"`
	Unreachable []StoppedRun `json:"unreachable" doc:"stopped only when their node reconnects"`
}

// StoppedRun is one run that a kill switch stops.
type StoppedRun struct {
	Run       string  `json:"run"`
	Instance  string  `json:"instance,omitempty"`
	Name      string  `json:"name,omitempty" doc:"of the instance, or of an external run"`
	Workspace string  `json:"workspace"`
	User      string  `json:"user"`
	Kind      RunKind `json:"kind"`
	Phase     Phase   `json:"phase"`
	Node      string  `json:"node,omitempty"`
	NodeName  string  `json:"node_name,omitempty"`
}

// PriceBook is all prices, in the order of resource, GPU type and node.
type PriceBook struct {
	Items    []Price  `json:"items"`
	Unpriced []string `json:"unpriced_gpu_types" doc:"GPU types that a node has and no price reaches: where a money limit applies, they can't be started"`
}

// UsageReport is what was used, by what was asked for.
type UsageReport struct {
	By    []string   `json:"by"`
	Since *Day       `json:"since,omitempty" doc:"absent: from the first"`
	Until *Day       `json:"until,omitempty" doc:"this day too; absent: to the last"`
	Items []UsageRow `json:"items"`
	Total UsageRow   `json:"total" doc:"of all rows; a run that has several counts once in each"`
}
