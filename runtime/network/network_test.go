package network

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/runtime"
	"berth/runtime/runtimetest"
)

func TestNetworks(t *testing.T) {
	base := t.TempDir()
	cfg := Config{
		Dir: filepath.Join(base, "state"), RunDir: filepath.Join(base, "run"),
		Bridge: "bsuite0", Subnet: "10.87.0.0/28",
	}
	open := func(t *testing.T) *Networks {
		n, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	n := open(t)
	runtimetest.NetworkSuite(t, runtimetest.NetworkHost{
		Networks: n,
		Reopen:   func(t *testing.T) runtime.Networks { return open(t) },
		Serve: func(t *testing.T, id string, a runtime.Attachment, port int) {
			serve(t, a.NetNS, at("127.0.0.1", port), id)
		},
		TakePort: func(t *testing.T) (int, func()) {
			listener, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			return listener.Addr().(*net.TCPAddr).Port, func() { listener.Close() }
		},
		Break:     func(t *testing.T) { mustRun(t, "nft", "flush", "ruleset") },
		Room:      13,
		Leftovers: func(t *testing.T) []string { return leftovers(t, n) },
	})
	if err := n.Clear(t.Context()); err != nil {
		t.Error(err)
	}
	if link, err := findLink("bsuite0"); link != nil || err != nil {
		t.Errorf("the bridge after Clear: %v, %v", link, err)
	}
}

func TestNewRefuses(t *testing.T) {
	good := Config{Dir: "d", RunDir: "r", Bridge: "berth0", Subnet: "10.89.0.0/16"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no directory":    func(c *Config) { c.Dir = "" },
		"no run":          func(c *Config) { c.RunDir = "" },
		"no bridge":       func(c *Config) { c.Bridge = "" },
		"long bridge":     func(c *Config) { c.Bridge = "a123456789012345" },
		"bridge of words": func(c *Config) { c.Bridge = "a\" drop" },
		"IPv6 subnet":     func(c *Config) { c.Subnet = "fd00::/64" },
		"small subnet":    func(c *Config) { c.Subnet = "10.0.0.0/29" },
		"no subnet":       func(c *Config) { c.Subnet = "10.0.0.1" },
		"DNS":             func(c *Config) { c.DNS = []string{"x"} },
		"denied":          func(c *Config) { c.Deny = []string{"10.0.0.1"} },
	} {
		cfg := good
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: New takes it", name)
		}
	}
}

func TestParseDenied(t *testing.T) {
	denied, err := parseDenied([]string{"10.1.2.0/24", "10.0.0.5/8", "169.254.169.254/32", "fd00::/8", "10.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, prefix := range denied {
		got = append(got, prefix.String())
	}
	if diff := cmp.Diff([]string{"10.0.0.0/8", "169.254.0.0/16"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// An address rests: it is given again only when all others had their turn.
func TestAddressesRest(t *testing.T) {
	n, err := New(Config{Dir: t.TempDir(), RunDir: t.TempDir(), Bridge: "b", Subnet: "10.89.0.0/28"})
	if err != nil {
		t.Fatal(err)
	}
	records := map[string]record{"old": {Address: netip.MustParseAddr("10.89.0.5")}}
	var got []string
	for range 13 {
		address, err := n.freeAddress(records)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, address.String()[len("10.89.0."):])
	}
	if want := "6 7 8 9 10 11 12 13 14 2 3 4 6"; strings.Join(got, " ") != want {
		t.Errorf("addresses %v, want %s", got, want)
	}
}

func TestResolvConf(t *testing.T) {
	for _, test := range []struct {
		name          string
		host, systemd string
		dns           []string
		want          string
		servers       int
	}{
		{"plain", "search lab.example\nnameserver 192.168.1.1\nnameserver fd00::1\n", "nameserver 9.9.9.9\n", []string{"8.8.8.8"},
			"search lab.example\nnameserver 192.168.1.1\n", 1},
		{"stub", "nameserver 127.0.0.53\noptions edns0\n", "# by systemd\nnameserver 9.9.9.9\nsearch .\n", []string{"8.8.8.8"},
			"nameserver 9.9.9.9\nsearch .\n", 1},
		{"stub without systemd", "nameserver 127.0.0.1\n", "", []string{"8.8.8.8", "8.8.4.4"},
			"nameserver 8.8.8.8\nnameserver 8.8.4.4\n", 2},
		{"on this host", "nameserver " + uplinkAddress + "\n", "", []string{"8.8.8.8"}, "nameserver 8.8.8.8\n", 1},
		{"denied", "nameserver " + metadata + "\n", "nameserver " + deniedServer + "\n", nil,
			"# This host names no DNS server that containers can reach; see network.dns of berthd.\n", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNetworks(t, func(c *Config) { c.DNS = test.dns })
			n.resolvPaths = []string{filepath.Join(t.TempDir(), "host"), filepath.Join(t.TempDir(), "systemd")}
			for i, text := range []string{test.host, test.systemd} {
				if text != "" {
					if err := os.WriteFile(n.resolvPaths[i], []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			got, servers := n.resolvConf()
			if got != test.want || servers != test.servers {
				t.Errorf("%d servers:\n%s\nwant %d:\n%s", servers, got, test.servers, test.want)
			}
			warnings, err := n.Check(t.Context())
			if err != nil || (len(warnings) > 0) != (test.servers == 0) {
				t.Errorf("Check: %q, %v", warnings, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	t.Run("overlap", func(t *testing.T) {
		n := newNetworks(t, func(c *Config) { c.Subnet = "198.51.0.0/16" })
		_, err := n.Check(t.Context())
		if !errors.Is(err, runtime.ErrUnavailable) || !strings.Contains(err.Error(), "up0") {
			t.Errorf("Check: %v", err)
		}
		if _, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: "a"}); !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("Attach: %v", err)
		}
		if left := leftovers(t, n); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
	t.Run("foreign bridge", func(t *testing.T) {
		mustRun(t, "ip", "link", "add", "btest0", "type", "bridge")
		t.Cleanup(func() { mustRun(t, "ip", "link", "del", "btest0") })
		n := newNetworks(t, nil)
		if _, err := n.Check(t.Context()); !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("Check: %v", err)
		}
		if _, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: "a"}); !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("Attach: %v", err)
		}
	})
	t.Run("no programs", func(t *testing.T) {
		n := newNetworks(t, nil)
		path := os.Getenv("PATH")
		t.Setenv("PATH", t.TempDir())
		if _, err := n.Check(t.Context()); !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("Check: %v", err)
		}
		if _, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: "a"}); !errors.Is(err, runtime.ErrUnavailable) {
			t.Errorf("Attach: %v", err)
		}
		if err := os.Setenv("PATH", path); err != nil { // for the clean-up
			t.Fatal(err)
		}
		if left := leftovers(t, n); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
	t.Run("foreign drop", func(t *testing.T) {
		n := newNetworks(t, nil)
		mustRun(t, "nft", "add table inet site; add chain inet site forwarded { type filter hook forward priority 0; policy drop; }")
		t.Cleanup(func() { mustRun(t, "nft", "delete", "table", "inet", "site") })
		mustRun(t, "iptables", "-P", "FORWARD", "DROP") // is none: our chain is called from there
		t.Cleanup(func() { mustRun(t, "iptables", "-P", "FORWARD", "ACCEPT") })
		warnings, err := n.Check(t.Context())
		found := strings.Join(warnings, "\n")
		if err != nil || !strings.Contains(found, "forwarded of nftables table inet site") || strings.Contains(found, "FORWARD") {
			t.Errorf("Check: %q, %v", warnings, err)
		}
	})
}
