package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// controlGroup may use the control socket. On this host it is root.
const controlGroup = "berth"

// listenSocket opens the control socket: the one systemd hands over, or one of
// our own (0660 root:berth, or 0600 root where the group doesn't exist).
func listenSocket(path string, log *slog.Logger) (net.Listener, error) {
	handed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("sockets from systemd: %w", err)
	}
	for _, l := range handed {
		if u, ok := l.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // systemd's, not ours
			return u, nil
		}
	}
	if err := clearStale(path); err != nil {
		return nil, err
	}
	if err := makeSocketDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	// Nobody else may connect between bind and chmod.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	if err := openToGroup(path, log); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// makeSocketDir makes the socket's directory, for the group to come through. One
// that is there is its owner's affair.
func makeSocketDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	if gid, ok := groupID(); ok {
		return os.Chown(dir, 0, gid)
	}
	return nil
}

// clearStale removes a socket that nobody answers on; one that answers is
// another daemon's.
func clearStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return fmt.Errorf("control socket %s: a file that isn't a socket is in its place: move it away, or set --socket", path)
	}
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close()
		return fmt.Errorf("control socket %s: another process answers on it: stop it, or set --socket", path)
	}
	return os.Remove(path)
}

func openToGroup(path string, log *slog.Logger) error {
	gid, ok := groupID()
	if !ok {
		log.Warn("the control socket is for root only: there is no group berth (groupadd --system berth)", "socket", path)
		return nil
	}
	if err := os.Chown(path, 0, gid); err != nil {
		return fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil { // #nosec G302 -- its group is meant to connect
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}

func groupID() (int, bool) {
	g, err := user.LookupGroup(controlGroup)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(g.Gid)
	return gid, err == nil
}

// peer is who is at the other end of the control socket.
type peer struct {
	name    string // login name, or uid:N
	allowed bool   // root, the daemon's own user, or of group berth
}

// peerOf asks the kernel, supplementary groups included.
func peerOf(conn net.Conn) (peer, error) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return peer{}, fmt.Errorf("peer of %T: not a unix socket", conn)
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return peer{}, fmt.Errorf("peer: %w", err)
	}
	var cred *unix.Ucred
	var groups []uint32
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		if cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); credErr == nil {
			groups = peerGroups(int(fd))
		}
	}); err != nil {
		return peer{}, fmt.Errorf("peer: %w", err)
	}
	if credErr != nil {
		return peer{}, fmt.Errorf("peer: %w", credErr)
	}
	gid, exists := groupID()
	inGroup := exists && (int(cred.Gid) == gid || slices.Contains(groups, uint32(gid))) // #nosec G115 -- a gid
	return peer{
		name:    loginName(cred.Uid),
		allowed: cred.Uid == 0 || int(cred.Uid) == os.Getuid() || inGroup,
	}, nil
}

func loginName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid:" + id
}
