package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"berth/client"
	"berth/workspace"
)

// submitting is creating for a job.
type submitting struct {
	creating
	name    string
	retries int
	await   awaiting
}

// awaiting holds the flags of commands that wait for a job's end.
type awaiting struct {
	on, logs bool
	timeout  time.Duration
}

// commandVariable is the template's variable that a command after -- goes into.
const commandVariable = "command"

func (a *app) jobSubmit() *cobra.Command {
	s := &submitting{}
	c := &cobra.Command{
		Use:     "submit [NAME] [-- COMMAND [ARGUMENT...]]",
		Aliases: []string{"create", "run"},
		Short:   "Queue a command to be run to its end",
		Long: `Makes a job of a template of kind job and queues it. It starts when there is a place
and no limit keeps it back; until then it says why it waits.

What stands after -- goes into the template's variable "command". One argument is a
line for the shell; several are a program and its arguments, taken as they are.

With --wait or --logs it ends when the job is over, and with the job's exit code: 0
when it succeeded. Where there is none it is 5 when the job was denied, cancelled or
never ran, 6 when its node was lost or --timeout has passed, 1 when it failed
otherwise. -o json has what programs need to tell these from the job's own.`,
		Example: `  berth job submit train --gpus 1 --wait -- python train.py --epochs 3
  berth job submit nightly -t job --var command='./eval.sh | tee $BERTH_RESULTS/out' --retries 3 --max-duration 2h
  berth job submit -f train --var image=docker.io/pytorch/pytorch:latest -- nvidia-smi`,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			return a.submit(c, cl, s, args)
		}),
	}
	s.addJobFlags(c)
	must(c.RegisterFlagCompletionFunc("template", a.complete(templateNames)))
	must(c.RegisterFlagCompletionFunc("volume", a.complete(detachedVolumes)))
	return c
}

func (s *submitting) addJobFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&s.file, "file", "", "read the request from a file (- is standard input)")
	f.StringVar(&s.name, "name", "", "its name, as NAME")
	s.addChoices(c)
	f.IntVar(&s.retries, "retries", 0, "how often it is started again, in a row, when it fails (default: the template's)")
	s.await.addFlags(c)
	f.BoolVarP(&s.await.logs, "logs", "f", false, "wait, and show its output")
}

func (w *awaiting) addFlags(c *cobra.Command) {
	c.Flags().BoolVar(&w.on, "wait", false, "wait until it is over, with its progress on standard error")
	c.Flags().DurationVar(&w.timeout, "timeout", 0, "how long to wait (0: without end)")
}

func (a *app) submit(c *cobra.Command, cl *client.Client, s *submitting, args []string) error {
	args, command := splitCommand(c, args)
	if len(args) > 1 || len(args) == 1 && s.name != "" {
		return usagef("%s takes one NAME: put -- before the job's command", c.CommandPath())
	}
	if s.name != "" {
		args = []string{s.name}
	}
	if s.await.logs && a.machine() {
		return usagef("--logs writes the job's output, -o %s its state: choose one", a.output)
	}
	if s.template == "" && s.file == "" {
		s.template = "job"
	}
	if err := s.gather(c, a.stdin, args); err != nil {
		return err
	}
	if err := s.mergeRetries(c); err != nil {
		return err
	}
	t, err := cl.Template(c.Context(), s.request.Template.Name)
	if err != nil {
		return err
	}
	if err := s.mergeCommand(t, command); err != nil {
		return err
	}
	if s.dryRun {
		return a.dryRun(c.Context(), cl, &s.request)
	}
	inst, err := cl.CreateInstance(c.Context(), s.request)
	if err != nil {
		return err
	}
	if s.await.on || s.await.logs {
		return a.awaitJob(c.Context(), cl, inst.ID, s.await)
	}
	return did(a, instanceKind(newNames(c.Context(), cl), false), inst, "%s", stateText(inst))
}

// splitCommand takes what stands after -- apart.
func splitCommand(c *cobra.Command, args []string) (before, command []string) {
	if dash := c.ArgsLenAtDash(); dash >= 0 {
		return args[:dash], args[dash:]
	}
	return args, nil
}

func (s *submitting) mergeRetries(c *cobra.Command) error {
	switch {
	case !c.Flags().Changed("retries"):
	case s.retries < 0:
		return usagef("--retries %d must be a number of retries, 0 for none", s.retries)
	case s.retries == 0:
		s.request.RestartPolicy = workspace.RestartPolicy{Mode: workspace.RestartNever}
	default:
		s.request.RestartPolicy = workspace.RestartPolicy{Mode: workspace.RestartOnFailure, MaxRestarts: s.retries}
	}
	return nil
}

// mergeCommand puts a command into the variable that the template has for it.
func (s *submitting) mergeCommand(t *workspace.Template, command []string) error {
	if t.Kind != workspace.KindJob {
		return usagef("template %s makes interactive instances: take one of kind job (berth template ls), or berth instance create", t.Name)
	}
	if len(command) == 0 {
		return nil
	}
	if !slices.ContainsFunc(t.Variables, func(v workspace.Variable) bool { return v.Name == commandVariable }) {
		return usagef("template %s takes no command: it has no variable %q, and runs what it says itself (berth template get %s)", t.Name, commandVariable, t.Name)
	}
	if s.request.Template.Variables[commandVariable] != "" {
		return usagef("the command is there twice: after -- and in variable %q", commandVariable)
	}
	if s.request.Template.Variables == nil {
		s.request.Template.Variables = map[string]string{}
	}
	s.request.Template.Variables[commandVariable] = shellLine(command)
	return nil
}

// shellLine is a command as one line for a shell: a single argument is one
// already.
func shellLine(command []string) string {
	if len(command) == 1 {
		return command[0]
	}
	return strings.Join(each(command, quoted), " ")
}

// quoted is an argument that a shell takes as it is.
func quoted(argument string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_./:=,+@%", c)
	}
	if argument != "" && strings.IndexFunc(argument, func(c rune) bool { return !plain(c) }) < 0 {
		return argument
	}
	return "'" + strings.ReplaceAll(argument, "'", `'\''`) + "'"
}

func (a *app) jobWait() *cobra.Command {
	w := awaiting{on: true}
	c := &cobra.Command{
		Use:   "wait NAME",
		Short: "Wait until a job is over, and end with its exit code",
		Long: `Waits until a job is over, retries included, with its progress on standard error, and
ends with its exit code as berth job submit --wait does.`,
		Example: `  berth job wait train
  berth job wait train --logs --timeout 1h`,
		Args:              takes("NAME"),
		ValidArgsFunction: a.completeOne(jobNames),
		RunE: a.with(func(c *cobra.Command, cl *client.Client, args []string) error {
			j, err := jobNamed(c.Context(), cl, args[0])
			if err != nil {
				return err
			}
			return a.awaitJob(c.Context(), cl, j.ID, w)
		}),
	}
	c.Flags().DurationVar(&w.timeout, "timeout", 0, "how long to wait (0: without end)")
	c.Flags().BoolVarP(&w.logs, "logs", "f", false, "show its output")
	return c
}

// withoutEnd is a wait that only its context bounds.
const withoutEnd = 10 * 365 * 24 * time.Hour

// awaitJob waits until a job is over, tells how it ended and gives its exit code
// as an error.
func (a *app) awaitJob(ctx context.Context, cl *client.Client, id string, w awaiting) error {
	waiting, cancel := context.WithCancel(ctx)
	if w.timeout > 0 {
		waiting, cancel = context.WithTimeout(ctx, w.timeout)
	}
	defer cancel()
	out := &jobOutput{a: a, cl: cl, id: id, seen: map[string]bool{}}
	p := newProgress(a.stderr)
	_, err := cl.Wait(waiting, id, "stopped", withoutEnd, func(i *workspace.Instance) {
		p.show(progressText(p, i))
		if w.logs && i.Status == workspace.StatusRunning {
			p.done()
			out.show(waiting)
		}
	})
	p.done()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("interrupted: the job goes on without being waited for (berth job wait)")
	case waiting.Err() != nil:
		return workspace.Errorf(workspace.CodeUnavailable, "the job isn't over after %s: it goes on (berth job wait)", w.timeout)
	case err != nil && workspace.CodeOf(err) != workspace.CodeConflict:
		return err
	}
	j, err := jobNamed(ctx, cl, id)
	if err != nil {
		return err
	}
	if w.logs {
		out.show(ctx)
	}
	return a.tellEnd(ctx, cl, j, w.logs)
}

// tellEnd says how a job ended: on standard error where its output was shown.
func (a *app) tellEnd(ctx context.Context, cl *client.Client, j *job, aside bool) error {
	end := jobEnd(j)
	var process *exitStatus
	if end != nil && !errors.As(end, &process) {
		if a.machine() {
			return errors.Join(end, did(a, jobKind(newNames(ctx, cl), false), j, ""))
		}
		return end
	}
	if aside {
		fmt.Fprintln(a.stderr, printable(stateText(&j.Instance)))
		return end
	}
	if err := did(a, jobKind(newNames(ctx, cl), false), j, "%s", stateText(&j.Instance)); err != nil {
		return err
	}
	return end
}

// jobEnd is nil for a job that succeeded, else an error whose exit code is the
// job's own or says why there is none.
func jobEnd(j *job) error {
	r := j.LatestRun
	if r == nil {
		return workspace.Errorf(workspace.CodeConflict, "job %s was never started: berth instance start %s queues it", j.Name, j.Name)
	}
	text := fmt.Sprintf("job %s has ended: %s (%s: %s)", j.Name, r.Phase, r.Reason, r.Message)
	switch {
	case r.Phase == workspace.PhaseSucceeded:
		return nil
	case r.ExitCode != nil && *r.ExitCode != 0:
		return &exitStatus{*r.ExitCode}
	case r.Phase == workspace.PhaseLost:
		return &workspace.Error{Code: workspace.CodeUnavailable, Message: text}
	case r.Phase == workspace.PhaseFailed && !r.Times.Running.IsZero():
		return errors.New(text)
	}
	return &workspace.Error{Code: workspace.CodeConflict, Message: text}
}

// jobOutput shows the output of a job's runs, each once and in their order.
type jobOutput struct {
	a    *app
	cl   *client.Client
	id   string
	seen map[string]bool // by run
}

// show writes what hasn't been shown yet, and follows a run that goes on.
func (o *jobOutput) show(ctx context.Context) {
	list := func(ctx context.Context, opts client.ListOptions) (*client.Page[workspace.Run], error) {
		return o.cl.InstanceRuns(ctx, o.id, opts)
	}
	runs, err := all(ctx, list, client.ListOptions{})
	if err != nil {
		o.complain(ctx, err)
		return
	}
	for i := range runs {
		r := &runs[i]
		if o.seen[r.ID] || r.Times.Running.IsZero() {
			continue
		}
		o.seen[r.ID] = true
		if err := o.cl.Logs(ctx, o.id, client.LogOptions{Run: r.ID, Follow: true}, o.a.stdout); err != nil {
			o.complain(ctx, err)
		}
	}
}

// complain says that output can't be shown: the job goes on all the same.
func (o *jobOutput) complain(ctx context.Context, err error) {
	if ctx.Err() == nil {
		fmt.Fprintf(o.a.stderr, "its output can't be shown: %s\n", sentence(err))
	}
}
