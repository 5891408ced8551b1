package containerd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

const (
	// pipeBuffer is what is read at once, and what a pipe holds where the kernel
	// allows it.
	pipeBuffer = 256 << 10

	// quietTime: the output of a process that has ended is complete when nothing
	// came for so long, though something else holds it open.
	quietTime = time.Second
)

// Names of the FIFOs in an execDir.
const (
	stdinName  = "stdin"
	stdoutName = "stdout"
	stderrName = "stderr"
)

// pipes are the FIFOs between a process's shim and this process.
type pipes struct {
	stdinPath, stdoutPath, stderrPath string // empty: not there

	stdin     *os.File // to write, nil when the process gets no input
	stdinRead *os.File // to read: what was written stays until the shim reads it
	outputs   []*os.File
	writing   []*os.File // ends of the outputs, so that they don't end before they begin

	over     atomic.Bool // the process has ended
	held     atomic.Bool // and left its output to another
	unwanted atomic.Bool // the caller takes no more output
}

func newPipes(dir string, terminal, input bool) (_ *pipes, err error) {
	p := &pipes{}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.stdoutPath, err = p.output(dir, stdoutName); err != nil {
		return nil, err
	}
	if !terminal {
		if p.stderrPath, err = p.output(dir, stderrName); err != nil {
			return nil, err
		}
	}
	if input {
		p.stdinPath, p.stdinRead, p.stdin, err = makePipe(dir, stdinName)
	}
	return p, err
}

func (p *pipes) output(dir, name string) (path string, err error) {
	path, read, write, err := makePipe(dir, name)
	if err == nil {
		p.outputs, p.writing = append(p.outputs, read), append(p.writing, write)
	}
	return path, err
}

// makePipe makes a FIFO and opens both ends. The order matters: without a reader
// there can be no writer that doesn't block.
func makePipe(dir, name string) (path string, read, write *os.File, err error) {
	path = filepath.Join(dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return "", nil, nil, &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	if read, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return "", nil, nil, err
	}
	if write, err = os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0); err != nil {
		read.Close()
		return "", nil, nil, err
	}
	enlarge(read)
	return path, read, write, nil
}

// enlarge is for speed only: the kernel bounds what a user's pipes hold.
func enlarge(pipe *os.File) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeBuffer) })
}

// opened: the shim holds its ends of the outputs.
func (p *pipes) opened() {
	for _, file := range p.writing {
		file.Close()
	}
}

// close lets go of everything, and wakes who reads or writes.
func (p *pipes) close() {
	p.opened()
	for _, file := range append(p.outputs, p.stdin, p.stdinRead) {
		if file != nil {
			file.Close()
		}
	}
}

// copyOutput writes what the process writes until it ends, and closes drained
// then. It calls fail when a writer fails, and reads on: a shim whose pipe nobody
// reads would keep it for good.
func (p *pipes) copyOutput(streams runtime.ExecStreams, fail func(error)) (drained <-chan struct{}) {
	writers := []io.Writer{streams.Stdout, streams.Stderr}
	var copying sync.WaitGroup
	copying.Add(len(p.outputs))
	for i, output := range p.outputs {
		writer := writers[i]
		if writer == nil {
			writer = io.Discard
		}
		go func() {
			if err := p.copy(writer, output); err != nil {
				fail(fmt.Errorf("pass on its output: %w", err))
				_ = p.copy(io.Discard, output)
			}
			copying.Done()
			discard(output)
		}()
	}
	done := make(chan struct{})
	go func() {
		copying.Wait()
		close(done)
	}()
	return done
}

// discard reads until the end, or until the file is closed.
func discard(output *os.File) {
	_ = output.SetReadDeadline(time.Time{})
	_, _ = io.Copy(io.Discard, output)
}

// copy gives the writer's errors only. It ends with the output, or when nothing
// more comes after the end of the process.
func (p *pipes) copy(w io.Writer, output *os.File) error {
	buffer := make([]byte, pipeBuffer)
	for {
		over := p.over.Load()
		if over {
			_ = output.SetReadDeadline(time.Now().Add(quietTime))
		}
		n, err := output.Read(buffer)
		if n > 0 && !p.unwanted.Load() {
			if _, err := w.Write(buffer[:n]); err != nil {
				return err
			}
		}
		// A deadline that was set during the read may have passed in the write
		// before it.
		if errors.Is(err, os.ErrDeadlineExceeded) && (!over || waiting(output) > 0) {
			continue
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				p.held.Store(true)
			}
			return nil
		}
	}
}

// waiting is how many bytes can be read.
func waiting(pipe *os.File) (n int) {
	raw, err := pipe.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}

// ended says that the process will write no more.
func (p *pipes) ended() {
	p.over.Store(true)
	for _, output := range p.outputs {
		_ = output.SetReadDeadline(time.Now().Add(quietTime))
	}
}
