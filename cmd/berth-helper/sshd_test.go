package main

import (
	"bufio"
	"bytes"
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	return signer
}

func authorized(keys ...ssh.Signer) string {
	var lines []string
	for _, key := range keys {
		lines = append(lines, string(ssh.MarshalAuthorizedKey(key.PublicKey())))
	}
	return strings.Join(lines, "\n# a comment\n")
}

// sshd is a running server.
type sshd struct {
	cmd               *exec.Cmd
	address, hostname string
	home              string
}

var listens = regexp.MustCompile(`listens on .*:(\d+), its host key is (\S+)`)

func startSSHD(t *testing.T, dir, keys string) *sshd {
	t.Helper()
	s := &sshd{home: t.TempDir()}
	s.cmd = exec.Command(os.Args[0], "sshd", "--port", "0", "--dir", dir)
	s.cmd.Env = helper(t).Env
	s.cmd.Env = append(s.cmd.Env, keyVariable+"="+keys, "HOME="+s.home, "OF_CONTAINER=yes")
	stderr, err := s.cmd.StderrPipe()
	must(t, err, s.cmd.Start())
	line, err := bufio.NewReader(stderr).ReadString('\n')
	found := listens.FindStringSubmatch(line)
	if err != nil || found == nil {
		t.Fatalf("the server says %q, %v", line, err)
	}
	s.address, s.hostname = "127.0.0.1:"+found[1], found[2]
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(unix.SIGTERM)
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return s
}

func (s *sshd) dial(key ssh.Signer) (*ssh.Client, error) {
	return ssh.Dial("tcp", s.address, &ssh.ClientConfig{
		User: "anybody", Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, Timeout: 10 * time.Second,
		HostKeyCallback: func(_ string, _ net.Addr, host ssh.PublicKey) error {
			if got := ssh.FingerprintSHA256(host); got != s.hostname {
				return fmt.Errorf("host key is %s, not %s", got, s.hostname)
			}
			return nil
		},
	})
}

func (s *sshd) login(t *testing.T, key ssh.Signer) *ssh.Client {
	t.Helper()
	client, err := s.dial(key)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

func newSession(t *testing.T, client *ssh.Client) *ssh.Session {
	t.Helper()
	session, err := client.NewSession()
	must(t, err)
	return session
}

// eventually waits for another process.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}

func TestSSHAccess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new/ssh")
	one, two, stranger := newKey(t), newKey(t), newKey(t)
	first := startSSHD(t, dir, authorized(one, two))
	for _, key := range []ssh.Signer{one, two} {
		first.login(t, key)
	}
	if _, err := first.dial(stranger); err == nil {
		t.Error("a stranger got in")
	}
	for name, method := range map[string]ssh.AuthMethod{
		"password": ssh.Password("x"),
		"keyboard": ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil }),
	} {
		config := &ssh.ClientConfig{User: "root", Auth: []ssh.AuthMethod{method}, HostKeyCallback: ssh.InsecureIgnoreHostKey()}
		if _, err := ssh.Dial("tcp", first.address, config); err == nil || !strings.Contains(err.Error(), "unable to authenticate") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, hostKeyName)); err != nil || info.Mode() != 0o600 {
		t.Errorf("the host key is %v, %v", info, err)
	}
	if second := startSSHD(t, dir, authorized(one)); second.hostname != first.hostname {
		t.Errorf("the second start has host key %s, the first had %s", second.hostname, first.hostname)
	}
}

func TestSSHDRefuses(t *testing.T) {
	broken := t.TempDir()
	must(t, os.WriteFile(filepath.Join(broken, hostKeyName), []byte("broken"), 0o600))
	good := authorized(newKey(t))
	for name, test := range map[string]struct {
		keys, port, dir, message string
		code                     int
	}{
		"no key":          {"", "0", t.TempDir(), "no public key", 1},
		"a comment":       {"# none", "0", t.TempDir(), "BERTH_SSH_KEY", 1},
		"no public key":   {"ssh-rsa nonsense", "0", t.TempDir(), "BERTH_SSH_KEY", 1},
		"options":         {`command="ls" ` + good, "0", t.TempDir(), `command="ls"`, 1},
		"a bad port":      {good, "x", t.TempDir(), `"x" is not a port`, 2},
		"broken host key": {good, "0", broken, "remove it", 1},
		"no directory":    {good, "0", "/proc/none", "host key", 1},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := helper(t, "sshd", "--port", test.port, "--dir", test.dir)
			cmd.Env = append(cmd.Env, keyVariable+"="+test.keys)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Run(); cmd.ProcessState.ExitCode() != test.code || !strings.Contains(stderr.String(), test.message) {
				t.Errorf("%v, %q; want code %d and %q", err, stderr.String(), test.code, test.message)
			}
		})
	}
	if content, _ := os.ReadFile(filepath.Join(broken, hostKeyName)); string(content) != "broken" {
		t.Error("the broken key was replaced")
	}
}

func TestSSHCommand(t *testing.T) {
	key := newKey(t)
	server := startSSHD(t, t.TempDir(), authorized(key))
	client := server.login(t, key)

	session := newSession(t, client)
	var stdout, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader("input"), &stdout, &stderr
	must(t, session.Setenv("MINE", "a b"))
	err := session.Run(`echo "$HOME $PWD $OF_CONTAINER $MINE"; cat; echo bad >&2; exit 7`)
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 7 {
		t.Errorf("it ended with %v, want code 7", err)
	}
	if want := server.home + " " + server.home + " yes a b\ninput"; stdout.String() != want || stderr.String() != "bad\n" {
		t.Errorf("stdout %q, stderr %q", stdout.String(), stderr.String())
	}
	err = newSession(t, client).Run("kill -TERM $$")
	if !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("it ended with %v, want TERM", err)
	}
	if err := newSession(t, client).Setenv("BAD-NAME", "x"); err == nil {
		t.Error("a variable of a bad name was taken")
	}
	large := newSession(t, client)
	output, err := large.Output("head -c 20000000 /dev/zero")
	if err != nil || len(output) != 20_000_000 {
		t.Errorf("%d bytes, %v", len(output), err)
	}
	signalled := newSession(t, client)
	reader, err := signalled.StdoutPipe()
	must(t, err, signalled.Start("echo ready; exec sleep 600"))
	_, err = bufio.NewReader(reader).ReadString('\n')
	must(t, err, signalled.Signal(ssh.SIGINT))
	if err := signalled.Wait(); !errors.As(err, &exit) || exit.Signal() != "INT" {
		t.Errorf("it ended with %v, want INT", err)
	}
}

func TestSSHTerminal(t *testing.T) {
	key := newKey(t)
	client := startSSHD(t, t.TempDir(), authorized(key)).login(t, key)
	session := newSession(t, client)
	must(t, session.RequestPty("xterm-256color", 40, 100, ssh.TerminalModes{}))
	stdin, err := session.StdinPipe()
	must(t, err)
	stdout, err := session.StdoutPipe()
	must(t, err, session.Shell())
	screen := bufio.NewReader(stdout)
	expect := func(want string) {
		t.Helper()
		for {
			line, err := screen.ReadString('\n')
			if err != nil {
				t.Fatalf("before %q: %v", want, err)
			}
			if strings.Contains(line, want) {
				return
			}
		}
	}
	fmt.Fprintln(stdin, `stty -echo; PS1=; stty size; echo "$TERM $(tty | cut -c1-9)"`)
	expect("40 100")
	expect("xterm-256color /dev/pts/")
	must(t, session.WindowChange(50, 120))
	fmt.Fprintln(stdin, `until [ "$(stty size)" = "50 120" ]; do sleep 0.02; done; echo "re"sized`)
	expect("resized")
	fmt.Fprintln(stdin, "exit 3")
	var exit *ssh.ExitError
	if err := session.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 3 {
		t.Errorf("it ended with %v, want code 3", err)
	}
}

// TestSSHHangUp: what a session has started ends with its connection, but what is
// told to outlive it doesn't.
func TestSSHHangUp(t *testing.T) {
	key := newKey(t)
	server := startSSHD(t, t.TempDir(), authorized(key))
	for _, terminal := range []bool{false, true} {
		client := server.login(t, key)
		session := newSession(t, client)
		if terminal {
			must(t, session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}))
		}
		stdout, err := session.StdoutPipe()
		must(t, err)
		must(t, session.Start(`sleep 600 & nohup sleep 600 >/dev/null 2>&1 & echo "$$ $!"; sleep 600; true`))
		line, err := bufio.NewReader(stdout).ReadString('\n')
		must(t, err)
		var leader, kept int
		_, err = fmt.Sscanf(line, "%d %d", &leader, &kept)
		must(t, err)
		eventually(t, "the shell has started three, and nohup is done", func() bool {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", kept))
			return len(sessionMembers(leader)) == 4 && bytes.HasPrefix(line, []byte("sleep"))
		})
		client.Close()
		eventually(t, fmt.Sprintf("one is left (terminal: %t)", terminal), func() bool {
			members := sessionMembers(leader)
			return len(members) == 1 && members[0] == kept
		})
		must(t, unix.Kill(kept, unix.SIGKILL))
	}
}

func TestSSHForward(t *testing.T) {
	key := newKey(t)
	client := startSSHD(t, t.TempDir(), authorized(key)).login(t, key)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer listener.Close()
	go func() { // an echo that ends when its input does
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			content, _ := io.ReadAll(conn)
			_, _ = conn.Write(content)
			conn.Close()
		}
	}()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		conn, err := client.Dial("tcp", host+":"+port)
		must(t, err)
		fmt.Fprint(conn, "there and back")
		must(t, conn.(interface{ CloseWrite() error }).CloseWrite())
		if content, err := io.ReadAll(conn); err != nil || string(content) != "there and back" {
			t.Errorf("%s: %q, %v", host, content, err)
		}
		conn.Close()
	}
	for _, target := range []string{"10.0.0.1:80", "169.254.169.254:80", "example.org:80", "0.0.0.0:" + port} {
		if _, err := client.Dial("tcp", target); err == nil || !strings.Contains(err.Error(), "only to localhost") {
			t.Errorf("%s: %v", target, err)
		}
	}
	listener.Close()
	if _, err := client.Dial("tcp", "127.0.0.1:"+port); err == nil {
		t.Error("a port that nobody listens on could be reached")
	}
	if _, err := client.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("the server listens for the client")
	}
}

func TestSFTP(t *testing.T) {
	key := newKey(t)
	server := startSSHD(t, t.TempDir(), authorized(key))
	files, err := sftp.NewClient(server.login(t, key))
	must(t, err)
	defer files.Close()
	content := bytes.Repeat([]byte("0123456789"), 200_000)
	file, err := files.Create("up")
	must(t, err)
	if _, err := file.ReadFrom(bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	must(t, file.Close())
	if got, err := os.ReadFile(filepath.Join(server.home, "up")); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes arrived in HOME, %v", len(got), err)
	}
	file, err = files.Open("up")
	must(t, err)
	got, err := io.ReadAll(file)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes came back, %v", len(got), err)
	}
}

// TestOpenSSH: the usual client.
func TestOpenSSH(t *testing.T) {
	_, err := exec.LookPath("ssh")
	need(t, err == nil, "OpenSSH's client")
	_, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	signer, err := ssh.NewSignerFromKey(private)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	must(t, err)
	file := filepath.Join(t.TempDir(), "key")
	must(t, os.WriteFile(file, pem.EncodeToMemory(block), 0o600))
	server := startSSHD(t, t.TempDir(), authorized(signer))
	_, port, _ := net.SplitHostPort(server.address)
	client := exec.Command("ssh", "-F", "none", "-p", port, "-i", file, "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "me@127.0.0.1", "tar c -C / etc/hostname | tar t; exit 5")
	output, err := client.Output()
	if client.ProcessState.ExitCode() != 5 || string(output) != "etc/hostname\n" {
		t.Errorf("%v, %q", err, output)
	}
}
