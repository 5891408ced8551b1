package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"berth/runtime"
)

// NetworkHost is a Networks under test and what the suite needs to know of it.
type NetworkHost struct {
	Networks runtime.Networks
	// Reopen gives another Networks over the same attachments, as a daemon that
	// was restarted has.
	Reopen func(t *testing.T) runtime.Networks
	// Serve answers each connection to 127.0.0.1:port inside the attachment with
	// the id and closes it, until the test ends.
	Serve func(t *testing.T, id string, a runtime.Attachment, port int)
	// TakePort gives a port of 127.0.0.1 that something else on the host listens
	// on until free is called.
	TakePort func(t *testing.T) (port int, free func())
	// Break removes rules, as a firewall's reload does.
	Break func(t *testing.T)
	// Room is how many attachments the subnet holds.
	Room int
	// Leftovers lists all that attachments leave on the host. It runs in clean-up
	// too, when t's context has ended.
	Leftovers func(t *testing.T) []string
}

// NetworkSuite runs the conformance tests of the networks contract. Each leaves
// the host as it found it.
func NetworkSuite(t *testing.T, host NetworkHost) {
	s := &networkSuite{host}
	for _, test := range []struct {
		name string
		run  func(*networkSuite, *testing.T)
	}{
		{"attach and detach", (*networkSuite).attachDetach},
		{"attach twice", (*networkSuite).attachTwice},
		{"attach with other ports", (*networkSuite).otherPorts},
		{"bad ids", (*networkSuite).badIDs},
		{"bad ports", (*networkSuite).badPorts},
		{"port taken by a process", (*networkSuite).portTaken},
		{"port taken by another", (*networkSuite).portOfAnother},
		{"no address left", (*networkSuite).noAddress},
		{"detach of nothing", (*networkSuite).detachNothing},
		{"dial", (*networkSuite).dial},
		{"dial of nothing", (*networkSuite).dialNothing},
		{"repair", (*networkSuite).repair},
		{"reopen", (*networkSuite).reopen},
		{"context that has ended", (*networkSuite).ended},
		{"several at once", (*networkSuite).several},
	} {
		t.Run(test.name, func(t *testing.T) {
			leavesNothing(t, host.Leftovers)
			test.run(s, t)
		})
	}
}

type networkSuite struct {
	NetworkHost
}

// attach makes an attachment that is gone when the test ends.
func (s *networkSuite) attach(t *testing.T, id string, ports ...runtime.PublishedPort) runtime.Attachment {
	t.Helper()
	t.Cleanup(func() {
		if err := s.Networks.Detach(context.Background(), id); err != nil {
			t.Errorf("Detach %s: %v", id, err)
		}
	})
	a, err := s.Networks.Attach(t.Context(), runtime.NetworkSpec{ID: id, Hostname: "host-" + id, Ports: ports})
	if err != nil {
		t.Fatalf("Attach %s: %v", id, err)
	}
	return a
}

// refused checks that an attachment can't be made, and that nothing stays.
func (s *networkSuite) refused(t *testing.T, spec runtime.NetworkSpec, want error) {
	t.Helper()
	_, err := s.Networks.Attach(t.Context(), spec)
	if !errors.Is(err, want) {
		t.Errorf("Attach %+v: %v, want %v", spec, err, want)
	}
	if slices.Contains(s.list(t), spec.ID) {
		t.Errorf("%q is attached after the error", spec.ID)
	}
}

func (s *networkSuite) list(t *testing.T) []string {
	t.Helper()
	ids, err := s.Networks.List(t.Context())
	if err != nil {
		t.Fatalf("List: %v", err)
	}
	slices.Sort(ids)
	return ids
}

func local(hostPort, container int) runtime.PublishedPort {
	return runtime.PublishedPort{HostIP: "127.0.0.1", HostPort: hostPort, Container: container}
}

func (s *networkSuite) attachDetach(t *testing.T) {
	a := s.attach(t, "one", local(31001, 80))
	if address, err := netip.ParseAddr(a.Address); err != nil || !address.Is4() {
		t.Errorf("address %q", a.Address)
	}
	for path, words := range map[string][]string{
		a.NetNS:      nil,
		a.ResolvConf: nil,
		a.Hosts:      {"localhost", "host-one", a.Address},
	} {
		raw, err := os.ReadFile(path)
		if err != nil && path != a.NetNS { // whose content is the kernel's
			t.Error(err)
		}
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
		for _, word := range words {
			if !strings.Contains(string(raw), word) {
				t.Errorf("%s has no %q:\n%s", path, word, raw)
			}
		}
	}
	if diff := cmp.Diff([]string{"one"}, s.list(t)); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if err := s.Networks.Detach(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	if list := s.list(t); len(list) != 0 {
		t.Errorf("List after Detach: %v", list)
	}
	if _, err := os.Stat(a.NetNS); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the namespace is there after Detach: %v", err)
	}
}

func (s *networkSuite) attachTwice(t *testing.T) {
	first := s.attach(t, "one", local(31001, 80))
	second := s.attach(t, "one", local(31001, 80))
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("the second Attach gives something else (-first +second):\n%s", diff)
	}
}

func (s *networkSuite) otherPorts(t *testing.T) {
	s.attach(t, "one", local(31001, 80))
	s.attach(t, "one", local(31002, 80))
	s.attach(t, "two", local(31001, 80)) // is free again
}

func (s *networkSuite) badIDs(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "../a", "a b", "a\nb", strings.Repeat("a", 77)} {
		s.refused(t, runtime.NetworkSpec{ID: id}, runtime.ErrInvalid)
	}
	s.attach(t, strings.Repeat("a", 76))
}

func (s *networkSuite) badPorts(t *testing.T) {
	for _, ports := range [][]runtime.PublishedPort{
		{local(0, 80)},
		{local(65536, 80)},
		{local(31001, 0)},
		{local(31001, -1)},
		{local(31001, 80), local(31001, 81)},
		{{HostIP: "", HostPort: 31001, Container: 80}},
		{{HostIP: "localhost", HostPort: 31001, Container: 80}},
		{{HostIP: "::1", HostPort: 31001, Container: 80}},
	} {
		s.refused(t, runtime.NetworkSpec{ID: "one", Ports: ports}, runtime.ErrInvalid)
	}
}

func (s *networkSuite) portTaken(t *testing.T) {
	port, free := s.TakePort(t)
	s.refused(t, runtime.NetworkSpec{ID: "one", Ports: []runtime.PublishedPort{local(31001, 80), local(port, 81)}}, runtime.ErrPortTaken)
	free()
	s.attach(t, "one", local(31001, 80), local(port, 81))
}

func (s *networkSuite) portOfAnother(t *testing.T) {
	s.attach(t, "one", local(31001, 80))
	s.refused(t, runtime.NetworkSpec{ID: "two", Ports: []runtime.PublishedPort{local(31001, 80)}}, runtime.ErrPortTaken)
	if err := s.Networks.Detach(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	s.attach(t, "two", local(31001, 80))
}

func (s *networkSuite) noAddress(t *testing.T) {
	addresses := map[string]bool{}
	for i := range s.Room {
		addresses[s.attach(t, fmt.Sprintf("n%d", i)).Address] = true
	}
	if len(addresses) != s.Room {
		t.Errorf("%d attachments have %d addresses", s.Room, len(addresses))
	}
	s.refused(t, runtime.NetworkSpec{ID: "more"}, runtime.ErrNoAddress)
	if err := s.Networks.Detach(t.Context(), "n3"); err != nil {
		t.Fatal(err)
	}
	if a := s.attach(t, "more"); !addresses[a.Address] {
		t.Errorf("address %s, want the one that got free", a.Address)
	}
}

func (s *networkSuite) detachNothing(t *testing.T) {
	for range 2 {
		if err := s.Networks.Detach(t.Context(), "nothing"); err != nil {
			t.Error(err)
		}
	}
}

func (s *networkSuite) dial(t *testing.T) {
	for _, id := range []string{"one", "two"} {
		s.Serve(t, id, s.attach(t, id), 8080)
	}
	for _, id := range []string{"one", "two", "one"} {
		conn, err := s.Networks.Dial(t.Context(), id, 8080)
		if err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(conn)
		if string(said) != id || err != nil {
			t.Errorf("Dial %s reaches %q, %v", id, said, err)
		}
		conn.Close()
	}
	if conn, err := s.Networks.Dial(t.Context(), "one", 8081); err == nil {
		conn.Close()
		t.Error("Dial reaches a port that nobody listens on")
	}
}

func (s *networkSuite) dialNothing(t *testing.T) {
	if _, err := s.Networks.Dial(t.Context(), "nothing", 80); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("Dial: %v, want %v", err, runtime.ErrNotFound)
	}
}

func (s *networkSuite) repair(t *testing.T) {
	s.attach(t, "one", local(31001, 80))
	s.repairs(t, false)
	s.Break(t)
	s.repairs(t, true)
	s.repairs(t, false)
}

func (s *networkSuite) repairs(t *testing.T, want bool) {
	t.Helper()
	missing, err := s.Networks.Repair(t.Context())
	if err != nil || (len(missing) > 0) != want {
		t.Errorf("Repair: %q, %v, want something missing: %v", missing, err, want)
	}
}

func (s *networkSuite) reopen(t *testing.T) {
	first := s.attach(t, "one", local(31001, 80))
	again := *s
	again.Networks = s.Reopen(t)
	if diff := cmp.Diff([]string{"one"}, again.list(t)); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	again.repairs(t, false)
	if diff := cmp.Diff(first, again.attach(t, "one", local(31001, 80))); diff != "" {
		t.Errorf("Attach after a restart (-before +after):\n%s", diff)
	}
	if second := again.attach(t, "two"); second.Address == first.Address {
		t.Errorf("two has one's address %s", second.Address)
	}
	again.refused(t, runtime.NetworkSpec{ID: "three", Ports: []runtime.PublishedPort{local(31001, 80)}}, runtime.ErrPortTaken)
}

func (s *networkSuite) ended(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Networks.Attach(ctx, runtime.NetworkSpec{ID: "one", Ports: []runtime.PublishedPort{local(31001, 80)}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Attach: %v, want %v", err, context.Canceled)
	}
	if list := s.list(t); len(list) != 0 {
		t.Errorf("List after that: %v", list)
	}
}

func (s *networkSuite) several(t *testing.T) {
	const each = 6
	results := make(chan error, each)
	for i := range each {
		go func() {
			id := fmt.Sprintf("n%d", i)
			_, err := s.Networks.Attach(t.Context(), runtime.NetworkSpec{ID: id, Ports: []runtime.PublishedPort{local(31001+i, 80)}})
			if err == nil {
				_, err = s.Networks.Repair(t.Context())
			}
			results <- errors.Join(err, s.Networks.Detach(t.Context(), id))
		}()
	}
	for range each {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
