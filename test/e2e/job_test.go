package e2e

import (
	"strings"
	"testing"

	"berth/workspace"
)

// submits waits for a job of the built-in template, whose shell runs a line.
func (d *daemon) submits(name, line string, more ...string) result {
	d.t.Helper()
	args := append([]string{"job", "submit", name, "--var", "image=" + imageName, "--cpus", "0.5", "--memory", "128MiB",
		"--storage", "64MiB", "--logs"}, more...)
	return d.types("", append(args, "--", line)...)
}

// A job's output and exit code are those of its command, retries included.
func TestJob(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()

	r := d.submits("good", "echo kept >$BERTH_RESULTS/out && cat $BERTH_RESULTS/out", "--gpus", "1")
	equal(t, "exit code of a job that succeeds", r.code, 0)
	equal(t, "its output", r.stdout, "kept\n")
	says(t, r.stderr, "good: STOPPED (exited): exit code 0")

	r = d.submits("bad", "echo attempt; exit 7", "--retries", "1")
	equal(t, "exit code of a job that fails", r.code, 7)
	equal(t, "output of its attempts", r.stdout, "attempt\nattempt\n")
	says(t, r.stderr, "restart 1 of 1", "bad: FAILED (exited): exit code 7")
	equal(t, "its attempts", reads[workspace.Instance](d, "instance", "get", "bad").Attempts, 2)

	r = d.submits("many", "true", "--gpus", "100")
	equal(t, "exit code of a job that is refused", r.code, 2)
	r = d.submits("most", "true", "--gpus", "64")
	equal(t, "exit code of a job that can't run here", r.code, 5)
	says(t, r.stderr, "gpu_count_impossible")

	if left := d.types("", "job", "wait", "good"); left.code != 0 || strings.Contains(left.stderr, "RUNNING") {
		t.Errorf("a second wait: %+v", left)
	}
	d.does("job", "rm", "good", "bad", "most", "--yes", "--wait")
	equal(t, "jobs left", d.does("job", "ls", "-o", "name"), "")
	d.allFree()
}

// A job that lives longer than it may is ended, and isn't tried again.
func TestJobOfAMaxDuration(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	r := d.submits("long", "echo begun; sleep 300", "--max-duration", "3s", "--retries", "3")
	if r.code == 0 {
		t.Error("it has succeeded")
	}
	equal(t, "its output", r.stdout, "begun\n")
	says(t, r.stderr, "long: FAILED (max_duration)", "3s")
	equal(t, "its attempts", reads[workspace.Instance](d, "instance", "get", "long").Attempts, 1)
}
