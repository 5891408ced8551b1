package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sys/unix"

	"berth/gpu"
	"berth/workspace"
)

// makes creates an instance of a built-in template that runs the tests' image,
// and waits until it runs.
func (d *daemon) makes(name, template string, more ...string) string {
	d.t.Helper()
	return d.does(append([]string{"instance", "create", name, "--template", template, "--var", "image=" + imageName,
		"--cpus", "0.5", "--memory", "128MiB", "--storage", "64MiB", "--wait"}, more...)...)
}

// What goes in and out of a container by the command line of a user.
func TestInAndOut(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.makes("box", "shell", "--gpus", "1")
	for name, test := range map[string]func(*testing.T, *daemon){
		"exec":         checkExec,
		"terminal":     checkTerminal,
		"port-forward": checkForward,
		"cp":           checkCopy,
		"readings":     checkReadings,
		"job":          checkJob,
		"ssh":          checkSSH,
	} {
		t.Run(name, func(t *testing.T) {
			here := *d
			here.t = t
			test(t, &here)
		})
	}
}

func checkExec(t *testing.T, d *daemon) {
	r := d.types("", "exec", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
	if r != (result{7, "out\n", "err\n"}) {
		t.Errorf("exec: %+v", r)
	}
	big := strings.Repeat("0123456789abcde\n", 1<<16)
	if r := d.types(big, "exec", "-i", "box", "--", "cat"); r.code != 0 || r.stdout != big {
		t.Errorf("a pipe of %d bytes gave %d, exit code %d: %s", len(big), len(r.stdout), r.code, r.stderr)
	}
	equal(t, "a variable and a directory", d.does("exec", "-e", "COLOUR=red", "--dir", "/etc", "box", "--", "sh", "-c", "echo $COLOUR; pwd"), "red\n/etc\n")
	r = d.types("", "exec", "box", "--", "no-such-program")
	says(t, r.stderr, "no-such-program")
	equal(t, "the exit code of a program that isn't there", r.code, 2)
	equal(t, "exec into nothing", d.types("", "exec", "nobody", "--", "true").code, 3)
}

// terminal is a pseudo-terminal: what a user sees and types, and what the program
// has.
func terminal(t *testing.T) (user, program *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	user = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { user.Close() })
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 33, Col: 111})
	}
	if err == nil {
		program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return user, program
}

func checkTerminal(t *testing.T, d *daemon) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	user, program := terminal(t)
	cmd := d.command(ctx, "exec", "-it", "box", "sh")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	program.Close()
	screen := bufio.NewReader(user)
	// A ^C that is typed goes to the program inside: it doesn't end berth.
	for _, step := range []struct{ typed, shown string }{
		{"stty size\n", "33 111"},
		{"sh -c 'echo wait$((1)); sleep 600'\n", "wait1"},
		{"\x03", "^C"},
		{"echo code $?\n", "code 130"},
	} {
		if _, err := io.WriteString(user, step.typed); err != nil {
			t.Fatal(err)
		}
		expect(t, screen, step.shown)
	}
	if _, err := io.WriteString(user, "exit 5\n"); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, screen) }() // ends with the terminal
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("it ended with %s", cmd.ProcessState)
	}
}

// expect reads a screen until a text is on it.
func expect(t *testing.T, screen *bufio.Reader, text string) {
	t.Helper()
	var seen strings.Builder
	for !strings.Contains(seen.String(), text) {
		b, err := screen.ReadByte()
		if err != nil {
			t.Fatalf("the screen ended (%v) before it showed %q:\n%s", err, text, seen.String())
		}
		seen.WriteByte(b)
	}
}

// A server that only the container itself can reach is reached through berth.
func checkForward(t *testing.T, d *daemon) {
	d.does("exec", "box", "--", "sh", "-c", "mkdir -p /tmp/www; echo hello from inside >/tmp/www/index.html; httpd -p 127.0.0.1:8099 -h /tmp/www")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := d.command(ctx, "port-forward", "box", "0:8099")
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	if address == "" {
		t.Fatalf("port-forward says %q (%v)", line, err)
	}
	for range 3 { // a connection each
		conn, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /index.html HTTP/1.0\r\n\r\n"); err != nil {
			t.Error(err)
		}
		answer, err := io.ReadAll(conn)
		conn.Close()
		if err != nil || !strings.Contains(string(answer), "hello from inside") {
			t.Errorf("it answers %q (%v)", answer, err)
		}
	}
	cancel()
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 0 {
		t.Errorf("after ^C it ended with %s", cmd.ProcessState)
	}
}

// A directory goes in and comes back the same.
func checkCopy(t *testing.T, d *daemon) {
	from, to := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "back")
	if err := os.MkdirAll(filepath.Join(from, "deep/er"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, content := range map[string]string{"a.txt": "alpha", "deep/er/b.bin": strings.Repeat("\x00\xff", 1<<19), "deep/run.sh": "#!/bin/sh\n"} {
		if err := os.WriteFile(filepath.Join(from, path), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(from, "deep/run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("a.txt", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	d.does("cp", from, "box:/workspace/")
	equal(t, "a file inside", d.does("exec", "box", "--", "cat", "/workspace/data/link"), "alpha")
	d.does("cp", "box:/workspace/data", to)
	if out, err := exec.Command("diff", "-r", "--no-dereference", from, to).CombinedOutput(); err != nil {
		t.Errorf("what came back differs: %v\n%s", err, out)
	}
	if stat, err := os.Stat(filepath.Join(to, "deep/run.sh")); err != nil || stat.Mode().Perm() != 0o755 {
		t.Errorf("the program's mode: %v %v", stat, err)
	}
	r := d.types("", "cp", "box:/workspace/none", to)
	says(t, r.stderr, "/workspace/none")
	if r.code == 0 {
		t.Error("a file that isn't there was copied")
	}
}

// A GPU that is held measures something.
func checkReadings(t *testing.T, d *daemon) {
	var uuid string
	for _, dev := range reads[[]gpu.Device](d, "device", "ls") {
		if dev.State == gpu.Held {
			uuid = dev.UUID
		}
	}
	d.eventually("its GPU is read", func(context.Context) error {
		said := d.does("device", "get", uuid)
		for _, want := range []string{"Measured", "temperature", "power", "utilization", "box"} {
			if !strings.Contains(said, want) {
				return fmt.Errorf("no %q in:\n%s", want, said)
			}
		}
		return nil
	})
}

func checkJob(t *testing.T, d *daemon) {
	create := func(name, command string) {
		d.does("instance", "create", name, "--template", "job", "--var", "image="+imageName, "--var", "command="+command,
			"--cpus", "0.5", "--memory", "128MiB", "--storage", "64MiB")
	}
	create("counts", "for i in 1 2 3; do echo step $i; sleep 0.2; done; echo done >/workspace/result")
	followed := d.does("logs", "-f", "counts")
	equal(t, "what it wrote, followed", followed, "step 1\nstep 2\nstep 3\n")
	inst := d.ends("counts")
	equal(t, "how it ended", inst.Status, workspace.StatusStopped)
	equal(t, "its phase", reads[workspace.Run](d, "run", "get", inst.Run).Phase, workspace.PhaseSucceeded)
	equal(t, "its last line, after its end", d.does("logs", "--tail", "1", "counts"), "step 3\n")
	create("breaks", "echo oh no >&2; exit 9")
	inst = d.ends("breaks")
	equal(t, "a broken job", inst.Status, workspace.StatusFailed)
	says(t, inst.Message, "9")
	equal(t, "its output", d.does("logs", "breaks"), "oh no\n")
	d.does("instance", "rm", "counts", "breaks", "--yes", "--wait")
}

// ends waits until an instance's run is over.
func (d *daemon) ends(name string) (inst workspace.Instance) {
	d.t.Helper()
	d.eventually(name+" ends", func(context.Context) error {
		inst = reads[workspace.Instance](d, "instance", "get", name)
		if inst.Status == workspace.StatusPending || inst.Status == workspace.StatusRunning {
			return fmt.Errorf("it is %s: %s", inst.Status, inst.Message)
		}
		return nil
	})
	return inst
}

// A dev box behind a published port, used with the clients that everybody has.
func checkSSH(t *testing.T, d *daemon) {
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	d.makes("dev", "ssh-dev", "--var", "public_key="+strings.TrimSpace(string(public)))
	way := reads[workspace.Access](d, "instance", "access", "dev").Ways[0]
	says(t, way.Command, "ssh", strconv.Itoa(way.Port), way.Host)
	run := func(program string, args ...string) (string, int) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		port := "-p"
		if program != "ssh" {
			port = "-P"
		}
		cmd := exec.CommandContext(ctx, program, append([]string{"-F", "none", "-i", key, port, strconv.Itoa(way.Port), "-o", "BatchMode=yes",
			"-o", "StrictHostKeyChecking=accept-new", "-o", "UserKnownHostsFile=" + key + ".known", "-o", "LogLevel=ERROR"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	at := "root@" + way.Host
	out, code := run("ssh", at, "echo $HOME; id -u; exit 7")
	if code != 7 || out != "/workspace\n0\n" {
		t.Errorf("ssh: exit code %d, %q", code, out)
	}
	file := filepath.Join(t.TempDir(), "sent")
	if err := os.WriteFile(file, bytes.Repeat([]byte("data"), 1<<18), 0o640); err != nil {
		t.Fatal(err)
	}
	if out, code := run("scp", file, at+":/workspace/sent"); code != 0 {
		t.Errorf("scp: exit code %d, %q", code, out)
	}
	if out, code := run("sftp", "-q", at+":/workspace/sent", file+".back"); code != 0 {
		t.Errorf("sftp: exit code %d, %q", code, out)
	}
	if out, err := exec.Command("cmp", file, file+".back").CombinedOutput(); err != nil {
		t.Errorf("what came back differs: %v %s", err, out)
	}
	// The host's key and the files are on the volume.
	d.does("instance", "stop", "dev", "--wait")
	d.does("instance", "start", "dev", "--wait")
	if out, code := run("ssh", at, "wc -c <sent"); code != 0 || strings.TrimSpace(out) != strconv.Itoa(4<<18) {
		t.Errorf("after stop and start: exit code %d, %q", code, out)
	}
	key += ".other" // a stranger's
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	if _, code := run("ssh", "-o", "StrictHostKeyChecking=no", at, "true"); code != 255 {
		t.Errorf("a stranger's key: exit code %d", code)
	}
	d.does("instance", "rm", "dev", "--yes", "--wait")
}

// An image comes from a registry with a login, and its progress is told.
func TestPullFromRegistry(t *testing.T) {
	l := newLab(t)
	l.slow.Store(true)
	// A layer that no other test has brought to this containerd.
	more, err := random.Layer(2<<20, types.OCILayer)
	if err != nil {
		t.Fatal(err)
	}
	reference, digest := l.push("lab/demo", "v1", demo(t, "amd64", more))
	d := newDaemon(t)
	d.args = []string{"--config", l.config(d)}
	d.up()
	r := d.types("", "image", "pull", reference)
	says(t, r.stderr, l.host, "berth registry login "+l.host)
	equal(t, "the exit code of a pull without a login", r.code, 4)
	r = d.types(labPassword, "registry", "login", l.host, "--username", "ada", "--password-stdin")
	equal(t, "the exit code of the login", r.code, 0)
	r = d.types("", "image", "pull", reference)
	says(t, r.stderr, reference+" ", " %, ", "of 2 layers")
	says(t, r.stdout, "pulled", digest)
	says(t, d.does("image", "ls"), reference)
	// What isn't there beforehand is fetched by the start.
	second, _ := l.push("lab/demo", "v2", demo(t, "amd64", nil))
	d.does("instance", "create", "box", "--template", "shell", "--var", "image="+second, "--cpus", "0.5", "--memory", "128MiB", "--storage", "64MiB", "--wait")
	equal(t, "a process in it", d.does("exec", "box", "--", "echo", "hello"), "hello\n")
	r = d.types("", "image", "pull", l.host+"/lab/none:v1")
	says(t, r.stderr, "lab/none:v1")
	equal(t, "the exit code of a pull of nothing", r.code, 3)
}
