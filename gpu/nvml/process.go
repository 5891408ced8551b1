package nvml

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// child is the parent's side of one child process.
type child struct {
	cmd        *exec.Cmd
	in, out    *os.File   // its standard input and output, our ends
	complaints complaints // what it wrote to standard error

	ready chan struct{} // closed when it has answered to hello
	dead  chan struct{} // closed when no answer will come any more; reason says why
	gone  chan struct{} // closed when the process has ended

	version string    // of the driver that was loaded when it was started
	started time.Time // by this process's clock
	mu      sync.Mutex
	reason  error
	next    uint64
	pending map[uint64]chan response
}

// stderrDelay is how long a descendant of an ended child may keep its standard
// error open.
const stderrDelay = time.Second

// startChild starts the command; ended is called once the process is gone.
func startChild(command []string, ended func(*child)) (*child, error) {
	if len(command) == 0 {
		return nil, errors.New("no command for the process that asks the GPU driver")
	}
	c := &child{
		ready: make(chan struct{}), dead: make(chan struct{}), gone: make(chan struct{}),
		pending: map[uint64]chan response{}, started: time.Now(),
	}
	c.cmd = exec.Command(command[0], command[1:]...) // #nosec G204 -- berthd names itself
	c.cmd.Stderr, c.cmd.WaitDelay = &c.complaints, stderrDelay
	c.cmd.Env = append(os.Environ(), "GOTRACEBACK=none") // a crash of the library is told in a line or two
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := c.pipes()
	if err != nil {
		return nil, fmt.Errorf("pipes for the process that asks the GPU driver: %w", err)
	}
	started := make(chan error, 1)
	go c.run(stdin, started, ended)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start the process that asks the GPU driver: %w", err)
	}
	go c.read()
	return c, nil
}

// pipes gives the child's ends; its output is in cmd.Stdout.
func (c *child) pipes() (stdin *os.File, err error) {
	stdin, c.in, err = os.Pipe()
	if err != nil {
		return nil, err
	}
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, stdin.Close(), c.in.Close())
	}
	c.out, c.cmd.Stdin, c.cmd.Stdout = out, stdin, stdout
	return stdin, nil
}

// run starts the process and waits for its end on a thread of its own: the
// signal of a parent's death comes when the thread that forked ends.
func (c *child) run(stdin *os.File, started chan<- error, ended func(*child)) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	err := c.cmd.Start()
	stdin.Close()
	c.cmd.Stdout.(*os.File).Close()
	if err != nil {
		c.in.Close()
		c.out.Close()
		started <- err
		return
	}
	started <- nil
	err = c.cmd.Wait()
	c.end(fmt.Errorf("the process that asks the GPU driver ended (%s)%s", describe(err), c.complaints.suffix()))
	ended(c)
	close(c.gone)
}

func describe(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// read hands out answers until the child's output ends.
func (c *child) read() {
	for {
		var r response
		if err := readFrame(c.out, &r); err != nil {
			break
		}
		c.mu.Lock()
		answer := c.pending[r.ID]
		delete(c.pending, r.ID)
		c.mu.Unlock()
		if answer != nil {
			answer <- r
		}
	}
	// Without its output it is of no use; run says why it ended.
	_ = c.cmd.Process.Kill()
	c.out.Close()
}

// send gives the channel on which the answer will come.
func (c *child) send(method string, args any) (<-chan response, error) {
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	answer := make(chan response, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return nil, c.reason
	}
	c.next++
	c.pending[c.next] = answer
	if err := writeFrame(c.in, request{ID: c.next, Method: method, Args: raw}); err != nil {
		delete(c.pending, c.next)
		return nil, fmt.Errorf("ask the process that asks the GPU driver: %w", err)
	}
	return answer, nil
}

// end makes the child dead for a reason; the first one stays.
func (c *child) end(reason error) (first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason != nil {
		return false
	}
	c.reason = reason
	close(c.dead)
	c.in.Close()
	return true
}

// kill ends the process without waiting: stuck in the driver it may stay.
func (c *child) kill(reason error) (first bool) {
	first = c.end(reason)
	_ = c.cmd.Process.Kill()
	return first
}

func (c *child) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// complaints keeps the beginning and the end of what is written to it.
type complaints struct {
	mu        sync.Mutex
	head, end []byte
}

const maxComplaint = 1024

// Write never fails.
func (c *complaints) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = append(c.head, p[:min(len(p), maxComplaint-len(c.head))]...)
	c.end = append(c.end, p...)
	if n := len(c.end); n > maxComplaint {
		c.end = append([]byte(nil), c.end[n-maxComplaint:]...)
	}
	return len(p), nil
}

// suffix is what a process had to say about its end, after a colon; empty when
// that is nothing.
func (c *complaints) suffix() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(string(c.head)) {
		if crash.MatchString(line) {
			return ": " + strings.TrimSpace(line)
		}
	}
	lines := strings.Split(strings.TrimSpace(string(c.end)), "\n")
	if last := lines[len(lines)-1]; last != "" {
		return ": " + last
	}
	return ""
}

// crash begins what a Go program says when the library breaks it; registers and
// stacks follow.
var crash = regexp.MustCompile(`^(SIG[A-Z]+|fatal error|panic): `)
