package guard

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests have real cgroups and real processes. They need root.

const asGuard = "BERTH_TEST_GUARD"

// beAProcess is a guard in a process of its own, when this was started as one.
func beAProcess() {
	dir := os.Getenv(asGuard)
	if dir == "" {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	server := Server{Dir: dir, Socket: socketIn(dir), Protection: Protect()}
	err := server.Run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func socketIn(dir string) string { return filepath.Join(dir, "guard.sock") }

// guardProcess is a guard that can be killed and paused.
type guardProcess struct {
	*Client
	t   *testing.T
	dir string
	cmd *exec.Cmd
}

func newGuardProcess(t *testing.T) *guardProcess {
	t.Helper()
	g := &guardProcess{t: t, dir: t.TempDir()}
	g.Client = NewClient(socketIn(g.dir))
	g.start()
	t.Cleanup(func() { g.end(unix.SIGKILL) })
	return g
}

func (g *guardProcess) start() {
	g.t.Helper()
	g.cmd = exec.Command("/proc/self/exe")
	g.cmd.Env = append(os.Environ(), asGuard+"="+g.dir)
	g.cmd.Stderr = os.Stderr
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	eventually(g.t, "the guard answers", func() bool {
		_, err := g.Status(context.Background())
		return err == nil
	})
}

func (g *guardProcess) signal(sig unix.Signal) {
	g.t.Helper()
	if err := g.cmd.Process.Signal(sig); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guardProcess) end(sig unix.Signal) {
	_ = g.cmd.Process.Signal(sig)
	_ = g.cmd.Wait()
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for began := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// workload is what runs in cgroups of its own.
type workload struct {
	cmd  *exec.Cmd
	dirs []string
}

// hierarchies are where cgroups for tests can be made: name → directory.
func hierarchies(t *testing.T) map[string]string {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("BERTH_REQUIRE_INTEGRATION") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, m := range cgroupMounts(string(text)) {
		name := "v2"
		if m.controllers != nil {
			name = m.controllers[len(m.controllers)-1]
		}
		found[name] = m.point
	}
	return found
}

// start runs a shell script in a new cgroup of each of the hierarchies, those
// that this host has. It has come to "echo ready" when this returns.
func start(t *testing.T, script string, in ...string) *workload {
	t.Helper()
	mounts := hierarchies(t)
	w := &workload{}
	join := ""
	for _, name := range in {
		point, ok := mounts[name]
		if !ok {
			continue
		}
		dir := filepath.Join(point, fmt.Sprintf("berth-guard-test-%d", os.Getpid()), strings.ReplaceAll(t.Name(), "/", "_"))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { removeCgroup(t, dir) })
		w.dirs = append(w.dirs, dir)
		join += "echo 0 >" + dir + "/cgroup.procs\n"
		if name == "pids" {
			_ = os.WriteFile(filepath.Join(dir, "pids.max"), []byte("1000"), 0o644)
		}
	}
	var out bytes.Buffer
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	w.cmd = exec.Command("/bin/sh", "-c", join+script)
	w.cmd.Stdout = write
	w.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	err = w.cmd.Start()
	_ = write.Close()
	if err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 64)
	for !strings.Contains(out.String(), "ready") {
		n, err := read.Read(buffer)
		out.Write(buffer[:n])
		if err != nil {
			t.Fatalf("the workload: %v, it said %q", err, out.String())
		}
	}
	return w
}

// removeCgroup takes a cgroup away, for failed tests with what is in it.
func removeCgroup(t *testing.T, dir string) {
	h := thisHost()
	eventually(t, dir+" is empty", func() bool {
		left, err := h.kill([]string{dir})
		return left != remainsSome && err == nil
	})
	for range 3 { // as deep as the workloads make them; the inner ones go first
		_ = walk(dir, func(sub string) error { return unix.Rmdir(sub) })
	}
	_ = unix.Rmdir(filepath.Dir(dir)) // unless another test's is in it
}

func (w *workload) deadline(t *testing.T, run string, until time.Duration) Deadline {
	t.Helper()
	boot, err := hostBootID()
	if err != nil {
		t.Fatal(err)
	}
	started, err := ProcessStart(w.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return Deadline{
		Run: run, BootID: boot, Kill: bootClock() + until.Milliseconds(),
		Pid: w.cmd.Process.Pid, Started: started, Cgroups: w.dirs,
	}
}

func (w *workload) pids(t *testing.T) int {
	t.Helper()
	n := 0
	for _, dir := range w.dirs {
		pids, err := thisHost().pids(dir)
		if err != nil {
			t.Fatal(err)
		}
		n += len(pids)
	}
	return n
}

func entryOf(t *testing.T, c *Client, run string) Entry {
	t.Helper()
	all, err := c.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Run == run {
			return e
		}
	}
	t.Fatalf("no entry of %s in %+v", run, all)
	return Entry{}
}

const (
	idle   = "echo ready; sleep 600; :"
	deaf   = "trap '' TERM INT HUP; echo ready; while :; do sleep 600; done"
	bomb   = "b() { b & exit; }; echo ready; for i in 1 2 3 4 5 6 7 8; do (b) & done; sleep 600; :"
	zombie = "(sleep 0.01 & exec sleep 600) & echo ready; exec sleep 600"
	still  = "sh -c 'kill -STOP $$' & sleep 600 & echo ready; kill -STOP $$; :"
	nested = `for d in $DIRS; do mkdir -p $d/in/ner; sh -c "echo 0 >$d/in/ner/cgroup.procs; exec sleep 600" & done; sleep 0.2; echo ready; sleep 600; :`
)

// TestEnds: whatever a run does, nothing of it is left, in each kind of cgroup.
func TestEnds(t *testing.T) {
	here := hierarchies(t)
	g := newGuardProcess(t)
	for kinds, in := range map[string][]string{
		"hybrid":     {"freezer", "pids", "memory", "v2"},
		"v1":         {"freezer", "pids", "memory"},
		"no-freezer": {"pids", "memory"},
		"v2":         {"v2"},
	} {
		if !slices.ContainsFunc(in, func(name string) bool { return here[name] != "" }) {
			continue // this host has another version
		}
		for name, script := range map[string]string{
			"idle": idle, "deaf": deaf, "bomb": bomb, "zombie": zombie, "still": still, "nested": nested,
		} {
			t.Run(kinds+"/"+name, func(t *testing.T) {
				script := strings.ReplaceAll(script, "$DIRS", dirsFor(t, in))
				w := start(t, script, in...)
				outside := exec.Command("sleep", "600")
				if err := outside.Start(); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = outside.Process.Kill(); _ = outside.Wait() }()
				run := strings.ReplaceAll(t.Name(), "/", "_")
				if err := g.Set(t.Context(), w.deadline(t, run, 200*time.Millisecond)); err != nil {
					t.Fatal(err)
				}
				go func() { _ = w.cmd.Wait() }()
				var e Entry
				eventually(t, "it is empty", func() bool {
					e = entryOf(t, g.Client, run)
					return e.Emptied != 0
				})
				if n := w.pids(t); n > 0 || e.Error != "" {
					t.Errorf("%d processes are left; %+v", n, e)
				}
				if e.Emptied == e.Killed {
					t.Errorf("it had ended before: %+v", e)
				}
				if err := outside.Process.Signal(unix.Signal(0)); err != nil {
					t.Errorf("a process outside: %v", err)
				}
				t.Logf("killed %d ms after its end, empty %d ms after that", e.Killed-e.Kill, e.Emptied-e.Killed)
				if err := g.Clear(t.Context(), run); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func dirsFor(t *testing.T, in []string) string {
	var dirs []string
	mounts := hierarchies(t)
	for _, name := range in {
		if point, ok := mounts[name]; ok {
			dirs = append(dirs, filepath.Join(point, fmt.Sprintf("berth-guard-test-%d", os.Getpid()), strings.ReplaceAll(t.Name(), "/", "_")))
		}
	}
	return strings.Join(dirs, " ")
}

// TestTermIsForTheRightProcess: nobody else gets it, whatever the deadline says.
func TestTermIsForTheRightProcess(t *testing.T) {
	w := start(t, "trap 'echo asked >&2; exit 3' TERM; echo ready; while :; do sleep 0.01; done", "pids", "v2")
	ended := make(chan error, 1)
	go func() { ended <- w.cmd.Wait() }()
	stranger := exec.Command("sleep", "600")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	h := thisHost()
	d := w.deadline(t, "r", time.Minute)
	elsewhere, reused := d, d
	elsewhere.Pid, elsewhere.Started = stranger.Process.Pid, 0
	reused.Started++
	for _, wrong := range []*Deadline{&elsewhere, &reused, {Pid: 1 << 22, Cgroups: w.dirs}} {
		if err := h.term(wrong); err != nil {
			t.Error(err)
		}
	}
	if err := stranger.Process.Signal(unix.Signal(0)); err != nil {
		t.Error(err)
	}
	_ = stranger.Process.Kill()
	if err := stranger.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the stranger: %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	default:
	}
	if err := h.term(&d); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; w.cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("after SIGTERM: %v", err)
	}
	if err := h.term(&d); err != nil {
		t.Errorf("when it has ended: %v", err)
	}
}
