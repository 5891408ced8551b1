package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// job is an instance of kind job with its latest run. Cost is of all its runs,
// in micro-USD.
type job struct {
	workspace.Instance
	LatestRun *workspace.Run `json:"latest_run"`
	Cost      int64          `json:"cost_micro_usd"`
}

func (a *app) jobCommand() *cobra.Command {
	return noun("job", "Commands that run to their end: submit, wait, look at", []string{"jobs"},
		a.jobSubmit(), a.jobLs(), a.jobGet(), a.jobWait(), a.jobLogs(), a.jobCancel(), a.jobRm())
}

func jobKind(n *names, everywhere bool) kind[job] {
	k := kind[job]{
		id:   func(j *job) string { return j.ID },
		name: func(j *job) string { return j.Name },
		columns: []column[job]{
			{title: "NAME", cell: func(j *job) string { return j.Name }},
			{title: "WORKSPACE", wide: !everywhere, cell: func(j *job) string { return n.workspace(j.Workspace) }},
			{title: "STATUS", cell: func(j *job) string { return string(j.Status) }},
			{title: "REASON", cell: func(j *job) string { return reasonText(&j.Instance) }},
			{title: "ATTEMPT", cell: attemptText},
			{title: "EXIT", cell: func(j *job) string { return ofRun(j, exitText) }},
			{title: "GPUS", cell: func(j *job) string { return gpusText(&j.Resources) }},
			{title: "COST", cell: jobCost},
			{title: "STARTED", cell: func(j *job) string { return ofRun(j, func(r *workspace.Run) string { return ago(r.Times.Running) }) }},
			{title: "ENDED", cell: func(j *job) string { return ofRun(j, func(r *workspace.Run) string { return ago(r.Times.Ended) }) }},
			{title: "AGE", cell: func(j *job) string { return age(j.CreatedAt) }},
			{title: "ENDS", cell: jobEndText},
			{title: "OWNER", wide: true, cell: func(j *job) string { return j.Owner }},
			{title: "ID", wide: true, cell: func(j *job) string { return j.ID }},
			{title: "MESSAGE", wide: true, cell: func(j *job) string { return j.Message }},
		},
	}
	k.detail = func(j *job) []section { return jobDetail(n, j) }
	return k
}

// jobEndText is when a job ends by itself, or is deleted.
func jobEndText(j *job) string {
	return orText(ofRun(j, runEndText), endText(&j.Instance))
}

// ofRun shows something of a job's latest run, if it has one.
func ofRun(j *job, show func(*workspace.Run) string) string {
	if j.LatestRun == nil {
		return ""
	}
	return show(j.LatestRun)
}

// attemptText is which attempt a job is at, and of how many at most in a row.
func attemptText(j *job) string {
	text := strconv.Itoa(j.Attempts)
	if most := j.RestartPolicy.MaxRestarts; retries(j) && most > 0 {
		text += fmt.Sprintf("/%d", j.Attempts+retriesLeft(j))
	}
	return text
}

func retries(j *job) bool {
	return slices.Contains([]workspace.RestartMode{workspace.RestartOnFailure, workspace.RestartAlways}, j.RestartPolicy.Mode)
}

// retriesLeft is how often a job with a most would still be started again.
func retriesLeft(j *job) int {
	left := j.RestartPolicy.MaxRestarts
	if j.LatestRun != nil {
		left -= j.LatestRun.Restarts
	}
	return max(left, 0)
}

func retriesText(j *job) string {
	switch {
	case !retries(j):
		return "none: " + restartText(j.RestartPolicy)
	case j.RestartPolicy.MaxRestarts == 0:
		return "without end"
	}
	return fmt.Sprintf("%d of %d", retriesLeft(j), j.RestartPolicy.MaxRestarts)
}

func jobCost(j *job) string {
	if j.Cost == 0 && ofRun(j, rateText) == "" {
		return ""
	}
	return workspace.FormatUSD(j.Cost)
}

// ago is how long ago something was.
func ago(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return age(at) + " ago"
}

func jobDetail(n *names, j *job) []section {
	state := []section{
		{label: "Name", text: j.Name},
		{label: "Description", text: j.Description},
		{label: "ID", text: j.ID},
		{label: "Workspace", text: n.workspace(j.Workspace)},
		{label: "Owner", text: j.Owner},
		{label: "Status", text: string(j.Status)},
		{label: "Reason", text: j.Reason},
		{label: "Message", text: j.Message},
		{label: "Since", text: moment(j.Since)},
	}
	request := []section{
		{label: "Template", text: j.Template.Name},
		{label: "Variables", rows: variableRows(j.Template.Variables)},
		{label: "Resources", text: resourcesText(&j.Resources)},
		{label: "Volume", text: j.Volume},
		{label: "To be deleted", text: endMoment(j.ToBeDeletedAt)},
		{label: "Submitted", text: moment(j.CreatedAt)},
	}
	warnings := n.warningSections(j.Warnings, j.Name, j.Run, j.Workspace)
	return slices.Concat(state, warnings, jobRun(n, j), request)
}

// jobRun is about a job's latest run.
func jobRun(n *names, j *job) []section {
	r := j.LatestRun
	if r == nil {
		return nil
	}
	sections := []section{
		{label: "Run", text: r.ID},
		{label: "Attempt", text: strconv.Itoa(r.Attempt)},
		{label: "Retries left", text: retriesText(j)},
		{label: "Not before", text: notBefore(r)},
		{label: "Started", text: moment(r.Times.Running)},
		{label: "Ended", text: moment(r.Times.Ended)},
		{label: "Exit code", text: exitText(r)},
		{label: "Max duration", text: maxDurationText(r)},
		{label: "Node", text: n.node(r.Node)},
		{label: "Devices", rows: n.deviceRows(r)},
	}
	cost := section{label: "Cost", text: jobCost(j)}
	if cost.text != "" && j.Attempts > 1 {
		cost.text += fmt.Sprintf(" (all %d attempts)", j.Attempts)
	}
	return append(append(sections, cost), resultSections(r)...)
}

// notBefore is when a retry that waits may begin.
func notBefore(r *workspace.Run) string {
	if r.Phase != workspace.PhasePending {
		return ""
	}
	return endMoment(r.NotBefore)
}

// jobNamed is a job, or an error that says what it is instead.
func jobNamed(ctx context.Context, cl *client.Client, ref string) (*job, error) {
	inst, err := cl.Instance(ctx, ref)
	if err != nil {
		return nil, err
	}
	if inst.Kind != workspace.KindJob {
		return nil, workspace.Errorf(workspace.CodeConflict, "%s is an interactive instance, no job: see berth instance --help", inst.Name)
	}
	j := &job{Instance: *inst}
	if inst.Run == "" {
		return j, nil
	}
	if j.LatestRun, err = cl.Run(ctx, inst.Run); err != nil {
		return nil, err
	}
	return j, j.sum(ctx, cl)
}

// sum adds up what a job's runs have cost.
func (j *job) sum(ctx context.Context, cl *client.Client) error {
	j.Cost = j.LatestRun.Cost
	if j.Attempts < 2 {
		return nil
	}
	runs, err := all(ctx, func(ctx context.Context, o client.ListOptions) (*client.Page[workspace.Run], error) {
		return cl.InstanceRuns(ctx, j.ID, o)
	}, client.ListOptions{})
	j.Cost = 0
	for i := range runs {
		j.Cost += runs[i].Cost
	}
	return err
}

// jobsIn lists jobs with their latest runs.
func jobsIn(ctx context.Context, cl *client.Client, o client.ListOptions) ([]job, error) {
	o.Kind = string(workspace.KindJob)
	instances, err := all(ctx, cl.Instances, o)
	if err != nil {
		return nil, err
	}
	runs, err := all(ctx, cl.Runs, client.ListOptions{Workspace: o.Workspace, Kind: o.Kind, Latest: true})
	if err != nil {
		return nil, err
	}
	latest := map[string]*workspace.Run{}
	for i := range runs {
		latest[runs[i].ID] = &runs[i]
	}
	jobs := make([]job, len(instances))
	for i := range instances {
		jobs[i] = job{Instance: instances[i], LatestRun: latest[instances[i].Run]}
		if jobs[i].LatestRun == nil { // never started, or it has changed in between
			continue
		}
		if err := jobs[i].sum(ctx, cl); err != nil && workspace.CodeOf(err) != workspace.CodeNotFound {
			return nil, err
		}
	}
	return jobs, nil
}

func (a *app) jobLs() *cobra.Command {
	var everywhere bool
	var status string
	c := lsVerb(a, cobra.Command{
		Short: "List jobs",
		Long: `Lists the jobs of a workspace, oldest first, ended ones too until they are deleted.
ATTEMPT is the present attempt and how many there are at most in a row; COST is of
all attempts.`,
		Example: `  berth job ls
  berth job ls --status PENDING -o wide`,
	}, source[job]{
		fetch: func(ctx context.Context, cl *client.Client) ([]job, error) {
			o := client.ListOptions{Status: strings.ToUpper(status)}
			if everywhere {
				o.Workspace = "*"
			}
			return jobsIn(ctx, cl, o)
		},
		kind: func(n *names) kind[job] { return jobKind(n, everywhere) },
	})
	c.Flags().BoolVarP(&everywhere, "all-workspaces", "A", false, "of all workspaces")
	c.Flags().StringVar(&status, "status", "", "only PENDING, RUNNING, STOPPED (over) or FAILED ones")
	return c
}

func (a *app) jobGet() *cobra.Command {
	return getVerb(a, cobra.Command{
		Use:   "get NAME",
		Short: "Show one job: attempt, retries left, exit code, cost, why it waits",
		Example: `  berth job get train
  berth job get train -o json | jq .latest_run.exit_code`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(jobNames),
	}, jobNamed, func(n *names) kind[job] { return jobKind(n, false) })
}

func (a *app) jobLogs() *cobra.Command {
	c := a.logsCommand()
	c.Use, c.Args, c.ValidArgsFunction = "logs NAME", takes("NAME"), a.completeOne(jobNames)
	c.Short = "Show what a job has written to its output"
	c.Example = `  berth job logs train
  berth job logs -f train`
	return c
}

func (a *app) jobCancel() *cobra.Command {
	c := a.instanceAction(cobra.Command{
		Use:     "cancel NAME...",
		Aliases: []string{"stop"},
		Short:   "Stop jobs, or take them out of the queue",
		Long: `Cancels jobs: one that waits is taken out of the queue, one that runs gets TERM, its
grace time, then KILL. It isn't retried. Its output is kept as that of any run.`,
		Example: `  berth job cancel train --wait`,
	}, action{do: onJob((*client.Client).StopInstance), phase: "stopped"})
	c.ValidArgsFunction = a.complete(jobNames)
	return c
}

func (a *app) jobRm() *cobra.Command {
	c := a.instanceAction(cobra.Command{
		Use:     "rm NAME...",
		Aliases: []string{"delete", "remove"},
		Short:   "Delete jobs",
		Long: `Deletes jobs with their containers; their volumes go by the storage policy, and what
they cost stays in the ledger. On a terminal it asks before it deletes a running one.`,
		Example: `  berth job rm train --yes`,
	}, action{do: onJob((*client.Client).DeleteInstance), phase: "deleted", asks: true})
	c.ValidArgsFunction = a.complete(jobNames)
	return c
}

// onJob does something to a job, and to nothing else.
func onJob(do func(*client.Client, context.Context, string) (*workspace.Instance, error)) func(*client.Client, context.Context, string) (*workspace.Instance, error) {
	return func(cl *client.Client, ctx context.Context, ref string) (*workspace.Instance, error) {
		j, err := jobNamed(ctx, cl, ref)
		if err != nil {
			return nil, err
		}
		return do(cl, ctx, j.ID)
	}
}

func jobNames(ctx context.Context, cl *client.Client) ([]string, error) {
	items, err := all(ctx, cl.Instances, client.ListOptions{Kind: string(workspace.KindJob)})
	return each(items, func(i workspace.Instance) string { return i.Name }), err
}
