package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// checkPorts refuses ports that can't be and ports that are in use, by another
// attachment or by a process of this host. No process listens on a published
// port, so one that comes later gets no connection from it.
func checkPorts(ctx context.Context, spec runtime.NetworkSpec, records map[string]record) error {
	for i, port := range spec.Ports {
		if err := checkPort(port); err != nil {
			return err
		}
		for _, other := range spec.Ports[:i] {
			if collide(port, other) {
				return fmt.Errorf("host port %d is asked for twice: %w", port.HostPort, runtime.ErrInvalid)
			}
		}
		for id, r := range records {
			for _, other := range r.Spec.Ports {
				if id != spec.ID && collide(port, other) {
					return fmt.Errorf("port %d of %s is published for %s: %w", port.HostPort, port.HostIP, id, runtime.ErrPortTaken)
				}
			}
		}
		if err := probe(ctx, port); err != nil {
			return err
		}
	}
	return nil
}

func checkPort(port runtime.PublishedPort) error {
	address, err := netip.ParseAddr(port.HostIP)
	switch {
	case err != nil || !address.Is4():
		return fmt.Errorf("address %q for a published port: want an IPv4 address of this host: %w", port.HostIP, runtime.ErrInvalid)
	case !inRange(port.HostPort) || !inRange(port.Container):
		return fmt.Errorf("published port %d to %d: want 1 to 65535: %w", port.HostPort, port.Container, runtime.ErrInvalid)
	}
	return nil
}

func inRange(port int) bool { return port >= 1 && port <= 65535 }

func collide(a, b runtime.PublishedPort) bool {
	return a.HostPort == b.HostPort && (a.HostIP == b.HostIP || anywhere(a) || anywhere(b))
}

// anywhere: on all addresses of the host.
func anywhere(port runtime.PublishedPort) bool { return port.HostIP == "0.0.0.0" }

// probe listens on the port for a moment.
func probe(ctx context.Context, port runtime.PublishedPort) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp4", net.JoinHostPort(port.HostIP, strconv.Itoa(port.HostPort)))
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("a process of this host uses port %d of %s: %w", port.HostPort, port.HostIP, runtime.ErrPortTaken)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("this host has no address %s to publish a port on: %w", port.HostIP, runtime.ErrInvalid)
	case err != nil:
		return fmt.Errorf("port %d of %s: %w", port.HostPort, port.HostIP, err)
	}
	return listener.Close()
}
