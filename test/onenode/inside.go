package onenode

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/gpu"
	"berth/state"
	"berth/workspace"
)

// inside is what the node's containers have in them: all share one directory,
// and their processes run on this host.
type inside struct {
	mu      sync.Mutex
	dir     string
	logs    map[string]string // by run
	changed chan struct{}     // closed and replaced at each change of a log
	pulling map[string]workspace.PullProgress
}

func newInside() inside {
	return inside{logs: map[string]string{}, changed: make(chan struct{}), pulling: map[string]workspace.PullProgress{}}
}

// Inside sets the directory that is / in every container.
func (c *cluster) Inside(dir string) {
	c.inside.mu.Lock()
	defer c.inside.mu.Unlock()
	c.inside.dir = dir
}

// Pull says how far the pull of an instance's image is.
func (c *cluster) Pull(ctx context.Context, name string, p workspace.PullProgress) error {
	run, err := c.liveRun(ctx, name)
	if err != nil {
		return err
	}
	c.inside.mu.Lock()
	defer c.inside.mu.Unlock()
	c.inside.pulling[run.ID] = p
	return nil
}

// Pulling is what Pull said.
func (c *cluster) Pulling(run string) (workspace.PullProgress, bool) {
	c.inside.mu.Lock()
	defer c.inside.mu.Unlock()
	p, ok := c.inside.pulling[run]
	return p, ok
}

// registry is where images come from that the node doesn't have.
const registry = "registry.test"

// ResolveImage knows the images of registry.test.
func (c *cluster) ResolveImage(_ context.Context, source workspace.ImageSource) (string, error) {
	if workspace.RegistryOf(source.Reference) != registry {
		return "", workspace.Errorf(workspace.CodeNotFound, "it has no image %s", source.Reference)
	}
	return digest(source.Reference), nil
}

// PullImage fetches what ResolveImage knows, in two halves.
func (c *cluster) PullImage(ctx context.Context, source workspace.ImageSource, progress func(workspace.PullProgress)) (workspace.NodeImage, error) {
	id, err := c.ResolveImage(ctx, source)
	if err != nil {
		return workspace.NodeImage{}, err
	}
	const size = 4 << 20
	progress(workspace.PullProgress{Reference: source.Reference, DoneBytes: size / 2, TotalBytes: size, Layers: 2, LayersDone: 1})
	image := workspace.NodeImage{Reference: source.Reference, Digest: id, Size: size}
	images := append(c.images(source.Reference), image)
	return image, c.report(workspace.Report{Images: &images})
}

// Readings are the same for all devices.
func (c *cluster) Readings(context.Context) ([]gpu.Reading, error) {
	var readings []gpu.Reading
	for d := range c.View().NodeDevices(NodeID) {
		readings = append(readings, gpu.Reading{UUID: d.UUID, Values: map[gpu.Quantity]float64{gpu.Temperature: 41}})
	}
	return readings, nil
}

// Exec runs a process on this host, in a pseudo-terminal when asked to.
func (c *cluster) Exec(ctx context.Context, _ string, spec workspace.ExecSpec, streams workspace.ExecStreams) (int, error) {
	p := exec.CommandContext(ctx, spec.Command[0], spec.Command[1:]...)
	p.Dir = spec.Dir
	p.Env = os.Environ()
	for _, e := range spec.Env {
		p.Env = append(p.Env, e.Name+"="+e.Value)
	}
	// What it has started goes with it.
	p.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: spec.Terminal}
	p.Cancel = func() error { return syscall.Kill(-p.Process.Pid, syscall.SIGKILL) }
	p.WaitDelay = time.Second
	var err error
	if spec.Terminal {
		err = runOnTerminal(p, spec, streams)
	} else {
		err = runOnPipes(p, streams)
	}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && ctx.Err() == nil:
		return exit.ExitCode(), nil
	case errors.Is(err, exec.ErrNotFound):
		return 0, workspace.Errorf(workspace.CodeInvalid, "there is no program %q in the container", spec.Command[0])
	}
	return 0, err
}

// runOnPipes doesn't wait for input that nobody reads, as Cmd.Stdin would.
func runOnPipes(p *exec.Cmd, streams workspace.ExecStreams) error {
	p.Stdout, p.Stderr = streams.Stdout, streams.Stderr
	stdin, err := p.StdinPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(stdin, streams.Stdin) // ends with the process or the client
		stdin.Close()
	}()
	return p.Wait()
}

// Log adds to what an instance's latest run has written.
func (c *cluster) Log(ctx context.Context, name, text string) error {
	run, err := c.liveRun(ctx, name)
	if err != nil {
		return err
	}
	c.inside.mu.Lock()
	defer c.inside.mu.Unlock()
	c.inside.logs[run.ID] += text
	close(c.inside.changed)
	c.inside.changed = make(chan struct{})
	return nil
}

// Logs writes what Log has added.
func (c *cluster) Logs(ctx context.Context, run string, spec workspace.LogSpec, w io.Writer) error {
	text, _ := c.logOf(run)
	at := 0
	if lines := strings.SplitAfter(strings.TrimSuffix(text, "\n"), "\n"); spec.Tail >= 0 && spec.Tail < len(lines) {
		at = len(strings.Join(lines[:len(lines)-spec.Tail], ""))
	}
	for {
		v := c.View()
		r := v.Run(run)
		text, changed := c.logOf(run)
		if _, err := io.WriteString(w, text[min(at, len(text)):]); err != nil {
			return err
		}
		at = len(text)
		if !spec.Follow || r == nil || r.Phase.Terminal() {
			return nil
		}
		more, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-changed:
				cancel()
			case <-more.Done():
			}
		}()
		_ = v.Wait(more, state.TopicRuns) // either may wake it
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (c *cluster) logOf(run string) (string, <-chan struct{}) {
	c.inside.mu.Lock()
	defer c.inside.mu.Unlock()
	return c.inside.logs[run], c.inside.changed
}

// Dial connects to a port of this host.
func (c *cluster) Dial(ctx context.Context, _ string, port int) (workspace.Stream, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, workspace.Errorf(workspace.CodeUnavailable, "nothing listens on port %d in the container", port)
	}
	return conn.(*net.TCPConn), nil
}

// CopyFrom packs files and directories.
func (c *cluster) CopyFrom(_ context.Context, _, name string, w io.Writer) error {
	root := filepath.Join(c.inside.dir, name)
	archive := tar.NewWriter(w)
	err := filepath.Walk(root, func(file string, info os.FileInfo, err error) error {
		if err != nil {
			return workspace.Errorf(workspace.CodeNotFound, "there is no %s in the container", name)
		}
		header, err := tar.FileInfoHeader(info, "")
		if err != nil {
			return err
		}
		below, err := filepath.Rel(filepath.Dir(root), file)
		if err != nil {
			return err
		}
		header.Name = filepath.ToSlash(below)
		if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		text, err := os.ReadFile(file)
		if err == nil {
			_, err = archive.Write(text)
		}
		return err
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

// CopyTo unpacks files and directories.
func (c *cluster) CopyTo(_ context.Context, _, dir string, r io.Reader) error {
	root, err := os.OpenRoot(filepath.Join(c.inside.dir, dir))
	if err != nil {
		return workspace.Errorf(workspace.CodeNotFound, "there is no directory %s in the container", dir)
	}
	defer func() { _ = root.Close() }() // nothing was written through it
	archive := tar.NewReader(r)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := path.Clean(header.Name)
		if header.Typeflag == tar.TypeDir {
			err = root.MkdirAll(name, 0o755)
		} else {
			var text []byte
			if text, err = io.ReadAll(archive); err == nil {
				err = root.WriteFile(name, text, header.FileInfo().Mode().Perm())
			}
		}
		if err != nil {
			return err
		}
	}
}
