package network

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

func mustAddr(text string) netip.Addr { return netip.MustParseAddr(text) }

func TestRepair(t *testing.T) {
	serveWorld(t)
	serve(t, "", "0.0.0.0:7000", "host")
	n := newNetworks(t, nil)
	if missing, err := n.Repair(t.Context()); len(missing) > 0 || err != nil {
		t.Errorf("Repair without attachments: %q, %v", missing, err)
	}
	if link, err := findLink(n.bridge); link != nil || err != nil {
		t.Errorf("Repair without attachments makes a bridge: %v, %v", link, err)
	}
	a := attach(t, n, "a", local(31001, 80))
	b := attach(t, n, "b")
	veth := n.linkName("a")
	mustRun(t, "iptables", "-P", "FORWARD", "DROP")
	t.Cleanup(func() { mustRun(t, "iptables", "-P", "FORWARD", "ACCEPT") })
	for _, test := range []struct {
		name string
		harm [][]string
		want string
	}{
		{"nft flush ruleset", [][]string{{"nft", "flush", "ruleset"}, {"iptables", "-P", "FORWARD", "DROP"}}, "nftables table"},
		{"iptables flushed", [][]string{{"iptables", "-F"}, {"iptables", "-t", "nat", "-F"}}, "iptables chain"},
		{"iptables flushed and chains removed", [][]string{{"iptables", "-F"}, {"iptables", "-X"}}, "iptables chain"},
		{"jump below a drop", [][]string{{"iptables", "-I", "FORWARD", "-j", "DROP"}}, "iptables chain"},
		{"one rule gone", [][]string{{"nft", "flush", "chain", "inet", n.firewall.table(), "to_host"}}, "rules of nftables"},
		{"a rule too many", [][]string{{"nft", "insert", "rule", "inet", n.firewall.table(), "to_host", "accept"}}, "rules of nftables"},
		{"ports gone", [][]string{{"nft", "flush", "map", "inet", n.firewall.table(), "published"}}, "rules of nftables"},
		{"table of another kind", [][]string{
			{"nft", "delete", "table", "inet", n.firewall.table()},
			{"nft", "add table inet " + n.firewall.table() + "; add map inet " + n.firewall.table() + " denied { type ipv4_addr : ipv4_addr; }"},
		}, "rules of nftables"},
		{"forwarding off", [][]string{{"sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward"}}, "ip_forward"},
		{"localnet off", [][]string{{"sh", "-c", "echo 0 >/proc/sys/net/ipv4/conf/btest0/route_localnet"}}, "route_localnet"},
		{"IPv6 on", [][]string{{"sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/btest0/disable_ipv6"}}, "disable_ipv6"},
		{"bridge down", [][]string{{"ip", "link", "set", n.bridge, "down"}}, "bridge btest0"},
		{"bridge gone", [][]string{{"ip", "link", "del", n.bridge}}, "bridge btest0"},
		{"interface gone", [][]string{{"ip", "link", "del", veth}}, "interface of a"},
		{"interface down", [][]string{{"ip", "link", "set", veth, "down"}}, "interface of a"},
		{"interface unplugged", [][]string{{"ip", "link", "set", veth, "nomaster"}}, "interface of a"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, args := range test.harm {
				mustRun(t, args...)
			}
			missing, err := n.Repair(t.Context())
			if err != nil || !strings.Contains(strings.Join(missing, "\n"), test.want) {
				t.Errorf("Repair: %q, %v, want %q", missing, err, test.want)
			}
			if missing, err := n.Repair(t.Context()); len(missing) > 0 || err != nil {
				t.Errorf("the second Repair: %q, %v", missing, err)
			}
			if test.name == "jump below a drop" {
				mustRun(t, "iptables", "-D", "FORWARD", "-j", "DROP")
			}
			reaches(t, a.NetNS, at(internet, 80), internet)
			reaches(t, "", "127.0.0.1:31001", "a")
			denied(t, a.NetNS, at(metadata, 80))
			denied(t, a.NetNS, at(b.Address, 80))
			denied(t, a.NetNS, at(n.gateway.String(), 7000))
		})
	}
}

// What a crash left at any point of Attach is made whole by Attach and taken
// away by Detach.
func TestCrashLeftovers(t *testing.T) {
	n := newNetworks(t, nil)
	spec := runtime.NetworkSpec{ID: "a", Hostname: "a", Ports: []runtime.PublishedPort{local(31001, 80)}}
	r := record{Spec: spec, Address: mustAddr("10.89.0.9")}
	for _, test := range []struct {
		name  string
		leave func() error
	}{
		{"directory only", func() error { return os.MkdirAll(n.recordDir("a"), 0o755) }},
		{"half a record", func() error {
			return os.WriteFile(filepath.Join(n.recordDir("a"), recordName), []byte("{"), 0o600)
		}},
		{"record only", func() error { return n.save(r) }},
		{"name of a namespace", func() error { return os.WriteFile(n.nsPath("a"), nil, 0o400) }},
		{"namespace without address", func() error { return makeNetNS(n.nsPath("a"), setLoopbackUp) }},
		{"two mounts on one name", func() error { return makeNetNS(n.nsPath("a"), setLoopbackUp) }},
		{"interface that isn't plugged in", func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = n.linkName("a")
			veth := netlink.NewVeth(attrs)
			veth.PeerName = "peer0"
			return netlink.LinkAdd(veth)
		}},
	} {
		for _, then := range []string{"attach", "detach"} {
			t.Run(test.name+", "+then, func(t *testing.T) {
				other := attach(t, n, "other")
				if err := os.MkdirAll(n.recordDir("a"), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := test.leave(); err != nil {
					t.Fatal(err)
				}
				list, err := n.List(t.Context())
				if diff := cmp.Diff([]string{"a", "other"}, list); diff != "" || err != nil {
					t.Errorf("List: %v (-want +got):\n%s", err, diff)
				}
				if missing, err := n.Repair(t.Context()); err != nil {
					t.Errorf("Repair: %q, %v", missing, err)
				}
				if then == "attach" {
					attach(t, n, "a", spec.Ports...)
					reaches(t, "", "127.0.0.1:31001", "a")
				}
				for _, id := range []string{"a", "other"} {
					if err := n.Detach(t.Context(), id); err != nil {
						t.Fatal(err)
					}
				}
				if left := leftovers(t, n); len(left) > 0 {
					t.Errorf("left: %q", left)
				}
				_ = other
			})
		}
	}
}

// A reboot keeps the records and nothing else.
func TestReboot(t *testing.T) {
	n := newNetworks(t, nil)
	before := attach(t, n, "a", local(31001, 80))
	if err := removeLink(n.linkName("a")); err != nil {
		t.Fatal(err)
	}
	if err := removeLink(n.bridge); err != nil {
		t.Fatal(err)
	}
	if err := n.firewall.remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(n.nsPath("a"), unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(n.runDir); err != nil {
		t.Fatal(err)
	}
	after := attach(t, n, "a", local(31001, 80))
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
	reaches(t, "", "127.0.0.1:31001", "a")
}

// A daemon with another network.subnet takes the bridge over and gives new
// addresses to what is attached again.
func TestSubnetChanges(t *testing.T) {
	serveWorld(t)
	var cfg Config
	old := newNetworks(t, func(c *Config) { cfg = *c })
	attach(t, old, "a", local(31001, 80))
	before := leftovers(t, old)
	n := newNetworks(t, func(c *Config) { *c, c.Subnet = cfg, "10.88.0.0/24" })
	if _, err := n.Check(t.Context()); err != nil {
		t.Error(err)
	}
	a := attach(t, n, "a", local(31001, 80))
	if !n.subnet.Contains(mustAddr(a.Address)) {
		t.Errorf("address %s", a.Address)
	}
	reaches(t, a.NetNS, at(internet, 80), internet)
	reaches(t, "", "127.0.0.1:31001", "a")
	if link, err := net.InterfaceByName(n.bridge); err != nil {
		t.Error(err)
	} else if addresses, err := link.Addrs(); err != nil || len(addresses) != 1 {
		t.Errorf("the bridge has %v, %v, want one address", addresses, err)
	}
	if after := leftovers(t, n); len(after) != len(before) {
		t.Errorf("before %q, after %q", before, after)
	}
}

// A container has the files mounted, so a change must be in the same file.
func TestFilesStayTheSame(t *testing.T) {
	n := newNetworks(t, nil)
	a := attach(t, n, "a")
	before, err := os.Stat(a.Hosts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: "a", Hostname: "renamed"}); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(a.Hosts)
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := os.ReadFile(a.Hosts)
	if !os.SameFile(before, after) || !bytes.Contains(raw, []byte("renamed")) {
		t.Errorf("same file: %v, content:\n%s", os.SameFile(before, after), raw)
	}
}

func TestMTU(t *testing.T) {
	n := newNetworks(t, nil)
	a := attach(t, n, "a")
	err := inNetNS(a.NetNS, func() error {
		link, err := netlink.LinkByName(inside)
		if err == nil && link.Attrs().MTU != 1400 {
			err = fmt.Errorf("MTU %d, the uplink has 1400", link.Attrs().MTU)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRoundsLeakNothing(t *testing.T) {
	n := newNetworks(t, nil)
	attach(t, n, "stays", local(31000, 80))
	before := leftovers(t, n)
	fds, threads := count(t, "/proc/self/fd"), count(t, "/proc/self/task")
	var took time.Duration
	const rounds = 50
	for i := range rounds {
		started := time.Now()
		a, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: "r", Hostname: "r", Ports: []runtime.PublishedPort{local(31001, 80)}})
		if err != nil {
			t.Fatal(err)
		}
		took += time.Since(started)
		if i == 0 {
			if _, err := ask(a.NetNS, at(n.gateway.String(), 9), quick); err == nil {
				t.Error("something answers")
			}
		}
		if err := n.Detach(context.Background(), "r"); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("Attach took %v on average", took/rounds)
	if diff := cmp.Diff(before, leftovers(t, n)); diff != "" {
		t.Errorf("left (-before +after):\n%s", diff)
	}
	if now := count(t, "/proc/self/fd"); now > fds {
		t.Errorf("%d files are open, %d were", now, fds)
	}
	if now := count(t, "/proc/self/task"); now > threads+30 {
		t.Errorf("%d threads, %d were", now, threads)
	}
}

func count(t *testing.T, dir string) int {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
