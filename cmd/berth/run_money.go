package main

import (
	"fmt"
	"time"

	"berth/workspace"
)

// rateText is what an hour of a run costs; empty when it costs nothing.
func rateText(r *workspace.Run) string {
	if r.Rate == 0 {
		return ""
	}
	return workspace.FormatUSD(r.Rate) + "/h"
}

// costText is what a run has cost so far.
func costText(r *workspace.Run) string {
	if r.Rate == 0 && r.Cost == 0 {
		return ""
	}
	return workspace.FormatUSD(r.Cost)
}

// endMoment is a time that is still to come, and how long it is until then.
func endMoment(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s (%s)", at.UTC().Format(time.RFC3339), soon(at))
}

// moneySections are what a run costs, and for how long it is paid.
func moneySections(r *workspace.Run) []section {
	sections := []section{
		{label: "Rate", text: rateText(r)},
		{label: "Cost", text: costText(r)},
	}
	if r.Rate > 0 {
		sections = append(sections, section{label: "Charged time", text: msText(r.ChargedMS)})
	}
	if r.UnpaidMS > 0 {
		sections = append(sections, section{label: "Unpaid time", text: msText(r.UnpaidMS)})
	}
	if r.Lease != nil && r.Kind != workspace.KindExternal && !r.Phase.Terminal() {
		sections = append(sections, section{label: "Paid until", text: endMoment(r.Lease.PaidUntil) + leaseNote(r.Lease)})
	}
	end := "Given up"
	if r.Kind == workspace.KindExternal {
		end = "Lease ends"
	}
	if !r.Phase.Terminal() {
		sections = append(sections, section{label: end, text: endMoment(r.ExpiresAt)})
	}
	return append(sections, section{label: "Max duration", text: maxDurationText(r)})
}

func msText(ms int64) string { return (time.Duration(ms) * time.Millisecond).String() }

func leaseNote(l *workspace.Lease) string {
	if l.Hard {
		return ", renewed while the budgets allow; it ends then"
	}
	return ", renewed; nothing ends it"
}

// resultSections say what has become of a run's output and $BERTH_RESULTS.
func resultSections(r *workspace.Run) []section {
	text := ""
	switch r.Results {
	case workspace.ResultsDeleted:
		text = "deleted: their time (data_retention) was over at " + r.ResultsUntil.UTC().Format(time.RFC3339)
	case workspace.ResultsDeleting:
		text = "being deleted: their time (data_retention) was over at " + r.ResultsUntil.UTC().Format(time.RFC3339)
	case workspace.ResultsKept:
		text = "kept"
		if !r.ResultsUntil.IsZero() {
			text += " until " + endMoment(r.ResultsUntil)
		}
	}
	return []section{{label: "Results", text: text}}
}
