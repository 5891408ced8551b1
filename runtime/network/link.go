package network

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

// inside is the name of a container's interface.
const inside = "eth0"

const usualMTU = 1500

// linkName is the host's end of an attachment's pair of interfaces, at most 15
// characters, one per id and bridge.
func (n *Networks) linkName(id string) string {
	sum := sha256.Sum256([]byte(n.bridge + "/" + id))
	return "berth" + hex.EncodeToString(sum[:5])
}

// mac belongs to an address, so that whoever has the one is known by the other.
func mac(address netip.Addr) net.HardwareAddr {
	b := address.As4()
	return net.HardwareAddr{0x0a, 0x59, b[0], b[1], b[2], b[3]}
}

// findLink gives nil when there is none.
func findLink(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", name, err)
	}
	return link, nil
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

// ensureBridge makes what is missing of the bridge and says what that was.
func (n *Networks) ensureBridge() (bridge netlink.Link, missing []string, err error) {
	bridge, err = findLink(n.bridge)
	if err == nil && bridge == nil {
		missing = append(missing, "bridge "+n.bridge)
		bridge, err = n.makeBridge()
	}
	if err != nil {
		return nil, nil, err
	}
	if err := n.checkOwner(bridge); err != nil {
		return nil, nil, err
	}
	addresses, err := netlink.AddrList(bridge, netlink.FAMILY_V4)
	if err != nil {
		return nil, nil, fmt.Errorf("addresses of %s: %w", n.bridge, err)
	}
	want := netlink.Addr{IPNet: &net.IPNet{IP: n.gateway.AsSlice(), Mask: net.CIDRMask(n.subnet.Bits(), 32)}}
	has := false
	for _, address := range addresses {
		if has = has || address.Equal(want); !address.Equal(want) { // the subnet of an earlier configuration
			if err := netlink.AddrDel(bridge, &address); err != nil {
				return nil, nil, fmt.Errorf("remove %s from %s: %w", address.IPNet, n.bridge, err)
			}
		}
	}
	if !has {
		if err := n.checkRoutes(bridge.Attrs().Index); err != nil {
			return nil, nil, err
		}
		missing = append(missing, "address "+want.IPNet.String()+" of "+n.bridge)
		if err := netlink.AddrReplace(bridge, &want); err != nil {
			return nil, nil, fmt.Errorf("give %s the address %s: %w", n.bridge, want.IPNet, err)
		}
	}
	return bridge, missing, nil
}

func (n *Networks) makeBridge() (netlink.Link, error) {
	if err := n.checkRoutes(0); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = n.bridge, uplinkMTU(), mac(n.gateway)
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return nil, fmt.Errorf("make bridge %s (needs root and the kernel's bridge module): %w", n.bridge, err)
	}
	bridge, err := netlink.LinkByName(n.bridge)
	if err == nil {
		err = netlink.LinkSetAlias(bridge, n.owner())
	}
	if err != nil {
		return nil, fmt.Errorf("bridge %s: %w", n.bridge, err)
	}
	bridge.Attrs().Alias = n.owner()
	return bridge, nil
}

// owner is written on the bridge, so that two configurations don't share one.
func (n *Networks) owner() string {
	alias := "berth " + n.dir
	return alias[:min(len(alias), 255)]
}

// checkOwner takes a bridge of ours, or one that a crash left before it was
// marked.
func (n *Networks) checkOwner(link netlink.Link) error {
	alias := link.Attrs().Alias
	if link.Type() == "bridge" && (alias == n.owner() || alias == "" && link.Attrs().HardwareAddr.String() == mac(n.gateway).String()) {
		return nil
	}
	return fmt.Errorf("interface %s exists and isn't of this berth (%s, marked %q, want %q): set network.bridge to another name, or remove it with 'ip link del %s': %w",
		n.bridge, link.Type(), alias, n.owner(), n.bridge, runtime.ErrUnavailable)
}

// uplinkMTU is what goes through the interface that leads out of this host.
func uplinkMTU() int {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return usualMTU
	}
	for _, route := range routes {
		if route.Dst == nil || route.Dst.IP.IsUnspecified() {
			if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil {
				return min(link.Attrs().MTU, usualMTU)
			}
		}
	}
	return usualMTU
}

// checkRoutes refuses a subnet that this host reaches some other way than by the
// bridge, whose index is given.
func (n *Networks) checkRoutes(bridge int) error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("read the routes of this host: %w", err)
	}
	for _, route := range routes {
		if route.Dst == nil || route.Dst.IP.IsUnspecified() || bridge != 0 && route.LinkIndex == bridge {
			continue
		}
		ones, _ := route.Dst.Mask.Size()
		address, ok := netip.AddrFromSlice(route.Dst.IP.To4())
		if !ok || !n.subnet.Overlaps(netip.PrefixFrom(address, ones)) {
			continue
		}
		name := fmt.Sprintf("interface %d", route.LinkIndex)
		if link, err := netlink.LinkByIndex(route.LinkIndex); err == nil {
			name = link.Attrs().Name
		}
		return fmt.Errorf("the containers' network %s overlaps with %s, which this host reaches by %s: set network.subnet to one that nothing uses: %w",
			n.subnet, route.Dst, name, runtime.ErrUnavailable)
	}
	return nil
}

// connect makes the pair of interfaces between bridge and namespace, or what is
// missing of it.
func (n *Networks) connect(bridge netlink.Link, r record) error {
	ns, err := os.Open(n.nsPath(r.Spec.ID))
	if err != nil {
		return err
	}
	defer ns.Close()
	outer, err := findLink(n.linkName(r.Spec.ID))
	if err != nil {
		return err
	}
	if outer == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = n.linkName(r.Spec.ID), bridge.Attrs().MTU
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = inside, mac(r.Address), uint32(attrs.MTU) // #nosec G115 -- at most 1500
		veth.PeerNamespace = netlink.NsFd(int(ns.Fd()))
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("make interface %s: %w", attrs.Name, err)
		}
		if outer, err = netlink.LinkByName(attrs.Name); err != nil {
			return fmt.Errorf("interface %s: %w", attrs.Name, err)
		}
	}
	if err := inNetNS(ns.Name(), func() error { return n.configureInside(r.Address) }); err != nil {
		return fmt.Errorf("inside the namespace: %w", err)
	}
	return n.plug(bridge, outer, r.Address)
}

// plug puts the host's end into the bridge so that its frames reach nobody but
// the host, and so that it can't pass for another: which address is behind which
// port is told, never learned.
func (n *Networks) plug(bridge, outer netlink.Link, address netip.Addr) error {
	steps := []error{
		netlink.LinkSetMaster(outer, bridge),
		netlink.LinkSetIsolated(outer, true),
		netlink.LinkSetLearning(outer, false),
		netlink.LinkSetUp(outer),
		netlink.NeighSet(&netlink.Neigh{ // gone with the interface
			LinkIndex: outer.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
			State: netlink.NUD_NOARP, HardwareAddr: mac(address),
		}),
		netlink.NeighSet(neighbour(bridge, address)),
	}
	if err := errors.Join(steps...); err != nil {
		return fmt.Errorf("connect %s to %s: %w", outer.Attrs().Name, n.bridge, err)
	}
	return nil
}

func neighbour(bridge netlink.Link, address netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: bridge.Attrs().Index, Family: netlink.FAMILY_V4,
		State: netlink.NUD_PERMANENT, IP: address.AsSlice(), HardwareAddr: mac(address),
	}
}

// forgetNeighbour is no error when the bridge doesn't know the address.
func (n *Networks) forgetNeighbour(address netip.Addr) error {
	bridge, err := findLink(n.bridge)
	if err != nil || bridge == nil {
		return err
	}
	if err := netlink.NeighDel(neighbour(bridge, address)); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s from the neighbours of %s: %w", address, n.bridge, err)
	}
	return nil
}

// configureInside gives the container's end its address. Its network is the
// address alone: even what goes to a neighbour goes through the host, which
// refuses it at once.
func (n *Networks) configureInside(address netip.Addr) error {
	link, err := netlink.LinkByName(inside)
	if err != nil {
		return fmt.Errorf("interface %s: %w", inside, err)
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: single(address)}); err != nil {
		return fmt.Errorf("give %s the address %s: %w", inside, address, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", inside, err)
	}
	index := link.Attrs().Index
	for _, route := range []netlink.Route{
		{LinkIndex: index, Dst: single(n.gateway), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index, Gw: n.gateway.AsSlice()},
	} {
		if err := netlink.RouteReplace(&route); err != nil {
			return fmt.Errorf("route %v: %w", route, err)
		}
	}
	return nil
}

func single(address netip.Addr) *net.IPNet {
	return &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(32, 32)}
}

// hasAddress is whether the namespace has its interface with the address.
func hasAddress(nsPath string, address netip.Addr) bool {
	has := false
	_ = inNetNS(nsPath, func() error {
		link, err := netlink.LinkByName(inside)
		if err != nil {
			return err
		}
		addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
		for _, a := range addresses {
			has = has || a.IP.Equal(address.AsSlice())
		}
		return err
	})
	return has
}

// removeLink is no error when there is none. Its other end goes along.
func removeLink(name string) error {
	link, err := findLink(name)
	if err != nil || link == nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove interface %s: %w", name, err)
	}
	return nil
}

func setLoopbackUp() error {
	link, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(link)
}
