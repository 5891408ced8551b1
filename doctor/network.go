package doctor

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
)

// nftTrial uses what berth's rules use. nft -c has the kernel look at it without
// putting it in force.
const nftTrial = `table inet berth-doctor {
	map ports { type ipv4_addr . inet_service : ipv4_addr . inet_service; }
	chain publish {
		type nat hook prerouting priority dstnat; policy accept;
		dnat ip to ip daddr . tcp dport map @ports
		fib daddr type local accept
	}
	chain through {
		type filter hook forward priority filter; policy accept;
		ct direction reply accept
		reject with icmpx type admin-prohibited
	}
	chain leaving {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 192.0.2.0/24 masquerade
	}
}`

func (e *exam) firewall(ctx context.Context) {
	var missing []string
	for _, name := range []string{"nft", "iptables", "iptables-restore"} {
		if e.find(name) == "" {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		e.fail("firewall", "apt install nftables iptables", "the network's rules can't be set: %s isn't on this host", strings.Join(missing, ", "))
		return
	}
	if e.needsRoot("firewall") {
		return
	}
	if _, err := e.Run(ctx, e.find("nft"), "-c", nftTrial); err != nil {
		e.fail("firewall", "install the distribution's whole kernel (nf_tables, nft_nat, nft_masq, nft_fib_inet, nft_reject_inet)", "the kernel refuses rules as berth sets them: %v", err)
		return
	}
	if _, err := e.Run(ctx, e.find("iptables"), "-w", "5", "-S", "FORWARD"); err != nil {
		e.fail("firewall", "see what iptables -S FORWARD says; Debian's package iptables works with nf_tables", "iptables doesn't work: %v", err)
		return
	}
	e.ok("firewall", "nft and iptables work")
}

func (e *exam) forwarding(context.Context) {
	if e.read("/proc/sys/net/ipv4/ip_forward") == "1" {
		e.ok("forwarding", "net.ipv4.ip_forward is on")
		return
	}
	e.ok("forwarding", "net.ipv4.ip_forward is off: berthd turns it on with the first network; a sysctl.d file that turns it off again would cut containers off")
}

func (e *exam) routes(context.Context) {
	for line := range strings.Lines(e.read("/proc/net/route")) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[0] == e.Bridge {
			continue
		}
		route, ok := routePrefix(fields[1], fields[7])
		if ok && route.Bits() > 0 && route.Overlaps(e.Subnet) {
			e.fail("subnet", "set [network] subnet in /etc/berth/berthd.toml to one that is free here, and ask again with --subnet",
				"the containers' subnet %s overlaps with this host's route to %s by %s", e.Subnet, route, fields[0])
			return
		}
	}
	e.ok("subnet", "%s overlaps with no route of this host", e.Subnet)
}

// routePrefix reads two words of /proc/net/route, which are in the byte order of
// the machine: that of all that berth runs on.
func routePrefix(destination, mask string) (netip.Prefix, bool) {
	raw, err := hex.DecodeString(destination)
	rawMask, errMask := hex.DecodeString(mask)
	if err != nil || errMask != nil || len(raw) != 4 || len(rawMask) != 4 {
		return netip.Prefix{}, false
	}
	var address [4]byte
	binary.BigEndian.PutUint32(address[:], binary.LittleEndian.Uint32(raw))
	bits := 0
	for m := binary.LittleEndian.Uint32(rawMask); m&(1<<31) != 0; m <<= 1 {
		bits++
	}
	return netip.PrefixFrom(netip.AddrFrom4(address), bits), true
}
