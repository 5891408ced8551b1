package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"berth/client"
	"berth/runtime/containerd"
	"berth/test/image/ociarchive"
	"berth/workspace"
)

const (
	imageName    = "bench:latest"
	cgroupParent = "/berth"
	patience     = 30 * time.Second
	pollEvery    = 2 * time.Millisecond
)

// host is a containerd and a berthd with simulated GPUs, and all their files.
type host struct {
	dir        string
	containerd string // address
	archive    []byte // of the image that containers are made from
	client     *client.Client
	http       *http.Client // to the control socket
	alone      *alone       // nil: not opened

	flavour flavour // of the berthd that is started next
	daemon  *exec.Cmd
	ended   chan struct{} // closed when berthd has ended
}

// flavour is what one berthd has that another hasn't.
type flavour struct {
	name           string   // of its data directory
	bridge, subnet string   // of no other
	gpus           []string // arguments
	ownMounts      bool     // what it mounts nobody else sees
	before         []string // command that becomes it
	env            []string // besides the environment
}

var simulated = flavour{
	name: "data", bridge: "berthbench0", subnet: "10.212.0.0/24",
	gpus: []string{"--simulate-gpus", "A100-SXM4-80GB:8"},
}

func newHost() (*host, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("containers need root: sudo make bench")
	}
	for _, name := range []string{"berthd", "berth-helper"} {
		if _, err := os.Stat(filepath.Join("bin", name)); err != nil {
			return nil, fmt.Errorf("%w: run make build, and this from the folder of the Makefile", err)
		}
	}
	dir, err := os.MkdirTemp("", "berth-bench")
	if err != nil {
		return nil, err
	}
	h := &host{dir: dir, flavour: simulated}
	h.http = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", h.socket())
	}}}
	if h.client, err = client.New(client.Options{Socket: h.socket()}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return h, nil
}

func (h *host) socket() string { return filepath.Join(h.dir, "berth.sock") }
func (h *host) data() string   { return filepath.Join(h.dir, h.flavour.name) }

// close ends whatever runs and removes every trace.
func (h *host) close() error {
	h.client.Close()
	h.http.CloseIdleConnections()
	err := h.stopDaemon()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	err = errors.Join(err, h.clear(ctx), containerd.Clear(ctx, filepath.Join(h.dir, "c"), cgroupParent))
	if h.alone != nil {
		err = errors.Join(err, h.alone.clear(ctx))
	}
	_ = os.Remove(aloneState) // it stays if it is in use
	if err != nil {
		return fmt.Errorf("clean up %s: %w", h.dir, err)
	}
	return os.RemoveAll(h.dir)
}

// setUp makes a host with an image and a template. It measures nothing.
func (h *host) setUp(ctx context.Context) ([]result, error) {
	if err := h.makeImage(ctx); err != nil {
		return nil, fmt.Errorf("make the image: %w", err)
	}
	var err error
	h.containerd, err = containerd.Spawn(ctx, containerd.SpawnConfig{Dir: filepath.Join(h.dir, "c"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	if _, err := h.startDaemon(ctx); err != nil {
		return nil, err
	}
	if _, err := h.client.ImportImage(ctx, bytes.NewReader(h.archive), client.ImportOptions{}, nil); err != nil {
		return nil, err
	}
	_, err = h.client.PutTemplate(ctx, workspace.Template{
		Name: "bench", Image: imageName, Command: []string{"/bin/stamp"}, Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 5,
		VolumePath: volumePath, Ports: []workspace.Port{{Name: "web", Number: strconv.Itoa(containerPort), Protocol: "HTTP"}},
	})
	return nil, err
}

// makeImage builds an image whose program says when it began.
func (h *host) makeImage(ctx context.Context) error {
	binary := filepath.Join(h.dir, "stamp")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", binary, "berth/test/bench/stamp")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	stamp, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	err = ociarchive.Write(&archive, ociarchive.Options{
		Name: imageName, Busybox: os.Getenv("BERTH_BUSYBOX"), Files: map[string][]byte{"bin/stamp": stamp},
	})
	h.archive = archive.Bytes()
	return err
}

// startDaemon runs berthd and gives the time until it said that it is ready.
func (h *host) startDaemon(ctx context.Context) (time.Duration, error) {
	log, err := os.Create(filepath.Join(h.dir, "log"))
	if err != nil {
		return 0, err
	}
	defer log.Close()
	line := append(slices.Clone(h.flavour.before), h.commandLine("run")...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), h.flavour.env...)
	cmd.Stdout, cmd.Stderr = log, log
	if h.flavour.ownMounts {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	h.daemon, h.ended = cmd, ended
	err = h.until(ctx, "berthd is ready", h.ready)
	return time.Since(began), err
}

func (h *host) commandLine(verb string) []string {
	return append([]string{
		"bin/berthd", verb, "--config", "/dev/null", "--data-dir", h.data(), "--socket", h.socket(), "--http-listen", "",
		"--containerd-address", h.containerd, "--run-dir", filepath.Join(h.dir, "run"),
		"--network-bridge", h.flavour.bridge, "--network-subnet", h.flavour.subnet, "--log-level", "warn",
	}, h.flavour.gpus...)
}

// clear undoes the mounts and networks of a berthd that has ended.
func (h *host) clear(ctx context.Context) error {
	if _, err := os.Stat(h.data()); err != nil {
		return nil // it never ran
	}
	line := h.commandLine("clear")
	if out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("berthd clear: %w: %s", err, out)
	}
	return nil
}

func (h *host) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://berthd/readyz", http.NoBody)
	if err != nil {
		return err
	}
	response, err := h.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if text, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusOK {
		return fmt.Errorf("readyz: %s", text)
	}
	return nil
}

// stopDaemon ends berthd in order; none running is no error.
func (h *host) stopDaemon() error {
	if h.daemon == nil {
		return nil
	}
	_ = h.daemon.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-h.ended:
		h.daemon = nil
		return nil
	case <-time.After(patience):
		_ = h.daemon.Process.Kill()
		<-h.ended
		return fmt.Errorf("berthd didn't stop within %s", patience)
	}
}

// until retries until it holds, as long as berthd lives.
func (h *host) until(ctx context.Context, what string, holds func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := holds(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, patience, err)
		case <-h.ended:
			return fmt.Errorf("%s: %w", what, h.lastWords())
		case <-tick.C:
		}
	}
}

// lastWords of a berthd that ended by itself.
func (h *host) lastWords() error {
	log, _ := os.ReadFile(filepath.Join(h.dir, "log"))
	return fmt.Errorf("berthd ended (%s); its last words: %s", h.daemon.ProcessState, log[max(0, len(log)-2000):])
}
