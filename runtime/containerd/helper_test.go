package containerd

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

// TestCopies: files go in and out of a container whose image has no tar that we
// could trust, as the image's user.
func TestCopies(t *testing.T) {
	f := newFixture(t, ociarchive.Options{User: "berth"})
	f.start(runtime.Spec{ID: "copies", Image: demo, Args: []string{runtime.HelperPath, "pause"}})
	var archive, stderr bytes.Buffer
	code, err := f.Exec(t.Context(), "copies", words(runtime.HelperPath, "tar-out", "/etc"), runtime.ExecStreams{Stdout: &archive, Stderr: &stderr})
	if err != nil || code != 0 || archive.Len() == 0 {
		t.Fatalf("tar-out: code %d, %v, %q", code, err, stderr.String())
	}
	code, err = f.Exec(t.Context(), "copies", words(runtime.HelperPath, "tar-in", "/tmp"), runtime.ExecStreams{Stdin: &archive, Stderr: &stderr})
	if err != nil || code != 0 {
		t.Fatalf("tar-in: code %d, %v, %q", code, err, stderr.String())
	}
	var out bytes.Buffer
	script := "cmp /etc/passwd /tmp/etc/passwd && stat -c %U /tmp/etc/passwd"
	if code, err := f.Exec(t.Context(), "copies", words("sh", "-c", script), runtime.ExecStreams{Stdout: &out}); err != nil || code != 0 || out.String() != "berth\n" {
		t.Errorf("code %d, %v, %q", code, err, out.String())
	}
	code, err = f.Exec(t.Context(), "copies", words(runtime.HelperPath, "tar-in", "/root"), runtime.ExecStreams{Stdin: bytes.NewReader(demoArchive(t, ociarchive.Options{})), Stderr: &stderr})
	if err != nil || code != 1 || !strings.Contains(stderr.String(), "permission denied") {
		t.Errorf("where its user may not: code %d, %v, %q", code, err, stderr.String())
	}
}

// TestSSHDev is the template ssh-dev: a shell on a terminal, as the image's user.
// The client comes through an exec, as the container has no network.
func TestSSHDev(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	f := newFixture(t, ociarchive.Options{User: "berth"})
	spec := runtime.Spec{
		ID: "sshdev", Image: demo, Args: []string{runtime.HelperPath, "sshd", "--port", "2222", "--dir", "/tmp/.berth-ssh"},
		Env: []string{"BERTH_SSH_KEY=" + string(ssh.MarshalAuthorizedKey(signer.PublicKey())), "FROM_SPEC=yes"}, LogPath: filepath.Join(t.TempDir(), "log"),
	}
	f.start(spec)
	runtimetest.Eventually(t, "it listens", func() bool {
		log, _ := os.ReadFile(spec.LogPath)
		return bytes.Contains(log, []byte("listens on"))
	})
	ours, theirs := net.Pipe()
	bridged := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(bridged)
		_, _ = f.Exec(ctx, "sshdev", words("nc", "127.0.0.1", "2222"), runtime.ExecStreams{Stdin: theirs, Stdout: theirs})
	}()
	defer func() {
		cancel()
		ours.Close()
		theirs.Close()
		<-bridged
	}()
	conn, channels, requests, err := ssh.NewClientConn(ours, "container", &ssh.ClientConfig{
		User: "me", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestPty("xterm", 40, 100, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	output, err := session.Output(`stty size; tty | cut -c1-9; id -un; echo "$FROM_SPEC $HOME $SHELL"`)
	if want := "40 100\r\n/dev/pts/\r\nberth\r\nyes /tmp /bin/sh\r\n"; err != nil || string(output) != want {
		t.Errorf("it wrote %q, %v; want %q", output, err, want)
	}
}
