package nvml

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// garbage is how much of it the child keeps, in percent of what it needs: it
// makes little, and there is one on every host.
const garbage = 50

// ChildMain is the process that a Driver starts: it answers on stdout what is
// asked on stdin until that ends. It is the only one that loads the driver's
// library, which may hang or end it at any time.
func ChildMain(stdin, stdout *os.File) error {
	debug.SetGCPercent(garbage)
	// What the library prints must not come between the answers.
	answers, err := unix.FcntlInt(stdout.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("keep the channel of answers: %w", err)
	}
	if err := unix.Dup2(int(os.Stderr.Fd()), int(stdout.Fd())); err != nil {
		return fmt.Errorf("move standard output: %w", err)
	}
	out := os.NewFile(uintptr(answers), "answers")
	defer out.Close()
	return (&server{out: out}).serve(stdin)
}

// server is the child's side.
type server struct {
	outMu sync.Mutex
	out   io.Writer

	// mu is held for writing while the library is started anew: no handle may be
	// in use then.
	mu  sync.RWMutex
	lib *library
	set settings

	devicesMu sync.Mutex
	devices   []*device // nil: not listed yet
	stale     bool      // a device is lost, or the list couldn't be read: start anew

	watching watchState
}

// serve answers requests, each on its own goroutine. hello comes first and alone.
func (s *server) serve(in io.Reader) error {
	for {
		var r request
		err := readFrame(in, &r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if r.Method == methodHello {
			s.answer(r)
			continue
		}
		go s.answer(r)
	}
}

func (s *server) answer(r request) {
	answer := response{ID: r.ID}
	result, err := s.perform(r)
	if err == nil {
		answer.Result, err = json.Marshal(result)
	}
	if err != nil {
		answer.Error, answer.Result = err.Error(), nil
	}
	s.outMu.Lock()
	defer s.outMu.Unlock()
	if err := writeFrame(s.out, answer); err != nil {
		// Nobody listens any more, or never hears of this answer.
		os.Exit(1)
	}
}

func (s *server) perform(r request) (any, error) {
	if r.Method != methodHello && s.lib == nil {
		return nil, errNotOpen
	}
	switch r.Method {
	case methodHello:
		return with(r, s.hello)
	case methodInventory:
		return with(r, s.inventory)
	case methodReadings:
		return s.readings()
	case methodProcesses:
		return s.processes()
	case methodWatch:
		return with(r, s.watch)
	default:
		return nil, fmt.Errorf("method %q is unknown", r.Method)
	}
}

func with[A, R any](r request, f func(A) (R, error)) (any, error) {
	var args A
	if err := json.Unmarshal(r.Args, &args); err != nil {
		return nil, fmt.Errorf("arguments of %q: %w", r.Method, err)
	}
	return f(args)
}

func (s *server) hello(set settings) (struct{}, error) {
	lib, err := openLibrary(set.LibraryPath)
	s.set, s.lib = set, lib
	return struct{}{}, err
}
