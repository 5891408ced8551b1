package state

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"berth/workspace"
)

// The verbs of money and limits. Amounts are USD: 2.50; none is null.

// buildMoney: price gpu:A100=2.50 · unprice gpu:A100 · renew NODE r1=LIVED … ·
// expire r1/GRANT … term= · unreachable NODE · reachable NODE · cluster-set … ·
// kill-switch [WS] on|off · block|unblock WS USER · delete-workspace WS ·
// extend I until=|never · external R in= rate= lease= · renew-external R ·
// end-external R PHASE · fold before=DURATION R …
func (w *world) buildMoney(l *line) Command {
	switch l.words[0] {
	case "price", "unprice":
		return l.price()
	case "renew":
		return w.buildRenew(l)
	case "expire":
		c := &ExpireLeases{Term: uint64(l.number("term", 0))}
		for _, word := range l.words[1:] {
			run, grant, _ := strings.Cut(word, "/")
			c.Runs = append(c.Runs, Expired{Run: run, Grant: uint64(number(l.t, grant))})
		}
		return c
	case "unreachable", "reachable":
		return &SetReachable{Node: l.word(0), Reachable: l.words[0] == "reachable"}
	case "cluster-set":
		c := &UpdateCluster{DailyBudget: l.money("daily")}
		if v := l.all("max"); v != nil {
			c.MaxConcurrentRuns = ptr(int(number(l.t, v[0])))
		}
		if v := l.all("default-plan"); v != nil {
			c.Defaults = &workspace.WorkspaceDefaults{Plan: workspace.Plan(v[0]), DailyBudget: l.money("default-daily").Value,
				UserDailyBudget: l.money("default-user-daily").Value, MaxConcurrentRuns: int(l.number("default-max", 0))}
		}
		return c
	case "kill-switch":
		if on := ptr(l.has("on")); len(l.words) == 2 {
			return &UpdateCluster{KillSwitch: on}
		} else {
			return &UpdateWorkspace{ID: l.word(0), KillSwitch: on}
		}
	case "block", "unblock":
		return &BlockUser{Workspace: l.word(0), User: l.word(1), Blocked: l.words[0] == "block"}
	case "delete-workspace":
		return &DeleteWorkspace{ID: l.word(0)}
	case "extend":
		c := &ExtendInstance{ID: l.word(0), ToBeDeletedAt: workspace.Optional[time.Time]{Set: true}}
		if v := l.get("until", ""); v != "" {
			c.ToBeDeletedAt.Value = ptr(timeOf(l.t, v))
		}
		return c
	case "external":
		return &StartExternal{Run: l.word(0), Workspace: l.get("in", "w0"), User: l.get("user", ""), Name: l.get("name", ""),
			Rate: l.usd("rate"), Lease: l.duration("lease")}
	case "renew-external":
		return &RenewExternal{Run: l.word(0)}
	case "end-external":
		return &EndExternal{Run: l.word(0), Phase: workspace.Phase(l.word(1)), Message: l.get("message", "")}
	case "fold":
		return &FoldHistory{Before: w.clock.Add(-l.duration("older")).UnixMicro(), Runs: l.words[1:]}
	}
	return nil
}

func timeOf(t testing.TB, text string) time.Time {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (l *line) duration(key string) time.Duration {
	d, err := time.ParseDuration(l.get(key, "0s"))
	if err != nil {
		l.t.Fatal(err)
	}
	return d
}

// usd is an amount; one that is no number of USD is micro-USD: 5u.
func (l *line) usd(key string) int64 { return amount(l.t, l.get(key, "0")) }

func amount(t testing.TB, text string) int64 {
	if micro, ok := strings.CutSuffix(text, "u"); ok {
		return number(t, micro)
	}
	n, err := workspace.ParseUSD("amount", text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (l *line) money(key string) workspace.Optional[int64] {
	v := l.all(key)
	switch {
	case v == nil:
		return workspace.Optional[int64]{}
	case v[0] == "none":
		return workspace.Optional[int64]{Set: true}
	}
	return some(amount(l.t, v[0]))
}

// price: gpu:TYPE=USD, cpu=USD or memory=USD, and node=ID.
func (l *line) price() Command {
	node := l.get("node", "")
	if l.words[0] == "unprice" {
		resource, gpuType, _ := strings.Cut(l.word(0), ":")
		return &RemovePrice{Resource: resource, GPUType: gpuType, Node: node}
	}
	for what := range l.args {
		resource, gpuType, _ := strings.Cut(what, ":")
		return &SetPrice{Resource: resource, GPUType: gpuType, Node: node, Amount: amount(l.t, l.get(what, ""))}
	}
	l.t.Fatalf("%s: no price", l.text)
	return nil
}

// buildRenew: the runs with what they have lived, at a beat of the node a second
// after its last message, or at t= seconds of its boot clock.
func (w *world) buildRenew(l *line) Command {
	c := &RenewLeases{Node: l.word(0)}
	for _, word := range l.words[2:] {
		run, lived, _ := strings.Cut(word, ":")
		c.Runs = append(c.Runs, workspace.Livedness{Run: run, LivedMS: millis(l.t, lived)})
	}
	c.Stamp = w.stamp(l)
	return c
}

func millis(t testing.TB, text string) int64 {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d.Milliseconds()
}

// limits of an update line.
func (l *line) limits(c *UpdateWorkspace) {
	c.DailyBudget, c.UserDailyBudget, c.SpendingLimit = l.money("daily"), l.money("user-daily"), l.money("spending")
	if v := l.all("month"); v != nil {
		c.MonthlyRuns = workspace.Optional[int64]{Set: true}
		if v[0] != "none" {
			c.MonthlyRuns = some(number(l.t, v[0]))
		}
	}
	if v := l.all("plan"); v != nil {
		c.Plan = ptr(workspace.Plan(v[0]))
	}
	if daily, users, most := l.money("most-daily"), l.money("most-user-daily"), l.all("most-runs"); daily.Set || users.Set || most != nil {
		ceilings := workspace.Ceilings{DailyBudget: daily.Value, UserDailyBudget: users.Value}
		if most != nil {
			ceilings.MaxConcurrentRuns = ptr(int(number(l.t, most[0])))
		}
		c.Ceilings = some(ceilings)
	}
	if l.has("no-ceilings") {
		c.Ceilings = workspace.Optional[workspace.Ceilings]{Set: true}
	}
	if l.has("default") {
		c.MakeDefault = true
	}
}

// showMoney carries out the verbs that print money.
func (w *world) showMoney(l *line) (string, bool) {
	v, id := w.store.View(), l.word(0)
	var out strings.Builder
	switch l.words[0] {
	case "prices":
		for _, p := range v.Prices() {
			fmt.Fprintf(&out, "%s: %s an hour\n", p.Label(), workspace.FormatUSD(p.Amount))
		}
	case "money": // of a run
		out.WriteString(showMoney(v, v.Run(id)))
	case "ledger":
		for e := range v.Ledger(id, 0, 0) {
			fmt.Fprintf(&out, "%s on %s, generation %d: %s for %s, through %s%s\n", e.Run, e.Day, e.Generation, workspace.FormatUSD(e.Amount),
				ms(e.MS), ms(e.ChargedThrough), map[bool]string{true: ", final"}[e.Final])
		}
	case "usage":
		out.WriteString(showUsage(v.WorkspaceUsage(id, w.clock)))
	case "sums": // by=user,day
		q := workspace.UsageQuery{Workspace: id}
		if by := l.get("by", ""); by != "" {
			q.By = strings.Split(by, ",")
		}
		for _, r := range v.Usage(q) {
			day := ""
			if r.Day != nil {
				day = r.Day.String()
			}
			fmt.Fprintf(&out, "%s: %s, %s, %s of GPUs, %d runs\n", strings.Join(strings.Fields(strings.Join(
				[]string{r.Workspace, r.User, r.Project, day, r.GPUType}, " ")), " "), workspace.FormatUSD(r.Spent), ms(r.MS), ms(r.GPUMS), r.Runs)
		}
	case "due-leases": // NODE r1:LIVED …
		beat := workspace.Beat{Node: id, Stamp: w.boots[id]}
		beat.Stamp.BoottimeMS = 1000*l.number("t", beat.Stamp.BoottimeMS/1000) + 1000
		for _, word := range l.words[2:] {
			run, lived, _ := strings.Cut(word, ":")
			beat.Runs = append(beat.Runs, workspace.Livedness{Run: run, LivedMS: millis(l.t, lived)})
		}
		for _, x := range v.Leases(beat, w.clock) {
			fmt.Fprintf(&out, "%s: due %v, renewable %v, learns %v\n", x.Run, x.Due, x.Renewable, x.Learns)
		}
	case "expiring":
		for _, c := range v.Expiring(id) {
			fmt.Fprintf(&out, "%s %s\n", c.Run, c.Volume)
		}
	default:
		return "", false
	}
	return out.String(), true
}

func showMoney(v View, r *workspace.Run) string {
	if r == nil {
		return "no such run\n"
	}
	m := v.Metered(r.ID)
	if m == nil {
		return fmt.Sprintf("%s %s at %s an hour: charged %s for %s, unpaid %s\n", r.ID, r.Phase, workspace.FormatUSD(r.Rate),
			workspace.FormatUSD(r.Cost), ms(r.ChargedMS), ms(r.UnpaidMS))
	}
	kind := "soft"
	if m.Lease.Hard {
		kind = "hard"
	}
	end := "not granted to a node"
	if m.Lease.End.BootID != "" {
		end = fmt.Sprintf("ends at %s+%s", m.Lease.End.BootID, ms(m.Lease.End.BoottimeMS))
	}
	out := fmt.Sprintf("%s %s at %s an hour: charged %s for %s, reserved %s up to %s; %s grant %d of %s, %s", r.ID, r.Phase,
		workspace.FormatUSD(r.Rate), workspace.FormatUSD(m.Cost), ms(m.ChargedMS), workspace.FormatUSD(m.Reserved), ms(m.GrantedMS),
		kind, m.Lease.Grant, ms(m.Lease.GrantedMS), end)
	if r.Warning != nil {
		out += fmt.Sprintf("; warned: %s (%s)", r.Warning.Message, r.Warning.Reason)
	}
	return out + "\n"
}

func showUsage(u *workspace.WorkspaceUsage) string {
	if u == nil {
		return "no such workspace\n"
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s has spent %s and reserved %s\n", u.Slug, workspace.FormatUSD(u.Spent), workspace.FormatUSD(u.Reserved))
	for _, b := range u.Budgets {
		limit := "unlimited"
		if b.Limit != nil {
			limit = fmt.Sprintf("%s of %s left", workspace.FormatUSD(*b.Left), workspace.FormatUSD(*b.Limit))
		}
		fmt.Fprintf(&out, "  %s: %s spent, %s reserved, %s\n", strings.TrimSpace(b.Budget+" "+b.User), workspace.FormatUSD(b.Spent),
			workspace.FormatUSD(b.Reserved), limit)
	}
	c := u.Concurrency
	fmt.Fprintf(&out, "  concurrency: %d active, %d waiting of %d:", c.Active, c.Waiting, c.Limit)
	for _, h := range c.Holders {
		out.WriteString(" " + h.Run)
	}
	fmt.Fprintf(&out, "\n  runs in %d: %d\n", u.MonthlyRuns.Month, u.MonthlyRuns.Runs)
	for _, code := range admissionCodes {
		if n := u.DeniedToday[code]; n > 0 {
			fmt.Fprintf(&out, "  denied today: %s %d\n", code, n)
		}
	}
	for _, text := range u.Warnings {
		out.WriteString("  " + text + "\n")
	}
	return out.String()
}

var admissionCodes = []workspace.Code{workspace.CodeWorkspaceArchived, workspace.CodeKillSwitch, workspace.CodeUserBlocked,
	workspace.CodeWorkspaceBudget, workspace.CodeUserBudget, workspace.CodeSpendingLimit, workspace.CodeMonthlyRuns,
	workspace.CodeConcurrency, workspace.CodeUnpriced}

// stampPlaces gives each suggested place the stamp of its node's latest message,
// as the leader does that hears its beats; unless the line says unstamped.
func (w *world) stampPlaces(cmd Command, l *line) {
	var all []*Suggestion
	switch c := cmd.(type) {
	case *CreateInstance:
		all = append(all, c.Suggestion)
	case *StartInstance:
		all = append(all, c.Suggestion)
	case *RestartInstance:
		all = append(all, c.Suggestion)
	case *PlaceRuns:
		for i := range c.Placements {
			all = append(all, &c.Placements[i].Suggestion)
		}
	}
	for _, s := range all {
		if s == nil || s.Node == "" || l.has("unstamped") {
			continue
		}
		if stamp, ok := w.boots[s.Node]; ok {
			s.Stamp = &stamp
		}
	}
}
