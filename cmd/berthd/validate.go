package main

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// validateListen: plain HTTP never leaves the host.
func validateListen(address string) error {
	if address == "" {
		return nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("config: http_listen %q: want an address and a port, such as 127.0.0.1:7180: %w", address, err)
	}
	if !ap.Addr().IsLoopback() {
		return fmt.Errorf("config: http_listen %q: plain HTTP is served on loopback addresses only, such as 127.0.0.1:%d", address, ap.Port())
	}
	return nil
}

func (g *GPUConfig) validate() error {
	if !slices.Contains([]string{"", "timeslice", "mps"}, g.Sharing) {
		return fmt.Errorf("config: gpu.sharing %q is neither timeslice nor mps (empty: whole GPUs only)", g.Sharing)
	}
	for _, uuid := range slices.Concat(g.Include, g.Exclude) {
		if !strings.HasPrefix(uuid, "GPU-") && !strings.HasPrefix(uuid, "MIG-") {
			return fmt.Errorf("config: [gpu] include and exclude hold UUIDs, such as GPU-85ee7a79-…; %q isn't one: `nvidia-smi -L` lists them", uuid)
		}
	}
	return nil
}

func (n *NetworkConfig) validate() error {
	if p, err := netip.ParsePrefix(n.Subnet); err != nil || !p.Addr().Is4() || p.Bits() > 28 {
		return fmt.Errorf("config: network.subnet %q: want an IPv4 network of at least 16 addresses, such as 10.89.0.0/16", n.Subnet)
	}
	if n.Bridge == "" || len(n.Bridge) > 15 || strings.ContainsAny(n.Bridge, "/ \t") {
		return fmt.Errorf("config: network.bridge %q: want the name of an interface, at most 15 characters", n.Bridge)
	}
	if _, err := n.ports(); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(n.PublishAddress); err != nil {
		return fmt.Errorf("config: network.publish_address %q: want an address of this host, such as 127.0.0.1", n.PublishAddress)
	}
	for _, server := range n.DNS {
		if _, err := netip.ParseAddr(server); err != nil {
			return fmt.Errorf("config: network.dns %q: want the address of a DNS server", server)
		}
	}
	for _, network := range n.Deny {
		if _, err := netip.ParsePrefix(network); err != nil {
			return fmt.Errorf("config: network.deny %q: want a network, such as 192.168.0.0/16", network)
		}
	}
	return nil
}

// ports is the range of host ports, first and last.
func (n *NetworkConfig) ports() ([2]int, error) {
	first, last, _ := strings.Cut(n.PortRange, "-")
	from, err1 := strconv.Atoi(first)
	to, err2 := strconv.Atoi(last)
	if err1 != nil || err2 != nil || from < 1024 || to > 65535 || from > to {
		return [2]int{}, fmt.Errorf("config: network.port_range %q: want first-last between 1024 and 65535, such as 30000-32767", n.PortRange)
	}
	return [2]int{from, to}, nil
}

func (i *ImagesConfig) validate() error {
	switch {
	case i.MaxGiB < 1:
		return fmt.Errorf("config: images.max_gib %d: want at least 1", i.MaxGiB)
	case i.LowWaterPercent < 1 || i.LowWaterPercent >= i.HighWaterPercent || i.HighWaterPercent > 100:
		return fmt.Errorf("config: images: want 1 <= low_water_percent (%d) < high_water_percent (%d) <= 100",
			i.LowWaterPercent, i.HighWaterPercent)
	}
	return nil
}

func (h *HistoryConfig) validate() error {
	switch {
	case h.KeepDays < 1 || h.KeepDays > 3650:
		return fmt.Errorf("config: history.keep_days %d: want 1 to 3650", h.KeepDays)
	case h.Export != "" && !filepath.IsAbs(h.Export):
		return fmt.Errorf("config: history.export %q: want the whole path of a file, such as /var/lib/berth/ledger.jsonl", h.Export)
	}
	return nil
}

func (m *MetricsConfig) validate() error {
	if m.Listen == "" {
		if m.TLSCert != "" || m.TLSKey != "" || m.BearerFile != "" {
			return errors.New("config: metrics.tls_cert, tls_key and bearer_file are of no use without metrics.listen, such as 0.0.0.0:7182")
		}
		return nil
	}
	if _, err := netip.ParseAddrPort(m.Listen); err != nil {
		return fmt.Errorf("config: metrics.listen %q: want an address and a port, such as 0.0.0.0:7182: %w", m.Listen, err)
	}
	if (m.TLSCert == "") != (m.TLSKey == "") {
		return errors.New("config: metrics.tls_cert and metrics.tls_key go together")
	}
	return nil
}

func validateRegistries(registries []RegistryConfig) error {
	seen := map[string]bool{}
	for _, r := range registries {
		if r.Host == "" || strings.ContainsAny(r.Host, "/ ") || seen[r.Host] {
			return fmt.Errorf("config: [[registry]] host %q: want each registry's host and port once, such as registry.lab:5000", r.Host)
		}
		seen[r.Host] = true
		for _, mirror := range r.Mirrors {
			if u, err := url.Parse(mirror); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return fmt.Errorf("config: [[registry]] %s: mirror %q: want a URL, such as https://mirror.lab:5000", r.Host, mirror)
			}
		}
	}
	return nil
}
