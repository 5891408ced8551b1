package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"berth/test/onenode"
	"berth/workspace"
)

func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){"berth": main})
}

// leakless are tests that also fail when goroutines are left over.
type leakless struct{ *testing.M }

func (l leakless) Run() int {
	code := l.M.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// TestScripts runs the transcripts against a server of their own each. Besides
// testscript's commands they have
//
//	agent NAME PHASE [REASON [MESSAGE]]  the node reports a phase of NAME's run
//	lived NAME MS                        NAME's run has lived so many milliseconds
//	unreachable                          the leader doesn't hear from the node any more
//	waited NAME                          until somebody waits for NAME to change
//	followed N [listed]                  until N follow the events (and one has listed since)
//	exits CODE ARGUMENT...               berth with these arguments ends with this exit code
//	called logs|exec                     until a request for it is under way
//	writes NAME TEXT                     NAME's container writes a line
//	pulls NAME PERCENT                   so much of NAME's image has been pulled
//	freeport VARIABLE                    a port of this host that nobody has
//	serves VARIABLE                      a page on a port of the containers' loopback
//	fetches URL TEXT                     what a page says, once somebody listens there
//
// Every container has the directory inside as its root.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		Setup:               setup,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"agent":       agentCommand,
			"lived":       livedCommand,
			"waited":      waitedCommand,
			"unreachable": unreachableCommand,
			"followed":    followedCommand,
			"exits":       exitsCommand,
			"called":      calledCommand,
			"writes":      writesCommand,
			"pulls":       pullsCommand,
			"freeport":    freePortCommand,
			"serves":      servesCommand,
			"fetches":     fetchesCommand,
		},
	})
}

type serverKey struct{}

func setup(env *testscript.Env) error {
	// A socket's path may have 107 bytes; the work directory's alone can be longer.
	dir, err := os.MkdirTemp("", "berth")
	if err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(dir) })
	socket, refused := filepath.Join(dir, "s"), filepath.Join(dir, "r")
	server, err := onenode.Start(socket, refused, onenode.Config{Templates: templates()})
	if err != nil {
		return err
	}
	env.Defer(server.Close)
	env.Values[serverKey{}] = server
	server.Inside(filepath.Join(env.WorkDir, "inside"))
	env.Setenv("BERTH_SOCKET", socket)
	env.Setenv("REFUSED", refused)
	env.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second to end
	return nil
}

func templates() []workspace.Template {
	return []workspace.Template{
		{
			Name: "demo", Description: "a demo", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 30,
			Variables: []workspace.Variable{{Name: "port", Type: workspace.VarInt, Default: "8888"}},
			Resources: workspace.Resources{GPUCount: 1, CPUMilli: 500, MemoryMiB: 512, StorageMiB: 100},
		},
		{
			Name: "secretive", Image: "demo", Kind: workspace.KindInteractive, StopGrace: 30,
			Env:       []workspace.EnvVar{{Name: "PASSWORD", Value: "${password}"}},
			Variables: []workspace.Variable{{Name: "password", Type: workspace.VarSecret, Required: true}},
		},
		{
			Name: "job", Image: "demo", Kind: workspace.KindJob, Stoppable: true, StopGrace: 30, MaxDuration: 3600,
			Command:   []string{"/bin/sh", "-c", "${command}"},
			Variables: []workspace.Variable{{Name: "command", Type: workspace.VarString, Required: true}},
		},
		{
			Name: "fixed", Image: "demo", Kind: workspace.KindJob, Stoppable: true, StopGrace: 30, Command: []string{"true"},
		},
		{
			Name: "kept", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 30, VolumePath: "/data",
		},
		{
			Name: "notebook", Image: "demo", Kind: workspace.KindInteractive, Stoppable: true, StopGrace: 30,
			Ports:     []workspace.Port{{Name: "web", Number: "8888", Protocol: "HTTP", Path: "/lab?token=${token}"}},
			Variables: []workspace.Variable{{Name: "token", Type: workspace.VarSecret, Generate: true}},
		},
	}
}

// scriptTime bounds what a script's own commands wait for.
const scriptTime = 20 * time.Second

func server(ts *testscript.TestScript) *onenode.Server {
	return ts.Value(serverKey{}).(*onenode.Server)
}

func agentCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 4 {
		ts.Fatalf("usage: agent NAME PHASE [REASON [MESSAGE]]")
	}
	args = append(args, args[1], "said the node")
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	ts.Check(server(ts).Run(ctx, args[0], workspace.Phase(args[1]), args[2], args[3]))
}

func livedCommand(ts *testscript.TestScript, _ bool, args []string) {
	ms, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	ts.Check(server(ts).Lived(ctx, args[0], ms))
}

func unreachableCommand(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(server(ts).Unreachable())
}

func waitedCommand(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	ts.Check(server(ts).Waited(ctx, args[0]))
}

func followedCommand(ts *testscript.TestScript, _ bool, args []string) {
	streams, err := strconv.Atoi(args[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	ts.Check(server(ts).Followed(ctx, streams, slices.Contains(args, "listed")))
}

// exitsCommand runs berth and checks its exit code: exits 3 instance get none.
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE ARGUMENT...")
	}
	err := ts.Exec("berth", args[1:]...)
	var exit interface{ ExitCode() int }
	code := "0"
	if errors.As(err, &exit) {
		code = strconv.Itoa(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("berth can't be run: %v", err)
	}
	if code != args[0] {
		ts.Fatalf("berth %v ended with %s, want %s", args[1:], code, args[0])
	}
}
