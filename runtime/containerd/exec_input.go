package containerd

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
)

// feed passes the input on. It can't be stopped while it reads, but stops as soon
// as it has read. Input that breaks off mustn't look like input that ends.
func (e *execution) feed(ctx context.Context, input io.Reader, fail func(error)) {
	buffer := make([]byte, 64<<10)
	newline := true // the last byte was one
	for {
		n, err := input.Read(buffer)
		if n > 0 {
			newline = buffer[n-1] == '\n'
			if _, err := e.pipes.stdin.Write(buffer[:n]); err != nil {
				return // the process has ended
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			fail(fmt.Errorf("read its input: %w", err))
			return
		}
	}
	if e.pipes.stderrPath == "" {
		e.endTyping(newline)
		return
	}
	e.endInput(ctx)
}

// endOfTransmission is control and D: to a terminal's reader, the end of input.
const endOfTransmission = "\x04"

// endTyping ends the input of a terminal, as a person would. The first of two
// would only pass on a line that isn't complete.
func (e *execution) endTyping(newline bool) {
	end := endOfTransmission
	if !newline {
		end += endOfTransmission
	}
	_, _ = e.pipes.stdin.WriteString(end)
}

// endInput closes both writing ends, the shim's and ours. The shim opens its
// reading end in its own time, and if that is after both are closed it hangs:
// somebody must knock.
func (e *execution) endInput(ctx context.Context) {
	_, _ = e.r.client.TaskService().CloseIO(ctx, &tasks.CloseIORequest{ContainerID: e.dir.container, ExecID: e.dir.exec, Stdin: true})
	e.pipes.stdin.Close()
	for pause := 10 * time.Millisecond; pause < 20*time.Second; pause *= 10 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		e.pipes.knock()
	}
}

// knock opens the input for writing and closes it again.
func (p *pipes) knock() {
	raw, err := p.stdinRead.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		if end, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			end.Close()
		}
	})
}
