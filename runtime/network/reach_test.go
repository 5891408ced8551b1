package network

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"berth/runtime"
)

func serveWorld(t *testing.T) {
	for _, address := range []string{internet, metadata, deniedServer} {
		serve(t, world, at(address, 80), address)
	}
}

func TestContainerReachesTheInternetOnly(t *testing.T) {
	serveWorld(t)
	serve(t, "", "0.0.0.0:7000", "host")
	n := newNetworks(t, nil)
	a := attach(t, n, "a", runtime.PublishedPort{HostIP: uplinkAddress, HostPort: 31002, Container: 80})
	b := attach(t, n, "b", local(31001, 80))
	for _, address := range []string{at(internet, 80), at(metadata, 80), at(deniedServer, 80), at(a.Address, 80), at(b.Address, 80),
		"127.0.0.1:31001", at(uplinkAddress, 31002), "127.0.0.1:7000"} {
		if _, err := ask("", address, patience); err != nil {
			t.Errorf("even the host can't reach %s: %v", address, err)
		}
	}
	for range 2 { // and again when somebody has set the host's policy
		reaches(t, a.NetNS, at(internet, 80), internet)
		refused(t, a.NetNS, at(metadata, 80))
		refused(t, a.NetNS, at(deniedServer, 80))
		refused(t, a.NetNS, at(b.Address, 80))
		refused(t, b.NetNS, at(a.Address, 80))
		refused(t, a.NetNS, at(n.gateway.String(), 7000))
		refused(t, a.NetNS, at(uplinkAddress, 7000))
		refused(t, a.NetNS, at(uplinkAddress, 31002)) // published for the world, not for it
		refused(t, b.NetNS, at(uplinkAddress, 31002))
		refused(t, a.NetNS, at(n.gateway.String(), 31001))
		mustRun(t, "iptables", "-P", "FORWARD", "DROP")
	}
	mustRun(t, "iptables", "-P", "FORWARD", "ACCEPT")
}

func TestPublishedPorts(t *testing.T) {
	n := newNetworks(t, nil)
	attach(t, n, "a", local(31001, 80),
		runtime.PublishedPort{HostIP: uplinkAddress, HostPort: 31002, Container: 80},
		runtime.PublishedPort{HostIP: "0.0.0.0", HostPort: 31003, Container: 80})
	for range 2 {
		reaches(t, "", "127.0.0.1:31001", "a")
		reaches(t, "", at(uplinkAddress, 31002), "a")
		reaches(t, "", "127.0.0.1:31003", "a")
		reaches(t, world, at(uplinkAddress, 31002), "a")
		reaches(t, world, at(uplinkAddress, 31003), "a")
		denied(t, "", at(uplinkAddress, 31001))
		denied(t, world, at(uplinkAddress, 31001))
		denied(t, "", "127.0.0.1:31002")
		mustRun(t, "iptables", "-P", "FORWARD", "DROP")
	}
	mustRun(t, "iptables", "-P", "FORWARD", "ACCEPT")
	if _, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: "b", Ports: []runtime.PublishedPort{local(31003, 80)}}); err == nil {
		t.Error("a port that is published everywhere can be published on one address as well")
	}
	foreign := runtime.PublishedPort{HostIP: internet, HostPort: 31004, Container: 80}
	if _, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: "b", Ports: []runtime.PublishedPort{foreign}}); !errors.Is(err, runtime.ErrInvalid) {
		t.Errorf("a port on another host's address: %v", err)
	}
	if err := n.Detach(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	denied(t, "", "127.0.0.1:31001")
}

// Another host on the wire may have a route to the containers, or send to a
// loopback address.
func TestOtherHostsDoNotReachIn(t *testing.T) {
	n := newNetworks(t, nil)
	a := attach(t, n, "a", local(31001, 80))
	err := inNetNS(world, func() error {
		if _, err := setSysctl("net/ipv4/conf/world0/route_localnet", "1"); err != nil {
			return err
		}
		if err := command("ip", "route", "add", "127.0.0.1/32", "via", uplinkAddress, "src", internet); err != nil {
			return err
		}
		return command("ip", "route", "add", n.subnet.String(), "via", uplinkAddress)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := inNetNS(world, func() error {
			if err := command("ip", "route", "del", "127.0.0.1/32"); err != nil {
				return err
			}
			return command("ip", "route", "del", n.subnet.String())
		})
		if err != nil {
			t.Error(err)
		}
	})
	denied(t, world, at(a.Address, 80))
	denied(t, world, "127.0.0.1:31001")
	denied(t, world, at(a.Address, 31001))
}

func TestNoIPv6(t *testing.T) {
	n := newNetworks(t, nil)
	a := attach(t, n, "a")
	err := inNetNS(a.NetNS, func() error {
		interfaces, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range interfaces {
			addresses, err := i.Addrs()
			if err != nil {
				return err
			}
			for _, address := range addresses {
				if strings.Contains(address.String(), ":") {
					t.Errorf("%s has %s in the container", i.Name, address)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Should both ends get IPv6 all the same, rules keep them apart.
	setting := "/proc/sys/net/ipv6/conf/"
	if err := os.WriteFile(setting+n.bridge+"/disable_ipv6", []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(setting+"all/forwarding", []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "ip", "addr", "add", "fd89::1/64", "dev", n.bridge, "nodad")
	mustRun(t, "ip", "addr", "replace", "fd90::1/64", "dev", "up0", "nodad")
	serve(t, "", "[fd89::1]:7000", "host")
	err = inNetNS(world, func() error {
		if err := os.WriteFile(setting+"all/disable_ipv6", []byte("0"), 0o600); err != nil {
			return err
		}
		if err := command("ip", "addr", "replace", "fd90::2/64", "dev", "world0", "nodad"); err != nil {
			return err
		}
		return command("ip", "route", "replace", "fd89::/64", "via", "fd90::1")
	})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, world, "[fd90::2]:80", "world")
	err = inNetNS(a.NetNS, func() error {
		if err := os.WriteFile(setting+"all/disable_ipv6", []byte("0"), 0o600); err != nil {
			return err
		}
		if err := command("ip", "addr", "add", "fd89::2/64", "dev", inside, "nodad"); err != nil {
			return err
		}
		// The host answers no question for its hardware address.
		if err := command("ip", "neigh", "replace", "fd89::1", "lladdr", mac(n.gateway).String(), "dev", inside); err != nil {
			return err
		}
		return command("ip", "route", "add", "default", "via", "fd89::1")
	})
	if err != nil {
		t.Fatal(err)
	}
	mustRun(t, "ip", "neigh", "replace", "fd89::2", "lladdr", mac(mustAddr(a.Address)).String(), "dev", n.bridge)
	serve(t, a.NetNS, "[fd89::2]:81", "a")
	eventually(t, "[fd89::1]:7000") // the kernel takes a while over a new address
	eventually(t, "[fd90::2]:80")
	denied(t, a.NetNS, "[fd89::1]:7000")
	denied(t, a.NetNS, "[fd90::2]:80")
	denied(t, "", "[fd89::2]:81")
	denied(t, world, "[fd89::2]:81")
}

// A container that can make any packet, as one with CAP_NET_RAW, gets no
// further.
func TestSpoofing(t *testing.T) {
	n := newNetworks(t, nil)
	a := attach(t, n, "a")
	b := attach(t, n, "b", local(31001, 80))
	serve(t, "", "127.0.0.1:7000", "host")
	t.Run("frames to a neighbour", func(t *testing.T) {
		err := inNetNS(a.NetNS, func() error {
			if err := command("ip", "neigh", "replace", b.Address, "lladdr", mac(mustAddr(b.Address)).String(), "dev", inside); err != nil {
				return err
			}
			return command("ip", "route", "add", b.Address+"/32", "dev", inside)
		})
		if err != nil {
			t.Fatal(err)
		}
		// And b answers it directly.
		err = inNetNS(b.NetNS, func() error {
			if err := command("ip", "neigh", "replace", a.Address, "lladdr", mac(mustAddr(a.Address)).String(), "dev", inside); err != nil {
				return err
			}
			return command("ip", "route", "add", a.Address+"/32", "dev", inside)
		})
		if err != nil {
			t.Fatal(err)
		}
		denied(t, a.NetNS, at(b.Address, 80))
	})
	t.Run("answers for a neighbour", func(t *testing.T) {
		err := inNetNS(b.NetNS, func() error { // is slow to say where it is
			_, err := setSysctl("net/ipv4/conf/"+inside+"/arp_ignore", "8")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		takeOver := func(verb string) {
			if err := inNetNS(a.NetNS, func() error { return command("ip", "addr", verb, b.Address+"/32", "dev", inside) }); err != nil {
				t.Fatal(err)
			}
		}
		takeOver("add")
		reaches(t, "", at(b.Address, 80), "b")
		takeOver("del")
	})
	t.Run("an address of nobody", func(t *testing.T) {
		const nobody = "203.0.113.7"
		var heard net.PacketConn
		err := inNetNS(world, func() (err error) {
			heard, err = net.ListenPacket("udp", at(internet, 9))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer heard.Close()
		say := func(from string) {
			err := inNetNS(a.NetNS, func() error {
				if err := command("ip", "addr", "replace", nobody+"/32", "dev", inside); err != nil {
					return err
				}
				dialer := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
				conn, err := dialer.Dial("udp", at(internet, 9))
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Write([]byte("from " + from))
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		say(nobody)
		say(a.Address)
		buffer := make([]byte, 100)
		if err := heard.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		length, from, err := heard.ReadFrom(buffer)
		if string(buffer[:length]) != "from "+a.Address || err != nil {
			t.Errorf("the Internet hears %q from %v, %v", buffer[:length], from, err)
		}
	})
	t.Run("the host's loopback", func(t *testing.T) {
		err := inNetNS(a.NetNS, func() error {
			if _, err := setSysctl("net/ipv4/conf/"+inside+"/route_localnet", "1"); err != nil {
				return err
			}
			for _, args := range [][]string{
				{"ip", "link", "set", "lo", "down"},
				{"ip", "route", "add", "127.0.0.1/32", "via", n.gateway.String(), "src", a.Address},
			} {
				if err := command(args...); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		denied(t, a.NetNS, "127.0.0.1:7000")
		denied(t, a.NetNS, "127.0.0.1:31001")
	})
	t.Run("another's address", func(t *testing.T) {
		err := inNetNS(a.NetNS, func() error { // takes address and hardware address, and speaks up
			for _, args := range [][]string{
				{"ip", "link", "set", inside, "down"},
				{"ip", "link", "set", inside, "address", mac(mustAddr(b.Address)).String()},
				{"ip", "addr", "add", b.Address + "/32", "dev", inside},
				{"ip", "link", "set", inside, "up"},
				{"ip", "route", "add", n.gateway.String(), "dev", inside},
			} {
				if err := command(args...); err != nil {
					return err
				}
			}
			conn, err := net.Dial("udp", at(n.gateway.String(), 9))
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write([]byte("me"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 5 {
			reaches(t, "", at(b.Address, 80), "b")
			reaches(t, "", "127.0.0.1:31001", "b")
		}
	})
}
