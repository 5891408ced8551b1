package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"berth/runtime"
)

// The tests run in a network and mount namespace of their own, which plays the
// host: the machine's real firewall is never touched. A second namespace, behind
// the host's uplink, plays the Internet and all other hosts.
const (
	inNamespace = "BERTH_NETWORK_TEST_DIR" // set there, to a directory for the mounts

	uplinkAddress = "198.51.100.1" // of the host
	internet      = "198.51.100.2"
	metadata      = "169.254.169.254"
	deniedServer  = "192.0.2.9" // in a network that the configuration denies
	patience      = 10 * time.Second
	quick         = time.Second // for what must not be reached
)

var world string // path of the other namespace

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir := os.Getenv(inNamespace)
	if dir == "" {
		return again()
	}
	if err := makeWorld(dir); err != nil {
		fmt.Fprintln(os.Stderr, "make the namespaces of the tests:", err)
		return 1
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// again runs this program in namespaces of its own.
func again() int {
	dir, err := os.MkdirTemp("", "berth-network-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inNamespace+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "these tests need root:", err)
		return 1
	}
	return 0
}

func makeWorld(dir string) error {
	world = filepath.Join(dir, "world")
	// A tmpfs of this mount namespace, which is gone with it.
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := setLoopbackUp(); err != nil {
		return err
	}
	// Its loopback stays down, so that it may try to send to 127.0.0.1 elsewhere.
	if err := makeNetNS(world, func() error { return nil }); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"ip", "link", "add", "up0", "mtu", "1400", "type", "veth", "peer", "name", "world0"},
		{"ip", "addr", "add", uplinkAddress + "/24", "dev", "up0"},
		{"ip", "link", "set", "up0", "up"},
	} {
		if err := command(args...); err != nil {
			return err
		}
	}
	peer, err := netlink.LinkByName("world0")
	if err != nil {
		return err
	}
	ns, err := os.Open(world)
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := netlink.LinkSetNsFd(peer, int(ns.Fd())); err != nil {
		return err
	}
	err = inNetNS(world, func() error {
		for _, args := range [][]string{
			{"ip", "addr", "add", internet + "/24", "dev", "world0"},
			{"ip", "addr", "add", metadata + "/32", "dev", "world0"},
			{"ip", "addr", "add", deniedServer + "/32", "dev", "world0"},
			{"ip", "link", "set", "world0", "up"},
		} {
			if err := command(args...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	// Frames between ports of the bridge pass no rules, as on most hosts.
	if _, err := setSysctl("net/bridge/bridge-nf-call-iptables", "0"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// Refusals come at once, however many there are.
	if _, err := setSysctl("net/ipv4/icmp_ratelimit", "0"); err != nil {
		return err
	}
	return command("ip", "route", "add", "default", "via", internet)
}

// command runs in the namespace of the calling thread.
func command(args ...string) error {
	output, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, output)
	}
	return nil
}

func mustRun(t *testing.T, args ...string) {
	t.Helper()
	if err := command(args...); err != nil {
		t.Fatal(err)
	}
}

// newNetworks makes networks that are gone, with all rules, when the test ends.
func newNetworks(t testing.TB, change func(*Config)) *Networks {
	t.Helper()
	base := t.TempDir()
	cfg := Config{
		Dir: filepath.Join(base, "state"), RunDir: filepath.Join(base, "run"),
		Bridge: "btest0", Subnet: "10.89.0.0/24", Deny: []string{"192.0.2.0/24"}, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Clear(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return n
}

// attach makes an attachment and a server in it on port 80, on all addresses.
func attach(t *testing.T, n *Networks, id string, ports ...runtime.PublishedPort) runtime.Attachment {
	t.Helper()
	a, err := n.Attach(t.Context(), runtime.NetworkSpec{ID: id, Hostname: id, Ports: ports})
	if err != nil {
		t.Fatal(err)
	}
	serve(t, a.NetNS, "0.0.0.0:80", id)
	return a
}

// serve answers each connection with a word and closes it. An empty namespace is
// the host's.
func serve(t *testing.T, ns, address, word string) {
	t.Helper()
	var listener net.Listener
	listen := func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	}
	if err := within(ns, listen); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, word)
			conn.Close()
		}
	}()
	t.Cleanup(func() {
		listener.Close()
		<-done
	})
}

func within(ns string, do func() error) error {
	if ns == "" {
		return do()
	}
	return inNetNS(ns, do)
}

// ask connects from a namespace and gives the word.
func ask(ns, address string, wait time.Duration) (word string, err error) {
	err = within(ns, func() error {
		conn, err := net.DialTimeout("tcp", address, wait)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		raw, err := io.ReadAll(conn)
		word = string(raw)
		return err
	})
	return word, err
}

func reaches(t *testing.T, ns, address, word string) {
	t.Helper()
	if got, err := ask(ns, address, patience); got != word || err != nil {
		t.Errorf("%s gives %q, %v; want %q", address, got, err, word)
	}
}

// eventually waits until the host reaches an address.
func eventually(t *testing.T, address string) {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); ; {
		_, err := ask("", address, quick)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the host doesn't reach %s: %v", address, err)
		}
	}
}

func denied(t *testing.T, ns, address string) {
	t.Helper()
	if got, err := ask(ns, address, quick); err == nil {
		t.Errorf("%s is reached and says %q", address, got)
	}
}

// refused is denied at once, not by waiting in vain.
func refused(t *testing.T, ns, address string) {
	t.Helper()
	if got, err := ask(ns, address, patience); !errors.Is(err, unix.EHOSTUNREACH) {
		t.Errorf("%s gives %q, %v; want %v", address, got, err, unix.EHOSTUNREACH)
	}
}

func local(hostPort, container int) runtime.PublishedPort {
	return runtime.PublishedPort{HostIP: "127.0.0.1", HostPort: hostPort, Container: container}
}

func at(address string, port int) string { return net.JoinHostPort(address, strconv.Itoa(port)) }

// leftovers counts what attachments leave: interfaces, mounts, files, elements of
// the rules.
func leftovers(t testing.TB, n *Networks) []string {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, link := range links {
		if strings.HasPrefix(link.Attrs().Name, "berth") {
			left = append(left, "interface "+link.Attrs().Name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.HasPrefix(fields[4], n.runDir) {
			left = append(left, "mount "+fields[4])
		}
	}
	for _, dir := range []string{n.dir, filepath.Join(n.runDir, "netns")} {
		entries, _ := os.ReadDir(dir)
		for _, entry := range entries {
			left = append(left, "file "+entry.Name())
		}
	}
	if bridge, err := findLink(n.bridge); err == nil && bridge != nil {
		neighbours, err := netlink.NeighList(bridge.Attrs().Index, netlink.FAMILY_V4)
		if err != nil {
			t.Fatal(err)
		}
		for _, neighbour := range neighbours {
			if !neighbour.IP.IsMulticast() {
				left = append(left, "neighbour "+neighbour.IP.String())
			}
		}
	}
	for line := range strings.Lines(n.firewall.list(context.Background())) {
		if strings.Contains(line, " : ") && !strings.Contains(line, "type ipv4") && !strings.Contains(line, "type inet") { // an element of a map
			left = append(left, "rule "+strings.TrimSpace(line))
		}
	}
	slices.Sort(left)
	return left
}
