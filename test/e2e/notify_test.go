package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// systemd is what the daemon tells its service manager.
type systemd struct {
	t    *testing.T
	conn *net.UnixConn
}

func newSystemd(t *testing.T, dir string) *systemd {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &systemd{t, conn}
}

func (s *systemd) env() string { return "NOTIFY_SOCKET=" + s.conn.LocalAddr().String() }

// hears waits for a message.
func (s *systemd) hears(want string) {
	s.t.Helper()
	buf := make([]byte, 256)
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			s.t.Fatalf("%s wasn't said: %v", want, err)
		}
		if strings.Contains(string(buf[:n]), want) {
			return
		}
	}
}

func TestServiceManagerIsTold(t *testing.T) {
	d := newDaemon(t)
	manager := newSystemd(t, d.dir)
	d.start(manager.env(), "WATCHDOG_USEC=300000")
	manager.hears("READY=1")
	manager.hears("WATCHDOG=1")
	manager.hears("WATCHDOG=1")
	d.ready()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	manager.hears("STOPPING=1")
	d.wait()
	if !d.cmd.ProcessState.Success() {
		t.Errorf("SIGTERM ended it with %v", d.cmd.ProcessState)
	}
}

// systemd hands over the control socket; it stays systemd's.
func TestSocketActivation(t *testing.T) {
	d := newDaemon(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	handed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer handed.Close()
	// The pid must be the daemon's own: a shell knows it, and becomes the daemon.
	d.wrap = func(cmd *exec.Cmd) {
		cmd.Args = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, cmd.Args...)
		cmd.Path = "/bin/sh"
		cmd.Env = append(cmd.Env, "LISTEN_FDS=1")
		cmd.ExtraFiles = []*os.File{handed}
	}
	d.args = []string{"--socket", filepath.Join(d.dir, "unused.sock")}
	d.up()
	if _, err := os.Stat(filepath.Join(d.dir, "unused.sock")); err == nil {
		t.Error("it made a socket of its own")
	}
	d.signal(syscall.SIGTERM)
	if _, err := os.Stat(d.socket()); err != nil {
		t.Errorf("the socket that systemd owns is gone: %v", err)
	}
	d.up() // the next one is handed the same
}

func TestPublicEndpoints(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	d := newDaemon(t, "--http-listen", address)
	d.up()
	for path, want := range map[string]string{
		"/livez": "alive", "/readyz": "ready", "/version": "version", "/metrics": `berth_device_state{`,
	} {
		status, body := get(t, "http://"+address+path)
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, body := get(t, "http://"+address+"/berth/v1/workspaces"); status != http.StatusNotFound {
		t.Errorf("the API is open on %s without a key: %d %s", address, status, body)
	}
	_, body := get(t, "http://"+address+"/metrics")
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(body)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url) //nolint:gosec // a test's own address
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// Who is neither root nor in group berth is refused, and told how to get in.
func TestStrangersAreRefused(t *testing.T) {
	d := newDaemon(t)
	d.up()
	berth := func() (string, error) {
		cmd := exec.Command(filepath.Join(d.dir, "berth"), "status", "--socket", d.socket())
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	open(t, d)
	out, err := berth()
	if code := exitCode(err); code != 6 && code != 4 {
		t.Errorf("with the socket closed to it: exit %d: %s", code, out)
	}
	says(t, out, "join its group", "usermod -aG berth")
	// Even where the file's mode lets it through.
	if err := os.Chmod(d.socket(), 0o666); err != nil {
		t.Fatal(err)
	}
	out, err = berth()
	if exitCode(err) != 4 {
		t.Errorf("with the socket open to it: %v: %s", err, out)
	}
	says(t, out, "nobody", "group berth", "usermod")
}

// Members of group berth come through the socket's directory and its mode. The
// group is in an /etc/group that only the daemon sees.
func TestGroupIsLetIn(t *testing.T) {
	const gid = 54321
	d := newDaemon(t)
	groups, err := os.ReadFile("/etc/group")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.dir, "group")
	if err := os.WriteFile(file, fmt.Appendf(groups, "berth:x:%d:\n", gid), 0o644); err != nil {
		t.Fatal(err)
	}
	d.wrap = func(cmd *exec.Cmd) {
		script := `mount --bind "$GROUPFILE" /etc/group && exec "$0" "$@"`
		cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", script}, cmd.Args...)
		cmd.Path = "/usr/bin/unshare"
		cmd.Env = append(cmd.Env, "GROUPFILE="+file)
	}
	d.at = filepath.Join(d.dir, "run", "berth.sock") // in a directory that the daemon makes
	d.up()
	open(t, d)
	cmd := exec.Command(filepath.Join(d.dir, "berth"), "status", "--socket", d.socket())
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{gid}}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("a member of the group: %v: %s", err, out)
	}
}

// open lets others reach the socket's directory, and a client in it.
func open(t *testing.T, d *daemon) {
	t.Helper()
	for _, dir := range []string{host.dir, d.dir} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(host.bin, "berth"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "berth"), raw, 0o755); err != nil {
		t.Fatal(err)
	}
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}
