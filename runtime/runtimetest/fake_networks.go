package runtimetest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"berth/runtime"
)

// FakeNetworks pretends networks: addresses are counted out, files are written,
// nothing is connected. Like attachments, it outlives the daemon that uses it.
// Safe for concurrent use.
type FakeNetworks struct {
	dir    string
	subnet netip.Prefix
	orders

	mu       sync.Mutex
	attached map[string]fakeAttachment
	taken    map[int]bool
	missing  []string
	dial     func(ctx context.Context, id string, port int) (net.Conn, error)
	served   map[fakePort]func(net.Conn)
}

var _ runtime.Networks = (*FakeNetworks)(nil)

type fakeAttachment struct {
	spec runtime.NetworkSpec
	runtime.Attachment
}

type fakePort struct {
	id   string
	port int
}

// NewFakeNetworks makes a FakeNetworks of 10.89.0.0/16 that keeps its files
// below dir.
func NewFakeNetworks(dir string) *FakeNetworks {
	return &FakeNetworks{
		dir: dir, subnet: netip.MustParsePrefix("10.89.0.0/16"),
		attached: map[string]fakeAttachment{}, taken: map[int]bool{}, served: map[fakePort]func(net.Conn){},
	}
}

// SetSubnet makes later addresses come from this network, whose first address is
// the host's.
func (f *FakeNetworks) SetSubnet(subnet netip.Prefix) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subnet = subnet
}

// SetPortTaken says whether something else on the host listens on the port.
func (f *FakeNetworks) SetPortTaken(port int, taken bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.taken[port] = taken
}

// SetMissing makes the next Repair say that these rules were missing.
func (f *FakeNetworks) SetMissing(rules ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missing = rules
}

// SetDial replaces what Dial does for ids that are attached.
func (f *FakeNetworks) SetDial(dial func(ctx context.Context, id string, port int) (net.Conn, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dial = dial
}

// Serve lets something listen on a port inside an attachment: each Dial gets
// one end of a net.Pipe and handle the other, in a goroutine of its own. stop
// ends the listening.
func (f *FakeNetworks) Serve(id string, port int, handle func(net.Conn)) (stop func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.served[fakePort{id, port}] = handle
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.served, fakePort{id, port})
	}
}

// Attached gives the spec that an id was attached with.
func (f *FakeNetworks) Attached(id string) (spec runtime.NetworkSpec, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	a, ok := f.attached[id]
	return a.spec, ok
}

// Attach implements runtime.Networks.
func (f *FakeNetworks) Attach(ctx context.Context, spec runtime.NetworkSpec) (runtime.Attachment, error) {
	if err := f.enter(ctx, "Attach"); err != nil {
		return runtime.Attachment{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.check(spec); err != nil {
		return runtime.Attachment{}, err
	}
	old, ok := f.attached[spec.ID]
	if ok && slices.Equal(old.spec.Ports, spec.Ports) {
		return old.Attachment, nil
	}
	address := old.Address
	if address == "" {
		var err error
		if address, err = f.freeAddress(); err != nil {
			return runtime.Attachment{}, err
		}
	}
	attachment, err := f.write(spec, address)
	if err != nil {
		return runtime.Attachment{}, err
	}
	spec.Ports = slices.Clone(spec.Ports)
	f.attached[spec.ID] = fakeAttachment{spec, attachment}
	return attachment, nil
}

func (f *FakeNetworks) check(spec runtime.NetworkSpec) error {
	if spec.ID == "" || len(spec.ID) > 76 || strings.Trim(spec.ID, ".") == "" || strings.ContainsAny(spec.ID, "/ \n") {
		return fmt.Errorf("network id %q: %w", spec.ID, runtime.ErrInvalid)
	}
	for i, port := range spec.Ports {
		address, err := netip.ParseAddr(port.HostIP)
		twice := slices.ContainsFunc(spec.Ports[:i], func(other runtime.PublishedPort) bool { return other.HostPort == port.HostPort })
		if err != nil || !address.Is4() || !validPort(port.HostPort) || !validPort(port.Container) || twice {
			return fmt.Errorf("port %+v of network %s: %w", port, spec.ID, runtime.ErrInvalid)
		}
		if f.taken[port.HostPort] {
			return fmt.Errorf("port %d: %w", port.HostPort, runtime.ErrPortTaken)
		}
		for id, other := range f.attached {
			if id != spec.ID && slices.ContainsFunc(other.spec.Ports, func(p runtime.PublishedPort) bool { return p.HostPort == port.HostPort }) {
				return fmt.Errorf("port %d, of %s: %w", port.HostPort, id, runtime.ErrPortTaken)
			}
		}
	}
	return nil
}

func validPort(port int) bool { return port >= 1 && port <= 65535 }

// freeAddress leaves out the network's own, the host's and the broadcast address.
func (f *FakeNetworks) freeAddress() (string, error) {
	used := map[string]bool{}
	for _, a := range f.attached {
		used[a.Address] = true
	}
	for address := f.subnet.Masked().Addr().Next().Next(); f.subnet.Contains(address.Next()); address = address.Next() {
		if !used[address.String()] {
			return address.String(), nil
		}
	}
	return "", fmt.Errorf("network %s: %w", f.subnet, runtime.ErrNoAddress)
}

func (f *FakeNetworks) write(spec runtime.NetworkSpec, address string) (runtime.Attachment, error) {
	dir := filepath.Join(f.dir, spec.ID)
	a := runtime.Attachment{
		NetNS: filepath.Join(dir, "netns"), Address: address,
		ResolvConf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts"),
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { // #nosec G301 -- mounted into containers
		return runtime.Attachment{}, err
	}
	for path, text := range map[string]string{
		a.NetNS:      "",
		a.ResolvConf: "nameserver 192.0.2.53\n",
		a.Hosts:      "127.0.0.1\tlocalhost\n" + address + "\t" + spec.Hostname + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { // #nosec G306 -- mounted into containers
			return runtime.Attachment{}, err
		}
	}
	return a, nil
}

// Detach implements runtime.Networks.
func (f *FakeNetworks) Detach(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Detach"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.attached[id]; !ok {
		return nil
	}
	delete(f.attached, id)
	return os.RemoveAll(filepath.Join(f.dir, id))
}

// List implements runtime.Networks.
func (f *FakeNetworks) List(ctx context.Context) ([]string, error) {
	if err := f.enter(ctx, "List"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.attached)), nil
}

// Dial implements runtime.Networks: what SetDial gave, else what Serve serves.
func (f *FakeNetworks) Dial(ctx context.Context, id string, port int) (net.Conn, error) {
	if err := f.enter(ctx, "Dial"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	_, ok := f.attached[id]
	dial, handle := f.dial, f.served[fakePort{id, port}]
	f.mu.Unlock()
	switch {
	case !ok:
		return nil, fmt.Errorf("network %s: %w", id, runtime.ErrNotFound)
	case dial != nil:
		return dial(ctx, id, port)
	case handle == nil:
		return nil, fmt.Errorf("dial 127.0.0.1:%d in network %s: connection refused", port, id)
	}
	ours, theirs := net.Pipe()
	go handle(theirs)
	return ours, nil
}

// Repair implements runtime.Networks.
func (f *FakeNetworks) Repair(ctx context.Context) ([]string, error) {
	if err := f.enter(ctx, "Repair"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	missing := f.missing
	f.missing = nil
	return missing, nil
}
