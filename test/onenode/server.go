// Package onenode is a cluster of one host for tests of the client side: the
// real API over the real state on a unix socket, with a leader that never waits
// and an agent that does what the test says. There are no containers in it.
package onenode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"berth/api"
	"berth/gpu"
	"berth/workspace"
)

// Config of a Server. The zero value is one host with two simulated A100 and
// the image demo:latest.
type Config struct {
	Templates []workspace.Template // built in
	NoImage   bool
}

// Server answers on sockets until it is closed. All methods are safe for
// concurrent use.
type Server struct {
	*cluster
	api   *api.API
	http  []*http.Server
	calls *calls

	served sync.WaitGroup
}

// Start answers on a socket as an administrator's, and on refused as one of a
// user who may not.
func Start(socket, refused string, c Config) (*Server, error) {
	s := &Server{cluster: newCluster(), calls: newCalls()}
	if err := s.found(c); err != nil {
		return nil, err
	}
	var err error
	s.api, err = api.New(api.Config{Cluster: s.cluster, Version: "1.2.3-test", NodeID: NodeID,
		Log: slog.New(slog.DiscardHandler), Explain: s.explain})
	if err != nil {
		return nil, err
	}
	admin := api.WithPrincipal(context.Background(), api.Principal{User: "root", Role: workspace.RoleClusterAdmin})
	nobody := api.WithRefusal(context.Background(), workspace.Errorf(workspace.CodeDenied,
		"user mallory may not use this socket: join group berth"))
	return s, errors.Join(s.serve(admin, socket), s.serve(nobody, refused))
}

func (s *Server) serve(as context.Context, socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for the test: %w", err)
	}
	h := s.api.Server(s.calls.around(s.api.Socket()))
	h.ConnContext = func(context.Context, net.Conn) context.Context { return as }
	s.http = append(s.http, h)
	s.served.Go(func() { _ = h.Serve(l) }) // Close ends it, with an error that says so
	return nil
}

// Close ends the server and the requests it still has.
func (s *Server) Close() {
	for _, h := range s.http {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if errors.Join(h.Shutdown(ctx), s.api.Wait(ctx)) != nil {
			_ = h.Close() // there is no gentler way left
		}
		cancel()
	}
	s.served.Wait()
}

// Waited returns once somebody waits for a change of what an instance is now.
func (s *Server) Waited(ctx context.Context, name string) error {
	return s.calls.await(ctx, func(open map[string]int) bool {
		inst := s.instance(name)
		return inst != nil && open[fmt.Sprintf("wait %d", inst.ModifyIndex)] > 0
	})
}

// Followed returns once so many follow the events and, with listed, a list was
// asked for since.
func (s *Server) Followed(ctx context.Context, streams int, listed bool) error {
	return s.calls.await(ctx, func(open map[string]int) bool {
		return open["events"] >= streams && (!listed || open["listed"] > 0)
	})
}

// Called returns once a request for "logs" or "exec" is under way.
func (s *Server) Called(ctx context.Context, what string) error {
	return s.calls.await(ctx, func(open map[string]int) bool { return open[what] > 0 })
}

// simulated devices; their UUIDs are in another order than their indexes, as
// UUIDs are.
func simulated() *gpu.Inventory {
	inventory := &gpu.Inventory{Source: "simulated"}
	for i := range 2 {
		inventory.Devices = append(inventory.Devices, gpu.Info{
			UUID: fmt.Sprintf("GPU-00000000-0000-0000-0000-%012d", i), Index: 1 - i, Minor: int64(1 - i),
			Model: "NVIDIA A100-SXM4-80GB", Type: "A100-SXM4-80GB", Vendor: "NVIDIA", MemoryMiB: 81920,
			PCIBusID: fmt.Sprintf("00000000:%02x:00.0", 8-i), NUMANode: -1, Simulated: true,
		})
	}
	return inventory
}
