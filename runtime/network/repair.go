package network

import (
	"context"
	"errors"
	"io/fs"

	"github.com/vishvananda/netlink"
)

// Repair implements runtime.Networks. It is cheap when all is well: two programs
// that list rules, some reads of files. It does nothing while nothing is
// attached. A namespace that is gone can't be repaired: its container holds it,
// nobody else can reach it.
func (n *Networks) Repair(ctx context.Context) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	records, err := n.records()
	if err != nil || len(records) == 0 {
		return nil, err
	}
	rules, err := n.firewall.repair(ctx, records)
	if err != nil {
		return nil, err
	}
	bridge, missing, err := n.ensureHost(ctx)
	if err != nil {
		return rules, err
	}
	links, err := n.reconnect(bridge, records)
	return append(append(rules, missing...), links...), err
}

// reconnect plugs in the interfaces that aren't.
func (n *Networks) reconnect(bridge netlink.Link, records map[string]record) (missing []string, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	good := map[string]bool{}
	for _, link := range links {
		good[link.Attrs().Name] = plugged(link, bridge)
	}
	for id, r := range records {
		if good[n.linkName(id)] || !isNetNS(n.nsPath(id)) || !n.usable(r.Address) {
			continue
		}
		if err := n.connect(bridge, r); err != nil {
			return missing, err
		}
		missing = append(missing, "interface of "+id)
	}
	return missing, nil
}

// ensureSysctls sets what the kernel must do for the bridge, and gives the names
// of what it didn't. Loopback addresses may pass the bridge, so that ports
// published on 127.0.0.1 lead to containers; rules keep theirs out.
func (n *Networks) ensureSysctls() (changed []string, err error) {
	for _, s := range []struct {
		name, value string
		optional    bool
	}{
		{"net/ipv4/ip_forward", "1", false},
		{"net/ipv4/conf/" + n.bridge + "/route_localnet", "1", false},
		{"net/ipv6/conf/" + n.bridge + "/disable_ipv6", "1", true}, // a kernel without IPv6
	} {
		wrote, err := setSysctl(s.name, s.value)
		if s.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return changed, err
		}
		if wrote {
			changed = append(changed, "kernel setting "+s.name+" = "+s.value)
		}
	}
	return changed, nil
}
