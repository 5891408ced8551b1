package runtimetest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"berth/runtime"
	"berth/runtime/runtimetest"
)

func TestFakeNetworks(t *testing.T) {
	dir := t.TempDir()
	fake := runtimetest.NewFakeNetworks(dir)
	fake.SetSubnet(netip.MustParsePrefix("10.89.0.0/28"))
	runtimetest.NetworkSuite(t, runtimetest.NetworkHost{
		Networks: fake,
		Reopen:   func(*testing.T) runtime.Networks { return fake },
		Serve: func(t *testing.T, id string, _ runtime.Attachment, port int) {
			t.Cleanup(fake.Serve(id, port, func(conn net.Conn) {
				io.WriteString(conn, id)
				conn.Close()
			}))
		},
		TakePort: func(*testing.T) (int, func()) {
			fake.SetPortTaken(31999, true)
			return 31999, func() { fake.SetPortTaken(31999, false) }
		},
		Break: func(*testing.T) { fake.SetMissing("a rule") },
		Room:  13,
		Leftovers: func(t *testing.T) []string {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			var left []string
			for _, entry := range entries {
				left = append(left, entry.Name())
			}
			return left
		},
	})
}

func TestFakeNetworksOrders(t *testing.T) {
	fake := runtimetest.NewFakeNetworks(t.TempDir())
	ordered := errors.New("ordered")
	fake.FailNext("Attach", ordered)
	if _, err := fake.Attach(t.Context(), runtime.NetworkSpec{ID: "a"}); !errors.Is(err, ordered) {
		t.Errorf("Attach: %v, want %v", err, ordered)
	}
	if _, err := fake.Attach(t.Context(), runtime.NetworkSpec{ID: "a", Hostname: "h"}); err != nil {
		t.Fatal(err)
	}
	if spec, ok := fake.Attached("a"); !ok || spec.Hostname != "h" {
		t.Errorf("Attached: %+v, %v", spec, ok)
	}
	fake.SetDial(func(context.Context, string, int) (net.Conn, error) { return nil, ordered })
	if _, err := fake.Dial(t.Context(), "a", 1); !errors.Is(err, ordered) {
		t.Errorf("Dial: %v, want %v", err, ordered)
	}
}
