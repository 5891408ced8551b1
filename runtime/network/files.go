package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// writeFiles writes what is mounted at /etc/resolv.conf and /etc/hosts. It writes
// into the files that are there: a container may have them mounted.
func (n *Networks) writeFiles(r record) error {
	a := n.attachment(r)
	hosts := "127.0.0.1\tlocalhost\n"
	if r.Spec.Hostname != "" {
		hosts += a.Address + "\t" + r.Spec.Hostname + "\n"
	}
	resolv, _ := n.resolvConf()
	if err := writeInPlace(a.Hosts, hosts); err != nil {
		return err
	}
	return writeInPlace(a.ResolvConf, resolv)
}

func writeInPlace(path, text string) error {
	if old, err := os.ReadFile(path); err == nil && string(old) == text { // #nosec G304 -- below Dir
		return nil
	}
	return os.WriteFile(path, []byte(text), 0o644) // #nosec G306 -- users of the container read it
}

// resolvConf gives the containers' resolv.conf and how many servers it names:
// those of the host that containers can reach; where the host asks a resolver of
// its own, those that systemd-resolved asks in turn; else the configured ones.
// There is no other default: whom to ask is the operator's choice.
func (n *Networks) resolvConf() (text string, servers int) {
	reachable := n.reachable()
	for _, path := range n.resolvPaths {
		raw, err := os.ReadFile(path) // #nosec G304 -- fixed places
		if err != nil {
			continue
		}
		if text, servers := pickServers(string(raw), reachable); servers > 0 {
			return text, servers
		}
	}
	for _, server := range n.dns {
		if reachable(server) {
			text += "nameserver " + server.String() + "\n"
			servers++
		}
	}
	if servers == 0 {
		return "# This host names no DNS server that containers can reach; see network.dns of berthd.\n", 0
	}
	return text, servers
}

// pickServers keeps the lines for servers that can be reached, and for how to
// search.
func pickServers(resolv string, reachable func(netip.Addr) bool) (text string, servers int) {
	for line := range strings.Lines(resolv) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if address, err := netip.ParseAddr(fields[1]); err == nil && reachable(address) {
				text += fmt.Sprintf("nameserver %s\n", address)
				servers++
			}
		case "search", "domain", "options":
			text += strings.Join(fields, " ") + "\n"
		}
	}
	return text, servers
}

// reachable is false for what containers are kept from: this host, denied
// networks, IPv6.
func (n *Networks) reachable() func(netip.Addr) bool {
	own := map[netip.Addr]bool{}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		n.log.Warn("can't read this host's addresses, so a DNS server on it may be given to containers", "error", err)
	}
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			own[prefix.Addr()] = true
		}
	}
	return func(address netip.Addr) bool {
		if !address.Is4() || address.IsLoopback() || address.IsUnspecified() || own[address] || n.subnet.Contains(address) {
			return false
		}
		for _, denied := range n.denied {
			if denied.Contains(address) {
				return false
			}
		}
		return true
	}
}
