package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// spanFlag is a length of time such as 90s, 8h or 7d; nil when not given.
type spanFlag struct{ span **time.Duration }

func (f spanFlag) Set(text string) error {
	span, err := parseSpan(text)
	*f.span = &span
	return err
}

func (f spanFlag) String() string { return "" }
func (f spanFlag) Type() string   { return "duration" }

// parseSpan is time.ParseDuration that also knows days, and no negative times.
func parseSpan(text string) (time.Duration, error) {
	span, err := time.ParseDuration(text)
	if number, ok := strings.CutSuffix(text, "d"); ok {
		var days int
		days, err = strconv.Atoi(number)
		span = time.Duration(days) * 24 * time.Hour
		if days > 36500 {
			err = strconv.ErrRange
		}
	}
	if err != nil || span < 0 {
		return 0, fmt.Errorf("%q is not a length of time such as 90s, 8h or 7d", text)
	}
	return span, nil
}

// ends gathers the flags about how long an instance and its runs live.
type ends struct {
	lifetime, maxDuration, failover *time.Duration
}

func (e *ends) addFlags(c *cobra.Command) {
	c.Flags().Var(spanFlag{&e.lifetime}, "lifetime", "delete it after this long, such as 8h or 7d (berth instance extend moves that)")
	c.Flags().Var(spanFlag{&e.maxDuration}, "max-duration", "end a run whose process has lived this long, such as 2h (0: never; default: the template's)")
	c.Flags().Var(spanFlag{&e.failover}, "failover-after", "end a run on a node that has lost contact for this long, 30s to 24h, so that it can start elsewhere (default: never)")
}

func (e *ends) merge(r *workspace.NewInstance, now time.Time) error {
	if e.lifetime != nil {
		if *e.lifetime == 0 {
			return usagef("--lifetime 0s would end it at once: leave it out for no end")
		}
		r.ToBeDeletedAt = now.Add(*e.lifetime).UTC().Truncate(time.Second)
	}
	if e.maxDuration != nil {
		seconds := int64((*e.maxDuration + time.Second - 1) / time.Second)
		r.MaxDuration = &seconds
	}
	if e.failover != nil {
		r.FailoverAfter = int((*e.failover + time.Second - 1) / time.Second)
	}
	return nil
}

// soon is how long it is until a moment, for people, rounded.
func soon(at time.Time) string {
	switch d := time.Until(at); {
	case d <= 0:
		return "now"
	case d < 100*time.Second:
		return fmt.Sprintf("in %d s", int(d.Round(time.Second).Seconds()))
	case d < 100*time.Minute:
		return fmt.Sprintf("in %d min", int(d.Round(time.Minute).Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("in %d h", int(d.Round(time.Hour).Hours()))
	default:
		return fmt.Sprintf("in %d d", int(d.Round(24*time.Hour).Hours()/24))
	}
}

// warningText says what ends when, and why.
func warningText(w workspace.Warning) string {
	return fmt.Sprintf("ends %s: %s", soon(w.EndsAt), w.Message)
}

// endText is when an instance ends by itself, in a cell of a table.
func endText(i *workspace.Instance) string {
	switch {
	case len(i.Warnings) > 0:
		return soon(i.Warnings[0].EndsAt) + ": " + i.Warnings[0].Reason
	case !i.ToBeDeletedAt.IsZero() && i.Status != workspace.StatusDeleted:
		return soon(i.ToBeDeletedAt)
	}
	return ""
}

// runEndText is endText of a run: of one that runs, or that waits.
func runEndText(r *workspace.Run) string {
	most := lastMoment(r)
	switch {
	case r.Phase.Terminal():
		return ""
	case r.Warning != nil && (most.IsZero() || r.Warning.EndsAt.Before(most)):
		return soon(r.Warning.EndsAt) + ": " + r.Warning.Reason
	case !most.IsZero():
		return soon(most) + ": max_duration"
	case !r.ExpiresAt.IsZero():
		return soon(r.ExpiresAt)
	}
	return ""
}

// lastMoment is when a running run has lived as long as it may; zero: it has no
// bound, or hasn't begun.
func lastMoment(r *workspace.Run) time.Time {
	if r.Spec.MaxDuration == 0 || r.Times.Running.IsZero() {
		return time.Time{}
	}
	return r.Times.Running.Add(time.Duration(r.Spec.MaxDuration) * time.Second)
}

// maxDurationText is how long a run may live, and when that is over.
func maxDurationText(r *workspace.Run) string {
	if r.Spec.MaxDuration == 0 {
		return ""
	}
	text := (time.Duration(r.Spec.MaxDuration) * time.Second).String()
	if end := lastMoment(r); !end.IsZero() && !r.Phase.Terminal() {
		text += fmt.Sprintf(", over at %s (%s)", end.UTC().Format(time.RFC3339), soon(end))
	}
	return text
}

// warningSections say what ends soon, and which command helps.
func (n *names) warningSections(warnings []workspace.Warning, name, run, workspaceID string) []section {
	var sections []section
	for _, w := range warnings {
		sections = append(sections, section{label: "Warning", text: warningText(w)},
			section{label: "What helps", text: n.remedy(w.Reason, name, run, workspaceID)})
	}
	return sections
}

// remedy is the command that keeps something from ending for a reason.
func (n *names) remedy(reason, name, run, workspaceID string) string {
	raise := func(flag string) string {
		return fmt.Sprintf("berth workspace set %s --%s AMOUNT", n.workspace(workspaceID), flag)
	}
	switch workspace.Code(reason) {
	case workspace.CodeWorkspaceBudget:
		return raise("daily-budget")
	case workspace.CodeUserBudget:
		return raise("user-daily-budget")
	case workspace.CodeSpendingLimit:
		return raise("spending-limit") + ", or berth cluster set --daily-budget AMOUNT: the warning says which"
	case "lifetime":
		return fmt.Sprintf("berth instance extend %s --by 4h", name)
	case "lease":
		return "berth external renew " + run
	case workspace.ReasonMaxDuration:
		return "nothing extends a run: what it has on its volume stays for the next one"
	}
	return ""
}

func (a *app) instanceExtend() *cobra.Command {
	var by *time.Duration
	var until string
	var never bool
	c := &cobra.Command{
		Use:   "extend NAME (--by DURATION | --until TIME | --never)",
		Short: "Move the time at which an instance is deleted",
		Long: `Moves the end of an instance that was made with a lifetime, or gives it one. --by
counts from its present end, or from now when it has none. --until takes a UTC time
that ends in Z.`,
		Example: `  berth instance extend demo --by 4h
  berth instance extend demo --until 2026-01-31T18:00:00Z
  berth instance extend demo --never`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(instanceNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			end, err := newEnd(c.Context(), cl, args[0], by, until, never)
			if err != nil {
				return err
			}
			inst, err := cl.Extend(c.Context(), args[0], end)
			if err != nil {
				return err
			}
			text := "is kept until somebody deletes it"
			if !inst.ToBeDeletedAt.IsZero() {
				text = fmt.Sprintf("is deleted at %s (%s)", inst.ToBeDeletedAt.UTC().Format(time.RFC3339), soon(inst.ToBeDeletedAt))
			}
			return did(a, instanceKind(newNames(c.Context(), cl), false), inst, "%s %s", inst.Name, text)
		}),
	}
	c.Flags().Var(spanFlag{&by}, "by", "so much longer, such as 4h or 7d")
	c.Flags().StringVar(&until, "until", "", "until a time in UTC, such as 2026-01-31T18:00:00Z")
	c.Flags().BoolVar(&never, "never", false, "without an end")
	return c
}

// newEnd is the end that exactly one of the flags of extend asks for; zero:
// never.
func newEnd(ctx context.Context, cl *client.Client, ref string, by *time.Duration, until string, never bool) (time.Time, error) {
	given := 0
	for _, on := range []bool{by != nil, until != "", never} {
		if on {
			given++
		}
	}
	if given != 1 {
		return time.Time{}, usagef("say how long: one of --by DURATION, --until TIME and --never")
	}
	if until != "" {
		return parseUTC("--until", until)
	}
	if never {
		return time.Time{}, nil
	}
	inst, err := cl.Instance(ctx, ref)
	if err != nil {
		return time.Time{}, err
	}
	from := time.Now().UTC().Truncate(time.Second)
	if inst.ToBeDeletedAt.After(from) {
		from = inst.ToBeDeletedAt
	}
	return from.Add(*by), nil
}

// parseUTC reads a time in UTC.
func parseUTC(flag, text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usagef("%s %q is not a time such as 2026-01-31T18:00:00Z", flag, text)
	}
	if err := workspace.ValidateUTC(flag, at); err != nil {
		return at, usagef("%s %s: times are UTC and end in Z, such as %s", flag, text, at.UTC().Format(time.RFC3339))
	}
	return at, nil
}
