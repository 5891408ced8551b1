package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"berth/agent"
	"berth/agent/guard"
	"berth/api"
	"berth/cluster"
	"berth/gpu"
	"berth/lease"
	"berth/metrics"
	"berth/packaging"
	"berth/runtime"
	"berth/runtime/network"
	"berth/runtime/volume"
	"berth/scheduler"
	"berth/state"
	"berth/workspace"
)

// parts is the graph of what a daemon is made of.
type parts struct {
	config  Config
	log     *slog.Logger
	node    string
	gpus    gpu.Reader
	device  func(gpu.Info) runtime.Device // how containers get one of the GPUs
	runtime *hostRuntime
	volumes *volume.Volumes
	network *network.Networks
	cluster *cluster.Cluster
	history *history
	metrics *metrics.Metrics
	agent   *agent.Agent
	api     *api.API

	guard          *guard.Client
	superviseGuard func(context.Context) error
}

// wire builds the graph; nothing of it runs yet. On an error nothing stays open.
func wire(ctx context.Context, c Config, log *slog.Logger) (*parts, error) {
	p := &parts{config: c, log: log}
	if err := p.open(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *parts) open(ctx context.Context) (err error) {
	if p.node, err = cluster.LoadNodeID(p.config.DataDir); err != nil {
		return err
	}
	facts, err := hostFacts(p.config)
	if err != nil {
		return err
	}
	if p.gpus, p.device, err = openGPUs(p.config, p.node, component(p.log, "gpu")); err != nil {
		return err
	}
	if p.runtime, err = openRuntime(ctx, p.config, component(p.log, "runtime")); err != nil {
		return err
	}
	if p.volumes, err = openVolumes(p.config, component(p.log, "volumes")); err != nil {
		return err
	}
	if p.network, err = openNetworks(ctx, p.config, component(p.log, "network")); err != nil {
		return err
	}
	if err := p.openCluster(); err != nil {
		return err
	}
	p.simulateLoad()
	p.metrics = metrics.New(p.metricsConfig())
	if p.guard, p.superviseGuard, err = openGuard(ctx, p.config, component(p.log, "guard")); err != nil {
		return err
	}
	if err := p.newAgent(facts); err != nil {
		return err
	}
	return p.newAPI()
}

func component(log *slog.Logger, name string) *slog.Logger { return log.With("component", name) }

func (p *parts) openCluster() (err error) {
	planner := scheduler.NewPlanner()
	keeper := lease.NewKeeper(component(p.log, "lease"), boottime)
	p.history = newHistory(p.config.History, component(p.log, "history"))
	lead := &leader{log: component(p.log, "leader"), name: p.config.Cluster.Name, keeper: keeper, history: p.history}
	p.cluster, err = cluster.Open(cluster.Config{
		Dir: p.config.DataDir, NodeID: p.node, Name: nodeName(p.config), Store: state.New(),
		Log: component(p.log, "cluster"), Prepare: prepare(planner, keeper), Lead: lead.Run, Beats: keeper.Beat,
	})
	lead.cluster, lead.planner = p.cluster, planner
	return err
}

func (p *parts) newAgent(facts workspace.NodeFacts) error {
	c := p.config
	ports, err := c.Network.ports()
	if err != nil {
		return err
	}
	p.agent, err = agent.New(agent.Config{
		Node: p.node, BootID: facts.BootID, Dir: p.config.DataDir, Cluster: p.cluster.Local(p.node),
		Runtime: p.runtime, Volumes: p.volumes, Networks: p.network, Guard: p.guard,
		GPU: p.metrics.Tap(p.gpus), DeviceOf: p.device, Facts: facts, Boottime: boottime,
		Publish:  agent.Publish{Address: c.Network.PublishAddress, First: ports[0], Last: ports[1]},
		Images:   agent.ImageGC{High: int(c.Images.HighWaterPercent), Low: int(c.Images.LowWaterPercent), Keep: c.Images.Keep},
		KeepLogs: time.Duration(c.Logs.KeepDays) * 24 * time.Hour,
		Log:      component(p.log, "agent"), Crash: crashPoint(),
	})
	if err == nil {
		p.cluster.SetNodeService(p.node, p.agent)
	}
	return err
}

func (p *parts) newAPI() (err error) {
	p.api, err = api.New(api.Config{
		Cluster: apiCluster{p.cluster, p.history}, Version: version, NodeID: p.node, Log: component(p.log, "api"),
		Explain: explain, Metrics: p.metrics.Handler(), Observe: p.metrics.Observe,
	})
	return err
}

// close lets go of what was opened, in the opposite order.
func (p *parts) close() error {
	var errs []error
	if p.cluster != nil {
		errs = append(errs, p.cluster.Close())
	}
	if p.volumes != nil {
		errs = append(errs, p.volumes.Close())
	}
	if p.runtime != nil {
		errs = append(errs, p.runtime.Close())
	}
	if p.gpus != nil {
		errs = append(errs, p.gpus.Close())
	}
	return errors.Join(errs...)
}

// leader is what only the leader does: it makes the cluster's first entry and
// installs the built-in templates, then grants and ends leases, places what waits,
// does what is due and forgets what is old.
type leader struct {
	log     *slog.Logger
	name    string
	cluster *cluster.Cluster
	planner *scheduler.Planner
	keeper  *lease.Keeper
	history *history
	now     func() time.Time // of the present term's entries
}

// Run until ctx ends, which is with leadership in the term.
func (l *leader) Run(ctx context.Context, term uint64) error {
	l.now = steady()
	leases := l.keeper.Term(l, term)
	if l.cluster.View().Cluster() == nil {
		if err := l.Propose(ctx, &state.InitCluster{
			ID: uuid.NewString(), Name: l.name, Workspace: uuid.Must(uuid.NewV7()).String(),
		}); err != nil {
			return fmt.Errorf("make the cluster's first entry: %w", err)
		}
	}
	if err := l.installTemplates(ctx); err != nil {
		return err
	}
	loop := &scheduler.Loop{Cluster: placer{l, leases}, Planner: l.planner, Log: l.log, Now: l.now}
	sweeper := &sweeper{view: l.View, propose: l.Propose, now: l.now}
	work, ctx := errgroup.WithContext(ctx)
	work.Go(func() error { return leases.Run(ctx) })
	work.Go(func() error { return loop.Run(ctx) })
	work.Go(func() error { return sweeper.Run(ctx) })
	work.Go(func() error { return l.history.Run(ctx, l.View, l.Propose, l.now) })
	return work.Wait()
}

// installTemplates brings the templates that come with berth up to date.
func (l *leader) installTemplates(ctx context.Context) error {
	all, err := builtIns(packaging.Templates())
	if err != nil {
		return err
	}
	some := outdated(l.View(), all)
	if len(some) == 0 {
		return nil
	}
	if err := l.Propose(ctx, &state.InstallTemplates{Templates: some}); err != nil {
		return fmt.Errorf("install the built-in templates: %w", err)
	}
	return nil
}

// steady is a clock that a step of the wall clock doesn't move, as the one by
// which a leader's entries are stamped.
func steady() func() time.Time {
	start := time.Now()
	return func() time.Time { return start.Add(time.Since(start)) }
}

// View of the leader's state.
func (l *leader) View() state.View { return l.cluster.View() }

// Now is about the time that the next entry gets.
func (l *leader) Now() time.Time { return l.now() }

// placer is the cluster of the scheduler's loop.
type placer struct {
	*leader
	leases *lease.Term
}

// Place proposes placements. What runs gets its time before what waits.
func (p placer) Place(ctx context.Context, all []state.Placement) error {
	if err := p.leases.Renew(ctx); err != nil {
		return err
	}
	return p.Propose(ctx, &state.PlaceRuns{Placements: all})
}

// Propose a command of the cluster's own.
func (l *leader) Propose(ctx context.Context, cmd state.Command) error {
	_, err := l.cluster.Propose(ctx, cmd, state.Caller{Role: workspace.RoleSystem})
	return err
}

// apiCluster is the cluster as the API wants it.
type apiCluster struct {
	*cluster.Cluster
	history *history
}

// Propose gives refusals in the result only.
func (c apiCluster) Propose(ctx context.Context, cmd state.Command, by state.Caller) (state.Result, error) {
	res, err := c.Cluster.Propose(ctx, cmd, by)
	if res.Err != nil {
		return res, nil
	}
	return res, err
}

// Status of this server.
func (c apiCluster) Status() api.ClusterStatus {
	s := c.Cluster.Status()
	out := api.ClusterStatus{Leader: s.Leader, Term: s.Term, Age: s.SinceLeader, Warnings: c.history.warnings()}
	if s.Leader == "" {
		out.Warnings = append(out.Warnings, fmt.Sprintf("no leader is known for %s: writes wait", s.SinceLeader.Round(time.Second)))
	}
	return out
}

// explain says where a pending run would go now, by the scheduler's own rules.
func explain(view state.View, run *workspace.Run) workspace.Placement {
	d := scheduler.Explain(view, run)
	if d.Reason != nil {
		return workspace.Placement{Reason: string(d.Reason.Code), Message: d.Reason.Message, Final: d.Reason.Final()}
	}
	out := workspace.Placement{Fits: true, Node: d.Node, Devices: d.Devices, Message: "it fits now"}
	if n := view.Node(d.Node); n != nil {
		out.Message = "it fits now, on " + n.Name
	}
	return out
}
