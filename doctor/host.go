package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is what is asked of a machine. Tests fill it with answers of their own
// and a Root with the files they need.
type Host struct {
	Root string // before every path; empty on a real machine
	UID  int    // who looks

	// Run runs a program and gives its standard output. It is bounded in time.
	Run func(ctx context.Context, path string, args ...string) (string, error)
	// Statfs describes the file system that a path is on.
	Statfs func(path string) (Filesystem, error)
	// Sync measures how long it takes until 4 KiB are on the disk, some times.
	Sync func(dir string) ([]time.Duration, error)
	// Hello asks whether a gRPC server answers on a unix socket.
	Hello func(ctx context.Context, socket string) error
	// Clock tells what the kernel knows of its clock.
	Clock func() (Clock, error)
}

// Filesystem is a mounted file system. Sizes are in bytes, and what is free is
// what anybody may use; Inodes is 0 where there is no limit.
type Filesystem struct {
	Type               string
	Size, Free         uint64
	Inodes, FreeInodes uint64
}

// Clock is the kernel's view of its clock.
type Clock struct {
	Synchronised bool
	MaxError     time.Duration // as the kernel estimates it
}

// ThisHost is the machine that this process runs on.
func ThisHost() Host {
	return Host{UID: os.Getuid(), Run: runProgram, Statfs: statfs, Sync: syncTimes, Hello: hello, Clock: clock}
}

func (h Host) path(name string) string { return h.Root + name }

// read gives a file as text without space around it, and "" for one that can't
// be read.
func (h Host) read(name string) string {
	text, err := os.ReadFile(h.path(name)) // #nosec G304 -- files of this host
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (h Host) exists(name string) bool {
	_, err := os.Stat(h.path(name))
	return err == nil
}

// glob gives the paths that match, without the root.
func (h Host) glob(pattern string) []string {
	names, _ := filepath.Glob(h.path(pattern)) // the patterns are constants
	for i := range names {
		names[i] = strings.TrimPrefix(names[i], h.Root)
	}
	return names
}

// programDirs are where programs are sought after PATH, which has no sbin for
// many users.
var programDirs = []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}

// find gives a program's path, "" when the host doesn't have it.
func (h Host) find(name string) string {
	dirs := programDirs
	if h.Root == "" {
		dirs = append(filepath.SplitList(os.Getenv("PATH")), dirs...)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(h.path(path)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// nearest is the path, or its nearest parent that exists.
func (h Host) nearest(path string) string {
	for !h.exists(path) && path != filepath.Dir(path) {
		path = filepath.Dir(path)
	}
	return path
}

// patience bounds each question to the host: one that hangs is an answer too.
const patience = 10 * time.Second

func runProgram(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...) // #nosec G204 -- programs of this host
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	output, err := cmd.Output()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s doesn't end", path)
	}
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) && len(failed.Stderr) > 0 {
		return "", fmt.Errorf("%s: %s", path, strings.Join(strings.Fields(string(failed.Stderr)), " "))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	return strings.TrimSpace(string(output)), nil
}

// fsNames are the kernel's names by the magic number (linux/magic.h and the
// sources of the file systems); of others the number is shown.
var fsNames = map[int64]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", 0x2fc12fc1: "zfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.RAMFS_MAGIC: "ramfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.NFS_SUPER_MAGIC: "nfs", unix.CIFS_SUPER_MAGIC: "cifs", unix.SMB2_SUPER_MAGIC: "smb2", unix.CEPH_SUPER_MAGIC: "ceph",
	unix.V9FS_MAGIC: "9p", unix.AFS_SUPER_MAGIC: "afs", unix.FUSE_SUPER_MAGIC: "fuse", 0x0bd00bd0: "lustre", 0x47504653: "gpfs",
}

func statfs(path string) (Filesystem, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Filesystem{}, fmt.Errorf("statfs %s: %w", path, err)
	}
	magic := int64(s.Type)
	name, ok := fsNames[magic&0xffffffff]
	if !ok {
		name = fmt.Sprintf("type %#x", magic&0xffffffff)
	}
	block := uint64(s.Frsize) // #nosec G115 -- a size
	return Filesystem{Type: name, Size: s.Blocks * block, Free: s.Bavail * block, Inodes: s.Files, FreeInodes: s.Ffree}, nil
}

// syncs is how often a disk is measured: enough for a median.
const syncs = 10

func syncTimes(dir string) (took []time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".berth-doctor-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}()
	block := make([]byte, 4096)
	for range syncs {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	return took, nil
}

// hello begins HTTP/2, which gRPC speaks: a server that lives answers with its
// settings (RFC 9113 §3.4). That a connection is taken says nothing, for the
// kernel does that for a process that hangs too.
func hello(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	emptySettings := []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	if _, err := conn.Write(slices.Concat([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), emptySettings)); err != nil {
		return err
	}
	frame := make([]byte, len(emptySettings))
	for n := 0; n < len(frame); {
		more, err := conn.Read(frame[n:])
		if err != nil {
			return fmt.Errorf("it takes connections, but doesn't answer: %w", err)
		}
		n += more
	}
	if frame[3] != emptySettings[3] {
		return errors.New("what answers doesn't speak gRPC")
	}
	return nil
}

func clock() (Clock, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	if err != nil {
		return Clock{}, fmt.Errorf("adjtimex: %w", err)
	}
	return Clock{
		Synchronised: state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0,
		MaxError:     time.Duration(t.Maxerror) * time.Microsecond,
	}, nil
}
