package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sync/errgroup"

	"berth/api"
	"berth/state"
	"berth/workspace"
)

// shutdownPatience is how long requests in hand may take at the end.
const shutdownPatience = 5 * time.Second

// serve runs a daemon until ctx ends or a part of it can't go on. Its end is in
// order: no new requests, then the agent and the leader's work, then Raft, then
// what they stood on. Containers go on.
func serve(ctx context.Context, c Config, log *slog.Logger) (err error) {
	unlock, err := lockDataDir(c.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	// The sockets come first: when they are taken, nothing else was touched.
	on, err := listen(c, log)
	if err != nil {
		return err
	}
	p, err := wire(ctx, c, log)
	if err != nil {
		on.close()
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	log.Info("berthd runs", "version", version, "node", p.node, "data_dir", c.DataDir, "socket", on.socket.Addr().String(),
		"pid", os.Getpid())
	return p.run(ctx, on)
}

// listeners are where the daemon is asked; all but the socket may be nil.
type listeners struct{ socket, public, metrics net.Listener }

func (l *listeners) close() {
	for _, one := range []net.Listener{l.socket, l.public, l.metrics} {
		if one != nil {
			_ = one.Close()
		}
	}
}

func listen(c Config, log *slog.Logger) (*listeners, error) {
	l := &listeners{}
	var err error
	if l.socket, err = listenSocket(c.Socket, log); err != nil {
		return nil, err
	}
	if l.public, err = listenPublic(c.HTTPListen); err == nil {
		l.metrics, err = listenMetrics(c.Metrics, component(log, "metrics"))
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func listenPublic(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("http_listen: %w: another berthd may have it; set http_listen to another loopback address", err)
	}
	return l, nil
}

// run runs all parts. Each ends with ctx; the first that ends with an error
// ends the others. The cluster goes last, so that the agent's last reports and
// answers in hand still find it.
func (p *parts) run(ctx context.Context, on *listeners) error {
	parts, ctx := errgroup.WithContext(ctx)
	clusterCtx, endCluster := context.WithCancel(context.WithoutCancel(ctx))
	defer endCluster()
	parts.Go(func() error { return p.cluster.Run(clusterCtx) })
	parts.Go(func() error {
		defer endCluster()
		return p.runUsers(ctx, on)
	})
	return parts.Wait()
}

// runUsers runs the parts that stand on the cluster.
func (p *parts) runUsers(ctx context.Context, on *listeners) error {
	users, ctx := errgroup.WithContext(ctx)
	users.Go(func() error {
		if !p.caughtUp(ctx) {
			return nil
		}
		return p.agent.Run(ctx)
	})
	users.Go(func() error { return p.serveHTTP(ctx, on.socket, p.api.Socket(), withPeer(p.log)) })
	if on.public != nil {
		users.Go(func() error { return p.serveHTTP(ctx, on.public, p.api.Public(), nil) })
	}
	if on.metrics != nil {
		log := component(p.log, "metrics")
		users.Go(func() error {
			return serveMetrics(ctx, on.metrics, remoteMetrics(p.metrics.Handler(), p.config.Metrics.BearerFile, log), log)
		})
	}
	users.Go(func() error { return p.metrics.Run(ctx) })
	users.Go(func() error { return p.runtime.Supervise(ctx) })
	users.Go(func() error { return p.superviseGuard(ctx) })
	users.Go(func() error { return watchdog(ctx, p.log, p.alive) })
	users.Go(func() error { return p.announce(ctx) })
	return users.Wait()
}

// caughtUp waits until the state is the cluster's own, not one that is being
// read back from the log; false when ctx ends first.
func (p *parts) caughtUp(ctx context.Context) bool {
	select {
	case <-p.cluster.Ready():
	case <-ctx.Done():
		return false
	}
	for view := p.cluster.View(); view.Cluster() == nil; view = p.cluster.View() {
		if view.Wait(ctx, state.TopicWorkspaces) != nil {
			return false
		}
	}
	return true
}

// announce tells systemd when the daemon can be used, and when it stops.
func (p *parts) announce(ctx context.Context) error {
	select {
	case <-p.cluster.Ready():
		notify(p.log, daemon.SdNotifyReady)
	case <-ctx.Done():
	}
	<-ctx.Done()
	p.log.Info("berthd stops; containers go on", "cause", context.Cause(ctx))
	notify(p.log, daemon.SdNotifyStopping)
	return nil
}

// alive: the daemon can still do what it is for.
func (p *parts) alive(ctx context.Context) error {
	if s := p.cluster.Status(); s.Role == "stopped" {
		return errors.New("raft has stopped")
	}
	return ctx.Err()
}

func (p *parts) serveHTTP(ctx context.Context, l net.Listener, h http.Handler, conn func(context.Context, net.Conn) context.Context) error {
	server := p.api.Server(h)
	server.ConnContext = conn
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownPatience)
		defer cancel()
		err := server.Shutdown(patience)
		if err == nil {
			err = p.api.Wait(patience)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.Close()
		}
		stopped <- err
	})
	err := server.Serve(l)
	if !stop() {
		return <-stopped // Serve ended because ctx did
	}
	return fmt.Errorf("serve %s: %w", l.Addr(), err)
}

// withPeer finds out once per connection who is at its other end.
func withPeer(log *slog.Logger) func(context.Context, net.Conn) context.Context {
	return func(ctx context.Context, conn net.Conn) context.Context {
		who, err := peerOf(conn)
		switch {
		case err != nil:
			log.Warn("a caller on the control socket isn't known", "err", err)
			return ctx
		case !who.allowed:
			return api.WithRefusal(ctx, workspace.Errorf(workspace.CodeDenied,
				"user %s may not use the control socket: root and members of group %s may; usermod -aG %s %s lets it in, as root on this host",
				who.name, controlGroup, controlGroup, who.name))
		}
		return api.WithPrincipal(ctx, api.Principal{User: who.name, Role: workspace.RoleClusterAdmin})
	}
}
