package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// command is berth, as a user types it.
func (d *daemon) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(host.bin, "berth"), args...)
	cmd.Env = append(os.Environ(), "BERTH_SOCKET="+d.socket())
	return cmd
}

// result is what a command of a user ended with.
type result struct {
	code           int
	stdout, stderr string
}

// types runs berth with this on its standard input, within a minute.
func (d *daemon) types(stdin string, args ...string) result {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), time.Minute)
	defer cancel()
	cmd := d.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		d.t.Fatal(err)
	}
	if ctx.Err() != nil {
		d.t.Fatalf("berth %q: %v\n%s%s", args, ctx.Err(), stdout.String(), stderr.String())
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// does runs a command of berth that must work, and gives its output.
func (d *daemon) does(args ...string) string {
	d.t.Helper()
	r := d.types("", args...)
	if r.code != 0 {
		d.t.Fatalf("berth %q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// reads runs a command of berth and reads the document that it writes.
func reads[T any](d *daemon, args ...string) T {
	d.t.Helper()
	var v T
	if err := json.Unmarshal([]byte(d.does(append(args, "-o", "json")...)), &v); err != nil {
		d.t.Fatalf("berth %q: %v", args, err)
	}
	return v
}

// equal compares what was seen with what must be.
func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, not %v", what, got, want)
	}
}
