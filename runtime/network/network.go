// Package network carries out runtime.Networks on Linux: a bridge, a named
// network namespace with one pair of interfaces per attachment, and an nftables
// table of its own that forwards published ports and keeps containers from each
// other, from the host and from metadata services. DESIGN.md says how.
package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"sync"

	"berth/runtime"
)

// Config says where networks are kept and what they may reach.
type Config struct {
	Dir    string       // records of attachments and the files mounted into containers; survives a reboot
	RunDir string       // names of the namespaces; must be seen by the container runtime, empty after a reboot
	Bridge string       // name of the bridge; made if absent
	Subnet string       // IPv4 addresses of the containers; its first one is the host's
	DNS    []string     // servers for containers where the host names none that they can reach
	Deny   []string     // networks out of bounds, besides the host and link-local addresses
	Log    *slog.Logger // nil: slog.Default
}

// Networks implements runtime.Networks. What it has made belongs to the host and
// outlives it; all it remembers is in Config.Dir.
type Networks struct {
	dir, runDir string
	bridge      string
	subnet      netip.Prefix
	gateway     netip.Addr // the bridge's own
	dns         []netip.Addr
	denied      []netip.Prefix
	resolvPaths []string // where the host names its DNS servers, best first
	log         *slog.Logger
	firewall    *firewall

	mu   sync.Mutex // one change of the host at a time
	last netip.Addr // the address given last: an address rests before it is given again
}

var _ runtime.Networks = (*Networks)(nil)

// bridgeName is what can stand in a firewall rule and in the name of a chain.
var bridgeName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_.-]{0,14}$`)

// linkLocal holds the metadata services of clouds.
var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// New checks the configuration. It changes nothing on the host and needs nothing
// of it; Check says whether networks can work here.
func New(cfg Config) (*Networks, error) {
	if cfg.Dir == "" || cfg.RunDir == "" {
		return nil, errors.New("network: Dir and RunDir must be set")
	}
	n := &Networks{
		bridge: cfg.Bridge, log: cfg.Log,
		resolvPaths: []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"},
	}
	if n.log == nil {
		n.log = slog.Default()
	}
	var err error
	if n.dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if n.runDir, err = filepath.Abs(cfg.RunDir); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	if !bridgeName.MatchString(n.bridge) {
		return nil, fmt.Errorf("network: bridge %q: want a name of at most 15 letters, digits, dots and dashes, a letter first", n.bridge)
	}
	subnet, err := netip.ParsePrefix(cfg.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet.Bits() < 8 || subnet.Bits() > 28 {
		return nil, fmt.Errorf("network: subnet %q: want an IPv4 network between /8 and /28, such as 10.89.0.0/16", cfg.Subnet)
	}
	n.subnet = subnet.Masked()
	n.gateway = n.subnet.Addr().Next()
	for _, server := range cfg.DNS {
		address, err := netip.ParseAddr(server)
		if err != nil {
			return nil, fmt.Errorf("network: DNS server %q: %w", server, err)
		}
		n.dns = append(n.dns, address)
	}
	if n.denied, err = parseDenied(cfg.Deny); err != nil {
		return nil, err
	}
	n.firewall = newFirewall(n.bridge, n.subnet, n.denied)
	return n, nil
}

// parseDenied leaves out IPv6, which no container has, and networks within
// others, which a set of the firewall can't hold.
func parseDenied(texts []string) ([]netip.Prefix, error) {
	all := []netip.Prefix{linkLocal}
	for _, text := range texts {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("network: denied network %q: want one such as 192.168.0.0/16", text)
		}
		if prefix.Addr().Is4() {
			all = append(all, prefix.Masked())
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() }) // widest first
	var denied []netip.Prefix
	for _, prefix := range all {
		if !slices.ContainsFunc(denied, prefix.Overlaps) {
			denied = append(denied, prefix)
		}
	}
	return denied, nil
}
