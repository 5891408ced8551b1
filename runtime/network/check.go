package network

import (
	"context"
	"fmt"
	"os/exec"
	"strings"

	"berth/runtime"
)

// Check says whether networks can work on this host, and what is worth knowing
// though they can. It changes nothing.
func (n *Networks) Check(ctx context.Context) (warnings []string, err error) {
	for _, program := range []string{"nft", "iptables", "iptables-restore"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("%s isn't installed on this host, Debian's packages nftables and iptables have it: %w", program, runtime.ErrUnavailable)
		}
	}
	chains, err := run(ctx, "", "nft", "list", "chains")
	if err != nil {
		return nil, fmt.Errorf("nftables doesn't work here (it needs root and the kernel's nf_tables): %w", err)
	}
	bridge, err := findLink(n.bridge)
	if err != nil {
		return nil, err
	}
	index := 0
	if bridge != nil {
		index = bridge.Attrs().Index
		if err := n.checkOwner(bridge); err != nil {
			return nil, err
		}
	}
	if err := n.checkRoutes(index); err != nil {
		return nil, err
	}
	if _, servers := n.resolvConf(); servers == 0 {
		warnings = append(warnings, "containers get no DNS server: this host names none that they can reach. Set network.dns, such as to the server of your site")
	}
	return append(warnings, foreignDrops(chains, n.bridge)...), nil
}

// foreignDrops finds tables that drop what they don't know of forwarded packets,
// in a place where no rule of ours can let packets through. iptables' own chain
// isn't one: ours is called from it.
func foreignDrops(chains, bridge string) (warnings []string) {
	table, chain := "", ""
	for line := range strings.Lines(chains) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "table "); ok {
			table = strings.TrimSuffix(rest, " {")
		}
		if rest, ok := strings.CutPrefix(line, "chain "); ok {
			chain = strings.TrimSuffix(rest, " {")
		}
		ip4 := strings.HasPrefix(table, "ip ") || strings.HasPrefix(table, "inet ")
		ours := table == "ip filter" && chain == "FORWARD"
		if ip4 && !ours && strings.Contains(line, "hook forward") && strings.Contains(line, "policy drop") {
			warnings = append(warnings, fmt.Sprintf(
				"chain %s of nftables table %s drops forwarded packets: containers reach nothing until it accepts those from and to the interface %s",
				chain, table, bridge))
		}
	}
	return warnings
}
