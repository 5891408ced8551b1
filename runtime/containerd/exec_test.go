package containerd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/runtime"
	"berth/runtime/runtimetest"
	"berth/test/image/ociarchive"
)

func words(args ...string) runtime.ExecSpec { return runtime.ExecSpec{Args: args} }

// execFixture is a running container of that id, besides a fixture.
func execFixture(t *testing.T, id string) (f *fixture, cgroup string) {
	f = newFixture(t, ociarchive.Options{})
	f.start(shell(id, "exec sleep 600"))
	cgroup = f.newCgroup(id)
	runtimetest.Eventually(t, "PID 1 has started the command", func() bool { return len(f.cgroups.processes(cgroup)) == 2 })
	return f, cgroup
}

// shimFiles are the FIFOs that the only shim has open.
func shimFiles(t *testing.T, terminal bool) []string {
	t.Helper()
	shims := processesWith("-address", shared.address)
	if len(shims) != 1 {
		t.Fatalf("shims are %v, want one", shims)
	}
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", shims[0]))
	var open []string
	for _, name := range names {
		// It leaves the input of a terminal to its garbage collector.
		if target, _ := os.Readlink(name); strings.HasPrefix(target, shared.execDir()) && (!terminal || !strings.Contains(target, "/stdin")) {
			open = append(open, target)
		}
	}
	return open
}

// noTrace waits until nothing is left of execs but the processes that were
// there before.
func noTrace(t *testing.T, f *fixture, cgroup string, before []int, terminal bool) {
	t.Helper()
	left := func() []string {
		dirs, _ := filepath.Glob(filepath.Join(shared.execDir(), "*"))
		left := slices.Concat(dirs, shimFiles(t, terminal))
		for _, pid := range f.cgroups.processes(cgroup) {
			if !slices.Contains(before, pid) {
				line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				left = append(left, fmt.Sprintf("process %d %q", pid, line))
			}
		}
		return left
	}
	for deadline := time.Now().Add(20 * time.Second); len(left()) > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("left of the process is %q", left())
		}
	}
}

// slowWriter takes nothing until it is opened, then counts, and looks at this
// process's memory.
type slowWriter struct {
	reached chan struct{} // closed at the first write
	open    chan struct{}
	bytes   int
	heap    uint64 // the most seen
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if w.bytes == 0 {
		close(w.reached)
		<-w.open
	}
	if w.bytes%(16*mib) < len(p) {
		var m goruntime.MemStats
		goruntime.ReadMemStats(&m)
		w.heap = max(w.heap, m.HeapAlloc)
	}
	w.bytes += len(p)
	return len(p), nil
}

func TestExecLarge(t *testing.T) {
	f, cgroup := execFixture(t, "large")
	before := f.cgroups.processes(cgroup)
	var m goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&m)
	w := &slowWriter{reached: make(chan struct{}), open: make(chan struct{})}
	go func() {
		<-w.reached
		// The container isn't held up by an exec that nobody reads.
		if code, err := f.Exec(t.Context(), "large", words("true"), runtime.ExecStreams{}); err != nil || code != 0 {
			t.Errorf("beside a stalled exec: code %d, %v", code, err)
		}
		close(w.open)
	}()
	const size = 100 * mib
	code, err := f.Exec(t.Context(), "large", words("head", "-c", fmt.Sprint(size), "/dev/zero"), runtime.ExecStreams{Stdout: w})
	if err != nil || code != 0 || w.bytes != size {
		t.Errorf("code %d, %v, %d bytes; want %d", code, err, w.bytes, size)
	}
	if w.heap > m.HeapAlloc+16*mib {
		t.Errorf("the heap grew from %d to %d bytes", m.HeapAlloc, w.heap)
	}
	noTrace(t, f, cgroup, before, false)
}

// TestExecAbandoned, and the next: callers that go away in the middle, also while the pipes are
// full, leave no process and no file, neither here nor in the shim.
func TestExecAbandoned(t *testing.T) { abandonExecs(t, false) }

func TestExecAbandonedTerminal(t *testing.T) { abandonExecs(t, true) }

func abandonExecs(t *testing.T, terminal bool) {
	f, cgroup := execFixture(t, "abandoned")
	before := f.cgroups.processes(cgroup)
	for name, command := range map[string]string{
		"silent": "echo; sleep 600 & sleep 600",
		"full":   "yes",
		"stderr": "yes >&2 & yes",
	} {
		t.Run(name, func(t *testing.T) {
			spec := words("sh", "-c", command)
			spec.Terminal = terminal
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w := &slowWriter{reached: make(chan struct{}), open: make(chan struct{})}
			go func() {
				<-w.reached
				cancel()
				close(w.open)
			}()
			input, typing := io.Pipe()
			defer typing.Close()
			begin := time.Now()
			if _, err := f.Exec(ctx, "abandoned", spec, runtime.ExecStreams{Stdin: input, Stdout: w}); !errors.Is(err, context.Canceled) {
				t.Errorf("Exec: %v", err)
			}
			if took := time.Since(begin); took > 8*time.Second { // the shim's patience is 10 s
				t.Errorf("it took %s", took)
			}
			noTrace(t, f, cgroup, before, terminal)
		})
	}
}

// TestExecLeavesProcess: what left the session lives on, and its hold on the
// output isn't waited for.
func TestExecLeavesProcess(t *testing.T) {
	f, cgroup := execFixture(t, "background")
	before := f.cgroups.processes(cgroup)
	var out bytes.Buffer
	// It outgrows all pipes once the exec is over, and then still runs.
	spec := words("sh", "-c", `setsid sh -c 'sleep 4; trap "" PIPE; head -c 300000 /dev/zero; exec sleep 601' & echo started`)
	begin := time.Now()
	code, err := f.Exec(t.Context(), "background", spec, runtime.ExecStreams{Stdout: &out})
	if err != nil || code != 0 || out.String() != "started\n" {
		t.Errorf("code %d, %v, output %.100q", code, err, out.String())
	}
	if took := time.Since(begin); took > 8*time.Second {
		t.Errorf("it took %s", took)
	}
	runtimetest.Eventually(t, "it has written all that the pipes can't hold", func() bool {
		return slices.ContainsFunc(f.cgroups.processes(cgroup), func(pid int) bool {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return string(line) == "sleep\x00601\x00"
		})
	})
	for _, pid := range f.cgroups.processes(cgroup) {
		if !slices.Contains(before, pid) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
	noTrace(t, f, cgroup, before, false)
}

// asDaemon makes this test's binary a daemon that runs an exec.
const asDaemon = "BERTH_TEST_EXEC_IN"

func execAsDaemon(target string) int {
	config := strings.Split(target, "\n")
	r, err := New(context.Background(), Config{
		Address: config[0], Namespace: config[1], Helper: config[2], ExecDir: config[3], CDIDir: config[4],
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	w := &slowWriter{reached: make(chan struct{}), open: make(chan struct{})}
	go func() {
		<-w.reached
		fmt.Println("started")
	}()
	_, err = r.Exec(context.Background(), "orphan", words("sh", "-c", "sleep 600 & yes"), runtime.ExecStreams{Stdout: w})
	fmt.Println(err)
	return 1
}

// TestExecOfKilledDaemon: the next one ends what nobody reads any more.
func TestExecOfKilledDaemon(t *testing.T) {
	f, cgroup := execFixture(t, "orphan")
	before := f.cgroups.processes(cgroup)
	daemon := exec.Command(os.Args[0])
	daemon.Env = append(os.Environ(), asDaemon+"="+strings.Join([]string{
		shared.address, shared.namespace(), shared.helper(), shared.execDir(), filepath.Join(shared.dir, "cdi"),
	}, "\n"))
	stdout, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = daemon.Wait() }()
	defer func() { _ = daemon.Process.Kill() }()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); line != "started\n" {
		t.Fatalf("the daemon says %q, %v", line, err)
	}
	// Another daemon leaves alone what this one serves.
	other := shared.open(t)
	if len(f.cgroups.processes(cgroup)) <= len(before) {
		t.Error("the process of a living daemon is gone")
	}
	other.Close()
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait()
	if dirs, _ := os.ReadDir(shared.execDir()); len(dirs) != 1 {
		t.Errorf("the killed daemon left %v, want one directory", dirs)
	}
	shared.open(t)
	noTrace(t, f, cgroup, before, false)
	if code, err := f.Exec(t.Context(), "orphan", words("true"), runtime.ExecStreams{}); err != nil || code != 0 {
		t.Errorf("Exec after that: code %d, %v", code, err)
	}
}

func TestExecDirs(t *testing.T) {
	parent := t.TempDir()
	mine, err := makeExecDir(parent, "run-1.a_b")
	if err != nil {
		t.Fatal(err)
	}
	for _, foreign := range []string{"file", "run-1-not-a-uuid", "-5f1c7f5e-3f0b-4a53-8f5f-6a3f1d1a0c55"} {
		if err := os.Mkdir(filepath.Join(parent, foreign), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := abandonedExecs(parent); err != nil || len(left) != 0 {
		t.Errorf("while it is served: %v, %v", left, err)
	}
	mine.leave()
	left, err := abandonedExecs(parent)
	if err != nil || len(left) != 1 || left[0].container != "run-1.a_b" || left[0].exec != mine.exec {
		t.Fatalf("after that: %+v, %v", left, err)
	}
	if err := left[0].remove(); err != nil {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(parent); len(entries) != 3 {
		t.Errorf("left are %v, want what isn't ours", entries)
	}
}

func TestExecProcess(t *testing.T) {
	container := []byte(`{"process":{"args":["init"],"cwd":"/home","user":{"uid":7,"additionalGids":[44]},
		"env":["A=1","LD_LIBRARY_PATH=/lib"],"noNewPrivileges":true},
		"mounts":[{"destination":"/.berth/driver/libcuda.so.1"}]}`)
	p, err := execProcess(container, runtime.ExecSpec{Args: []string{"x"}, Env: []string{"A=2", "LD_LIBRARY_PATH=/mine"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(p.Env, []string{"A=2", "LD_LIBRARY_PATH=/.berth/driver:/mine"}) || p.Cwd != "/home" || p.User.UID != 7 || !p.NoNewPrivileges {
		t.Errorf("the process is %+v", p)
	}
	p, err = execProcess(container, runtime.ExecSpec{
		Args: []string{"x"}, Dir: "/", User: &runtime.User{UID: 1, GID: 2},
		Terminal: true, Size: runtime.TerminalSize{Columns: 3, Rows: 4},
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.Cwd != "/" || p.User.GID != 2 || len(p.User.AdditionalGids) != 0 || !slices.Contains(p.Env, "TERM=xterm") ||
		*p.ConsoleSize != (specs.Box{Width: 3, Height: 4}) {
		t.Errorf("the process is %+v", p)
	}
	for _, bad := range []runtime.ExecSpec{
		{}, {Args: []string{""}}, {Args: []string{"a\x00b"}}, {Args: []string{"x"}, Env: []string{"novalue"}},
		{Args: []string{"x"}, Dir: "relative"},
	} {
		if err := validateExec(bad); !errors.Is(err, runtime.ErrInvalid) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
