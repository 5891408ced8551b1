package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// proof is what the steps share.
type proof struct {
	*machine
	deb   string
	pid   string // of box's container, as the host counts
	acked int    // templates whose creation was acknowledged before the power cut
}

// explain shows what an operator would look at first.
func (p *proof) explain(ctx context.Context) {
	if p.client == nil {
		return
	}
	out, _ := p.sh(ctx, "systemctl --no-pager status berthd berthd.socket berth-guard 2>&1 | tail -n 40; journalctl --no-pager -u berthd -u berth-guard -n 60 2>&1; berth events 2>&1 | tail -n 30 || true")
	fmt.Fprintln(os.Stderr, out)
}

// eventually tries a script until it succeeds and says what is wanted.
func (p *proof) eventually(ctx context.Context, patience time.Duration, want, script string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := p.expect(ctx, want, script, args...)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", patience, err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// expect runs a script whose output must contain a text.
func (p *proof) expect(ctx context.Context, want, script string, args ...any) error {
	out, err := p.sh(ctx, script, args...)
	if err != nil {
		return err
	}
	if !strings.Contains(out, want) {
		return fmt.Errorf("%s: it says %q, not %q", fmt.Sprintf(script, args...), out, want)
	}
	return nil
}

// instance reads a field of an instance.
func (p *proof) instance(ctx context.Context, name, field string) (string, error) {
	out, err := p.sh(ctx, "berth instance get %s -o json", name)
	if err != nil {
		return "", err
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(out), &fields); err != nil {
		return "", fmt.Errorf("berth instance get: %w\n%s", err, out)
	}
	return fmt.Sprint(fields[field]), nil
}

// runsAnew waits until an instance runs with another run than the one of the boot
// before, which a daemon that has just started still tells of.
func (p *proof) runsAnew(ctx context.Context, name, before string) error {
	const look = `case $(berth instance get %s -o json) in *'"run": "%s"'*) ;; *'"status": "RUNNING"'*) echo anew ;; esac`
	return p.eventually(ctx, 2*time.Minute, "anew", look, name, before)
}

// containerPID is the first process of an instance's container.
func (p *proof) containerPID(ctx context.Context, name string) (string, error) {
	run, err := p.instance(ctx, name, "run")
	if err != nil {
		return "", err
	}
	return p.sh(ctx, "ctr -n berth task ls | awk -v run=%s '$1 == run { print $2 }'", run)
}

// sameContainer checks that box runs and that nothing has happened to its
// container.
func (p *proof) sameContainer(ctx context.Context) error {
	if err := p.eventually(ctx, time.Minute, `"status": "RUNNING"`, "berth instance get box -o json"); err != nil {
		return err
	}
	pid, err := p.containerPID(ctx, "box")
	if err == nil && (pid != p.pid || pid == "") {
		err = fmt.Errorf("the container's process is %q, it was %q", pid, p.pid)
	}
	return err
}

// demoImage makes the archive of the image that the host's instances run.
func demoImage(ctx context.Context, dir string) (string, error) {
	archive := filepath.Join(dir, "demo.tar")
	out, err := exec.CommandContext(ctx, "go", "run", "./test/image", "-o", archive, "-name", "demo:latest").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("make the image: %w: %s", err, out)
	}
	return archive, nil
}
