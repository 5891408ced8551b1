package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is the helper when this is set, so that the tests run the real
// thing as its own process.
const asHelper = "BERTH_TEST_AS_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(asHelper) != "" {
		_ = os.Unsetenv(asHelper)
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

func helper(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	// The race detector's pause at exit would be most of the test's time.
	cmd.Env = append(os.Environ(), asHelper+"=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// need skips a test that something is missing for, where that is allowed.
func need(t *testing.T, there bool, what string) {
	t.Helper()
	if there {
		return
	}
	if os.Getenv("BERTH_REQUIRE_INTEGRATION") != "" {
		t.Fatal("needs " + what)
	}
	t.Skip("needs " + what)
}

// asPid1 runs the helper as PID 1 of a namespace, as a container does.
func asPid1(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	need(t, os.Geteuid() == 0, "root")
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
}

func TestInitExitCodes(t *testing.T) {
	for _, test := range []struct {
		args    []string
		code    int
		message string
	}{
		{[]string{"init", "--", "true"}, 0, ""},
		{[]string{"init", "--", "sh", "-c", "exit 7"}, 7, ""},
		{[]string{"init", "--", "sh", "-c", "kill -KILL $$"}, 137, ""},
		{[]string{"init", "--", "sh", "-c", "kill -TERM $$"}, 143, ""},
		{[]string{"init", "--", "sh", "-c", "exec 0</dev/null; test \"$1\" = --", "sh", "--"}, 0, ""},
		{[]string{"init", "--", "no-such-command"}, 127, `cannot run "no-such-command"`},
		{[]string{"init", "--", "/no/such/command"}, 127, `cannot run "/no/such/command"`},
		{[]string{"init", "--", "/etc/passwd"}, 126, "permission denied"},
		{[]string{"init", "--"}, 2, "usage"},
		{[]string{"init", "true"}, 2, "usage"},
		{[]string{"log", "nonsense"}, 2, "MAXBYTES:FILE"},
		{[]string{"log", "0:/tmp/x"}, 2, "MAXBYTES:FILE"},
		{nil, 2, "usage"},
		{[]string{"version"}, 0, ""},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			cmd := helper(t, test.args...)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			err := cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != test.code {
				t.Errorf("exit code %d (%v), want %d", code, err, test.code)
			}
			if !strings.Contains(stderr.String(), test.message) {
				t.Errorf("stderr is %q, want %q in it", stderr.String(), test.message)
			}
		})
	}
}

// TestInitPassesSignals: as PID 1 a TERM without a handler would do nothing.
func TestInitPassesSignals(t *testing.T) {
	for _, signal := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH} {
		t.Run(unix.SignalName(signal), func(t *testing.T) {
			name := strings.TrimPrefix(unix.SignalName(signal), "SIG")
			cmd := helper(t, "init", "--", "bash", "-c", "trap 'exit 42' "+name+"; echo ready; while :; do sleep 0.01; done")
			asPid1(t, cmd)
			wait := startReady(t, cmd)
			if err := cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			wait()
			if code := cmd.ProcessState.ExitCode(); code != 42 {
				t.Errorf("exit code %d, want that of the command's handler", code)
			}
		})
	}
}

// startReady starts a command and returns once it has written a line.
func startReady(t *testing.T, cmd *exec.Cmd) (wait func()) {
	t.Helper()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return func() {
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			t.Error(err)
		}
	}
}

// TestInitReaps: processes whose parents have gone become children of PID 1, and
// zombies if it doesn't collect them.
func TestInitReaps(t *testing.T) {
	// The second line comes after the orphans have ended: they hold the pipe.
	script := "(for i in 1 2 3 4 5; do (sleep 0.01 &) ; done) | cat; echo ready; exec sleep 600"
	cmd := helper(t, "init", "--", "bash", "-c", script)
	asPid1(t, cmd)
	wait := startReady(t, cmd)
	deadline := time.Now().Add(10 * time.Second)
	for {
		var all []byte
		for _, task := range glob(t, fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid)) {
			content, _ := os.ReadFile(task)
			all = append(all, content...)
		}
		if len(strings.Fields(string(all))) == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("children of PID 1 are %q, want the command only", all)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	wait()
	if code := cmd.ProcessState.ExitCode(); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestInitSetsHome(t *testing.T) {
	cmd := helper(t, "init", "--", "sh", "-c", "echo $HOME")
	cmd.Env = []string{asHelper + "=1", "PATH=" + os.Getenv("PATH")}
	output, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(output), "/") {
		t.Errorf("HOME is %q, %v", output, err)
	}
	cmd = helper(t, "init", "--", "sh", "-c", "echo $HOME")
	cmd.Env = append(cmd.Env, "HOME=/mine")
	if output, err := cmd.Output(); err != nil || string(output) != "/mine\n" {
		t.Errorf("HOME is %q, %v; want what was set", output, err)
	}
}

// logger is the helper as the shim runs it.
type logger struct {
	cmd            *exec.Cmd
	stdout, stderr *os.File // the container's ends
}

func startLogger(t *testing.T, target string) logger {
	t.Helper()
	l := logger{cmd: helper(t, "log", target)}
	var theirs []*os.File
	pipe := func() (read, write *os.File) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		return read, write
	}
	read, write := pipe()
	theirs, l.stdout = append(theirs, read), write
	read, write = pipe()
	theirs, l.stderr = append(theirs, read), write
	ready, readyEnd := pipe()
	defer ready.Close()
	theirs = append(theirs, readyEnd)
	l.cmd.ExtraFiles = theirs
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, file := range theirs {
		file.Close()
	}
	if _, err := ready.Read(make([]byte, 1)); err != io.EOF {
		t.Fatalf("the logger's readiness: %v, want the end of the pipe", err)
	}
	return l
}

func (l logger) end(t *testing.T) {
	t.Helper()
	l.stdout.Close()
	l.stderr.Close()
	if err := l.cmd.Wait(); err != nil {
		t.Errorf("the logger ended with %v", err)
	}
}

func TestLogKeepsBothStreams(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for range 2 { // the second appends
		l := startLogger(t, "1000000:"+file)
		fmt.Fprintln(l.stdout, "out")
		fmt.Fprintln(l.stderr, "err")
		l.end(t)
	}
	content, err := os.ReadFile(file)
	if err != nil || strings.Count(string(content), "out\n") != 2 || strings.Count(string(content), "err\n") != 2 {
		t.Errorf("the log has %q, %v", content, err)
	}
}

func TestLogIsCapped(t *testing.T) {
	const limit = 100_000
	file := filepath.Join(t.TempDir(), "log")
	l := startLogger(t, fmt.Sprintf("%d:%s", limit, file))
	for i := range 50_000 {
		fmt.Fprintf(l.stdout, "line %d\n", i)
	}
	l.end(t)
	newest, err := os.ReadFile(file)
	if err != nil || len(newest) > limit || !bytes.HasSuffix(newest, []byte("line 49999\n")) {
		t.Errorf("the log has %d bytes, %v; want at most %d with the last line", len(newest), err, limit)
	}
	older, err := os.ReadFile(file + ".1")
	if err != nil || len(older) > limit || len(older) < limit/2 {
		t.Errorf("the older one has %d bytes, %v", len(older), err)
	}
	if !bytes.HasPrefix(append(older, newest...)[bytes.LastIndexByte(older[:100], '\n')+1:], []byte("line ")) {
		t.Error("the two don't follow on each other")
	}
	if names := glob(t, file+"*"); len(names) != 2 {
		t.Errorf("files are %v", names)
	}
}

// TestLogNeverStalls: the container writes on even if its log can't be kept.
func TestLogNeverStalls(t *testing.T) {
	l := startLogger(t, "1000:/no/such/directory/log")
	if n, err := l.stdout.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("wrote %d bytes, then %v", n, err)
	}
	l.end(t)
}

// TestLogOutlivesTerm: the shim sends TERM while the last lines are in the pipe.
func TestLogOutlivesTerm(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	l := startLogger(t, "1000000:"+file)
	if err := l.cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(l.stderr, "last words")
	l.end(t)
	if content, err := os.ReadFile(file); err != nil || string(content) != "last words\n" {
		t.Errorf("the log has %q, %v", content, err)
	}
}

// TestLogOnFullDisk: the container writes on, and the log says what is missing.
func TestLogOnFullDisk(t *testing.T) {
	need(t, os.Geteuid() == 0, "root")
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	ballast, file := filepath.Join(dir, "ballast"), filepath.Join(dir, "log")
	if err := os.WriteFile(ballast, make([]byte, 448<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	l := startLogger(t, "1000000:"+file)
	line := strings.Repeat("x", 99) + "\n"
	for range 2000 { // several times what fits, and what the pipe holds
		if _, err := io.WriteString(l.stdout, line); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	var content []byte
	for !bytes.Contains(content, []byte("space again\n")) {
		if time.Now().After(deadline) {
			t.Fatalf("the log ends in %q", content[max(0, len(content)-200):])
		}
		fmt.Fprintln(l.stdout, "space again")
		time.Sleep(time.Millisecond)
		content, _ = os.ReadFile(file)
	}
	l.end(t)
	before, rest, found := bytes.Cut(content, []byte("berth: "))
	var missing int
	if n, _ := fmt.Sscanf(string(rest), "%d bytes of output are missing here: ", &missing); !found || n != 1 ||
		!bytes.Contains(rest, []byte("no space left on device\n")) || bytes.Count(content, []byte("berth: ")) != 1 {
		t.Fatalf("after %d bytes the log has %.200q", len(before), rest)
	}
	kept := len(bytes.ReplaceAll(before, []byte("x\n\n"), []byte("x\n")))
	kept += bytes.Count(rest, []byte(line)) * len(line)
	if diff := missing + kept - 2000*len(line); diff < -1 || diff > 20*len("space again\n") {
		t.Errorf("%d bytes are missing and %d are there, of %d", missing, kept, 2000*len(line))
	}
}
