package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server is the work of a guard's process. Dir and Socket must be set; the rest
// may stay zero.
type Server struct {
	Dir    string // of its own: the deadlines, the lock. On a tmpfs, so that a deadline doesn't wait for a disk
	Socket string // unix socket, for root alone
	Log    *slog.Logger

	Protection Protection // what it says of itself; see Protect
	Ready      func()     // is called when it is in force and answers

	// BootID and Now are this boot and its clock (CLOCK_BOOTTIME, ms). Unset:
	// the host's.
	BootID string
	Now    func() int64

	processes processes // nil: the host's
	since     int64
	book      *book
}

const (
	maxConns = 64
	// lineWait is how long a connection may be silent, or take for one line.
	lineWait = 10 * time.Second
)

// Run reads what is stored, ends what is overdue, and serves until ctx ends. It
// gives ErrTaken when another guard has the directory. Deadlines are not in force
// after it has returned, but stay on the disk for the next guard.
func (s *Server) Run(ctx context.Context) error {
	if err := s.fill(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(s.Dir, 0o700); err != nil { // #nosec G302 -- a directory
		return err
	}
	unlock, err := lock(s.Dir)
	if err != nil {
		return err
	}
	defer unlock()
	store, err := openStore(s.Dir)
	if err != nil {
		return err
	}
	s.book = &book{bootID: s.BootID, now: s.Now, store: store, host: s.processes, log: s.Log}
	// The end of the watches comes after the end of the connections.
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	if err := s.book.open(watching); err != nil {
		stop()
		return err
	}
	defer s.book.wait()
	defer stop()
	listener, err := listen(s.Socket)
	if err != nil {
		return err
	}
	return s.serve(ctx, listener)
}

func (s *Server) fill() (err error) {
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	if s.Now == nil {
		s.Now = bootClock
	}
	if s.processes == nil {
		s.processes = thisHost()
	}
	if s.BootID == "" {
		if s.BootID, err = hostBootID(); err != nil {
			return err
		}
	}
	s.since = s.Now()
	return nil
}

func bootClock() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err) // the clock has been there since Linux 2.6.39
	}
	return ts.Nano() / int64(time.Millisecond)
}

func hostBootID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("boot id: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// lock keeps a second guard out of the directory. The kernel lets go of it when
// the process ends, however it ends.
func lock(dir string) (unlock func(), err error) {
	file, err := os.OpenFile(lockFile(dir), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = file.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%w: %s", ErrTaken, dir)
		}
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	// For those who find that it doesn't answer.
	if err := errors.Join(file.Truncate(0), second(file.WriteString(strconv.Itoa(os.Getpid())))); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return func() { _ = file.Close() }, nil
}

func second(_ int, err error) error { return err }

// HolderOf is the process of the guard that has a directory; 0: none has, or it
// isn't known.
func HolderOf(dir string) int {
	file, err := os.Open(lockFile(dir))
	if err != nil {
		return 0
	}
	defer file.Close()
	if unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return 0
	}
	text, _ := io.ReadAll(io.LimitReader(file, 20))
	pid, _ := strconv.Atoi(string(text))
	return pid
}

func lockFile(dir string) string { return filepath.Join(dir, "lock") }

// maxSocket is what the kernel takes for the path of a unix socket (unix(7)).
const maxSocket = 107

// listen replaces the socket of a guard that is gone: whoever has the lock may.
func listen(socket string) (net.Listener, error) {
	if len(socket) > maxSocket {
		return nil, fmt.Errorf("%w: the socket's path %s has %d characters; the kernel takes %d", ErrInvalid, socket, len(socket), maxSocket)
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(socket); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(socket); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (s *Server) serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel() // before the wait: connections end with it
	free := make(chan struct{}, maxConns)
	s.Log.Info("the guard runs", "pid", os.Getpid(), "dir", s.Dir, "lacks", s.Protection.Lacks)
	if s.Ready != nil {
		s.Ready()
	}
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close()
			}
			return nil
		case err != nil: // no more open files, or the like: what is held goes on
			_ = s.book.failed(fmt.Errorf("accept: %w", err))
			select {
			case <-ctx.Done():
			case <-time.After(lastRetry):
			}
			continue
		}
		select {
		case free <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		conns.Go(func() {
			defer func() { <-free }()
			stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
			defer stop()
			defer conn.Close()
			if s.answerAll(ctx, conn) {
				cancel()
			}
		})
	}
}

// answerAll takes requests until the connection ends, is silent for too long, or
// sends what is no line. It says whether the guard was asked to end, and may.
func (s *Server) answerAll(ctx context.Context, conn net.Conn) (quit bool) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	replies := json.NewEncoder(conn)
	for {
		if conn.SetDeadline(time.Now().Add(lineWait)) != nil || ctx.Err() != nil {
			return false
		}
		if !lines.Scan() {
			if errors.Is(lines.Err(), bufio.ErrTooLong) {
				_ = replies.Encode(refusal(fmt.Errorf("%w: a line of more than %d bytes", ErrInvalid, maxLine)))
			}
			return false
		}
		all, quit := s.answer(lines.Bytes())
		for _, r := range all {
			if replies.Encode(r) != nil {
				return quit
			}
		}
		if quit {
			return true
		}
	}
}

func (s *Server) answer(line []byte) (all []reply, quit bool) {
	r, err := decodeRequest(line)
	if err != nil {
		return []reply{refusal(err)}, false
	}
	switch r.Op {
	case opSet, opStop:
		err = s.book.set(r.Deadline, r.Op == opStop)
	case opClear:
		err = s.book.clear(r.Run)
	case opList:
		return s.list(), false
	case opStatus:
		return []reply{{Status: s.status()}}, false
	case opQuit:
		err = s.book.close()
		quit = err == nil
	}
	if err != nil {
		return []reply{refusal(err)}, false
	}
	return []reply{{}}, quit
}

func (s *Server) list() []reply {
	entries := s.book.list()
	replies := make([]reply, 0, len(entries)+1)
	for i := range entries {
		replies = append(replies, reply{Entry: &entries[i]})
	}
	return append(replies, reply{})
}

func (s *Server) status() *Status {
	status := &Status{
		Pid: os.Getpid(), BootID: s.BootID, Since: s.since, Protection: s.Protection, Damaged: s.book.store.aside(),
	}
	s.book.fill(status)
	return status
}
