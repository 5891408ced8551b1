package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

// machine is a bare host in software emulation. Its disk outlives its boots.
type machine struct {
	dir    string // of disk.img, vmlinuz, initrd and the consoles
	signer ssh.Signer
	boots  int
	hung   atomic.Bool // a command had no answer

	qemu   *exec.Cmd
	ended  chan struct{}
	client *ssh.Client
}

const (
	bootPatience = 3 * time.Minute
	stepPatience = 2 * time.Minute
)

// newMachine copies the bare host's disk to dir.
func newMachine(ctx context.Context, base, dir string) (*machine, error) {
	for _, file := range []string{"disk.img", "vmlinuz", "initrd"} {
		out, err := exec.CommandContext(ctx, "cp", "--sparse=always", filepath.Join(base, file), dir).CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("copy %s: %w: %s", file, err, out)
		}
	}
	key, err := os.ReadFile(filepath.Join(base, "key"))
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(key)
	return &machine{dir: dir, signer: signer}, err
}

// boot starts the host and waits until its root can log in.
func (m *machine) boot(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	m.boots++
	in := func(file string) string { return filepath.Join(m.dir, file) }
	// KVM isn't asked for: where it is nested it may hang.
	m.qemu = exec.Command("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2048", "-smp", "2",
		"-display", "none", "-monitor", "none", "-no-reboot", "-kernel", in("vmlinuz"), "-initrd", in("initrd"),
		"-append", "root=/dev/vda rw console=ttyS0 systemd.unified_cgroup_hierarchy=1",
		"-drive", "file="+in("disk.img")+",if=virtio,format=raw,cache=unsafe",
		"-nic", fmt.Sprintf("user,model=virtio-net-pci,restrict=on,hostfwd=tcp:127.0.0.1:%d-:22", port),
		"-serial", fmt.Sprintf("file:%s", in(fmt.Sprintf("console-%d.log", m.boots))))
	var words bytes.Buffer
	m.qemu.Stderr = &words
	if err := m.qemu.Start(); err != nil {
		return fmt.Errorf("start qemu: %w", err)
	}
	m.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(m.qemu, m.ended)
	ctx, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	for {
		if m.client, err = m.dial(ctx, port); err == nil {
			return nil
		}
		select {
		case <-m.ended:
			return fmt.Errorf("qemu ended: %s", words.String())
		case <-ctx.Done():
			return fmt.Errorf("it didn't come up within %s: %w", bootPatience, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func (m *machine) dial(ctx context.Context, port int) (*ssh.Client, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c, channels, requests, err := ssh.NewClientConn(conn, "vm", &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(m.signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), // it is our own
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.SetDeadline(time.Time{})
	return ssh.NewClient(c, channels, requests), nil
}

// sh runs a script on the host and gives what it wrote. Its error has that too.
func (m *machine) sh(ctx context.Context, script string, args ...any) (string, error) {
	return m.shIn(ctx, nil, script, args...)
}

func (m *machine) shIn(ctx context.Context, input io.Reader, script string, args ...any) (string, error) {
	script = fmt.Sprintf(script, args...)
	// A host that hangs answers nothing, not even that there will be no session.
	defer time.AfterFunc(stepPatience, m.hangUp(m.client)).Stop()
	session, err := m.client.NewSession()
	if err != nil {
		return "", fmt.Errorf("log in: %w", err)
	}
	defer func() { _ = session.Close() }()
	defer context.AfterFunc(ctx, func() { _ = session.Close() })()
	session.Stdin = input
	out, err := session.CombinedOutput("exec bash --norc -euo pipefail -c " + quote(script))
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s: %w\n%s", script, errors.Join(err, ctx.Err()), text)
	}
	return text, nil
}

// hangUp gives up a host that doesn't answer.
func (m *machine) hangUp(client *ssh.Client) func() {
	return func() {
		m.hung.Store(true)
		_ = client.Close()
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// put writes a file of this machine to the host.
func (m *machine) put(ctx context.Context, from, to string) error {
	file, err := os.Open(from)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = m.shIn(ctx, file, "cat > %s", to)
	return err
}

// off waits until the host has switched itself off, or has ended for a reboot.
func (m *machine) off(ctx context.Context) error {
	defer m.forget()
	select {
	case <-m.ended:
		return nil
	case <-time.After(bootPatience):
		m.cut()
		return fmt.Errorf("it wasn't off after %s", bootPatience)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cut takes the power away.
func (m *machine) cut() {
	if m.qemu == nil {
		return
	}
	_ = m.qemu.Process.Kill()
	<-m.ended
	m.forget()
}

func (m *machine) forget() {
	if m.client != nil {
		_ = m.client.Close()
	}
	m.client, m.qemu = nil, nil
}
