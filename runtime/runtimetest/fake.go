// Package runtimetest holds an in-memory runtime for the tests of other packages,
// and the suite that every runtime must pass.
package runtimetest

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/runtime"
)

// Fake is a runtime of pretended containers. Like containers, it outlives the
// daemon that uses it: a test that restarts a daemon hands the same Fake to the
// next one. Safe for concurrent use.
//
// A container runs until it is signalled. Its command may be one of the test
// image's (see Suite): "/bin/workload" with "exit N", "ignore-term", "children",
// "count".
type Fake struct {
	mu         sync.Mutex
	images     map[string]runtime.Image
	remotes    map[string]remote
	allowed    []string // registries; empty: all
	disk       runtime.DiskUse
	devices    map[string]bool
	containers map[string]*container
	lifetimes  map[string]time.Duration // of deleted ones
	orders
	programs map[string]Program
	nextPid  int
}

var _ runtime.Runtime = (*Fake)(nil)

type container struct {
	runtime.Container
	args  []string
	log   string
	stuck bool
	ended chan struct{} // closed when it has ended
}

// New makes a Fake that has images of these references.
func New(references ...string) *Fake {
	f := &Fake{
		images:     map[string]runtime.Image{},
		remotes:    map[string]remote{},
		disk:       runtime.DiskUse{Used: 10 << 30, Total: 100 << 30},
		devices:    map[string]bool{},
		containers: map[string]*container{},
		lifetimes:  map[string]time.Duration{},
		programs:   map[string]Program{},
		nextPid:    1000,
	}
	for _, reference := range references {
		f.AddImage(reference)
	}
	return f
}

// AddImage stores an image of that reference, without content.
func (f *Fake) AddImage(reference string) runtime.Image {
	f.mu.Lock()
	defer f.mu.Unlock()
	image := runtime.Image{Reference: reference, Digest: digestOf([]byte(reference)), Size: 1}
	f.images[reference] = image
	return image
}

// Exit ends a running container with the code. It panics when there is none: the
// test is wrong.
func (f *Fake) Exit(id string, code int) { f.end(id, runtime.Exit{Known: true, Code: code}) }

// OOMKill ends a running container as the kernel does when memory runs out.
func (f *Fake) OOMKill(id string) {
	f.end(id, runtime.Exit{Known: true, Code: 128 + int(unix.SIGKILL), OOM: true})
}

// Vanish ends a running container and nobody sees how.
func (f *Fake) Vanish(id string) { f.end(id, runtime.Exit{}) }

// Stick makes a container impossible to kill, or possible again, as a process
// that hangs in a driver.
func (f *Fake) Stick(id string, stuck bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mustHave(id).stuck = stuck
}

// OfProcess gives the container that has the process, an empty one for none, and
// says whether it can't be killed. It is no call of the runtime: no order meets it.
func (f *Fake) OfProcess(pid int) (c runtime.Container, stuck bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.containers {
		if c.Pid == pid && pid != 0 {
			return c.view(), c.stuck
		}
	}
	return runtime.Container{}, false
}

// Lifetime is how long the process of a container lived that is deleted; 0: it
// never started.
func (f *Fake) Lifetime(id string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lifetimes[id]
}

// Args is the command that a container was created with.
func (f *Fake) Args(id string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.mustHave(id).args)
}

func (f *Fake) end(id string, exit runtime.Exit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.mustHave(id)
	if c.State != runtime.StateRunning {
		panic(fmt.Sprintf("runtimetest: container %s isn't running, it is %s", id, c.State))
	}
	c.finish(exit)
}

func (f *Fake) mustHave(id string) *container {
	c := f.containers[id]
	if c == nil {
		panic("runtimetest: no container " + id)
	}
	return c
}

// Info implements runtime.Runtime.
func (f *Fake) Info(ctx context.Context) (runtime.Info, error) {
	if err := f.enter(ctx, "Info"); err != nil {
		return runtime.Info{}, err
	}
	return runtime.Info{Name: "fake", Version: "1", Address: "memory"}, nil
}

// Close implements runtime.Runtime. The Fake can be used on.
func (f *Fake) Close() error { return nil }

// SetDevices implements runtime.Runtime.
func (f *Fake) SetDevices(ctx context.Context, devices []runtime.Device) error {
	if err := f.enter(ctx, "SetDevices"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.devices)
	for _, device := range devices {
		f.devices[device.Name] = true
	}
	return nil
}

// Create implements runtime.Runtime.
func (f *Fake) Create(ctx context.Context, spec runtime.Spec) (runtime.Created, error) {
	if err := f.enter(ctx, "Create"); err != nil {
		return runtime.Created{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	image, ok := f.images[spec.Image]
	switch {
	case spec.ID == "" || strings.ContainsAny(spec.ID, "/ "):
		return runtime.Created{}, fmt.Errorf("container id %q: %w", spec.ID, runtime.ErrInvalid)
	case f.containers[spec.ID] != nil:
		return runtime.Created{}, fmt.Errorf("container %s: %w", spec.ID, runtime.ErrExists)
	case !ok:
		return runtime.Created{}, fmt.Errorf("image %s: %w", spec.Image, runtime.ErrNotFound)
	case spec.Digest != "" && spec.Digest != image.Digest:
		return runtime.Created{}, fmt.Errorf("image %s is %s: %w", spec.Image, image.Digest, runtime.ErrNotFound)
	}
	for _, device := range spec.Devices {
		if !f.devices[device] {
			return runtime.Created{}, fmt.Errorf("device %s: %w", device, runtime.ErrInvalid)
		}
	}
	f.nextPid++
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	c := &container{
		Container: runtime.Container{
			ID: spec.ID, Image: spec.Image, Labels: labels, State: runtime.StateCreated,
			Pid: f.nextPid, CgroupPath: "/berth/" + spec.ID, CreatedAt: time.Now().UTC(),
		},
		args: spec.Args, log: spec.LogPath, ended: make(chan struct{}),
	}
	f.containers[spec.ID] = c
	return runtime.Created{CgroupPath: c.CgroupPath, Pid: c.Pid}, nil
}

// Start implements runtime.Runtime.
func (f *Fake) Start(ctx context.Context, id string) (runtime.Process, error) {
	if err := f.enter(ctx, "Start"); err != nil {
		return runtime.Process{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.containers[id]
	if c == nil {
		return runtime.Process{}, fmt.Errorf("container %s: %w", id, runtime.ErrNotFound)
	}
	if c.State != runtime.StateCreated {
		return runtime.Process{}, fmt.Errorf("container %s was started before", id)
	}
	c.State = runtime.StateRunning
	process := runtime.Process{Pid: c.Pid, StartedAt: time.Now().UTC()}
	c.StartedAt = process.StartedAt
	return process, c.begin()
}

// begin is what the command does at once.
func (c *container) begin() error {
	if behaviour, argument := c.behaviour(); behaviour == "exit" {
		code, _ := strconv.Atoi(argument)
		c.finish(runtime.Exit{Known: true, Code: code})
	}
	if c.log == "" {
		return nil
	}
	return os.WriteFile(c.log, []byte("ready\n"), 0o640)
}

func (c *container) behaviour() (name, argument string) {
	if len(c.args) < 2 || c.args[0] != workload {
		return "", ""
	}
	return c.args[1], strings.Join(c.args[2:], " ")
}

func (c *container) finish(exit runtime.Exit) {
	exit.At = time.Now().UTC()
	c.State, c.Pid, c.Exit = runtime.StateExited, 0, exit
	close(c.ended)
}
