package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"berth/workspace"
)

// jupyter imports the image with Jupyter; the first time it is built.
func (d *daemon) jupyter() {
	d.t.Helper()
	archive, err := filepath.Abs("../../build/jupyter.tar")
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := os.Stat(archive); err != nil {
		build := exec.Command("go", "run", "./test/image/jupyter", "-o", archive)
		build.Dir = "../.."
		if out, err := build.CombinedOutput(); err != nil {
			d.t.Fatalf("build the image: %v\n%s", err, out)
		}
	}
	d.does("image", "import", archive)
}

// step is something that is done in a page.
type step = chromedp.Action[chromedp.Void]

// browser is a page of a headless Chromium.
func browser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium-headless-shell", "chromium", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Fatal("no Chromium is in PATH: apt-get install chromium-headless-shell")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1200, 800),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(stop)
	ctx, stop = chromedp.NewContext(ctx)
	t.Cleanup(stop)
	// The browser lives as long as the context of the first call: without a timeout.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return ctx
}

// browse carries actions out; where they fail, the page is kept to be looked at.
func browse(t *testing.T, ctx context.Context, what string, actions ...step) {
	t.Helper()
	bounded, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := chromedp.Do(bounded, actions...)
	if err == nil {
		return
	}
	look(ctx, "notebook-failed.png")
	t.Fatalf("%s: %v (build/notebook-failed.png shows the page)", what, err)
}

// look keeps a picture of the page in build/.
func look(ctx context.Context, name string) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if picture, err := chromedp.Run(ctx, chromedp.CaptureScreenshot()); err == nil {
		_ = os.WriteFile(filepath.Join("../../build", name), picture, 0o644)
	}
}

// shows waits until a JavaScript expression holds, in whatever page is there then.
func shows(expression string) step {
	return func(ctx context.Context, target *chromedp.Target) (chromedp.Void, error) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			holds, err := chromedp.Evaluate[bool](expression)(ctx, target)
			if holds {
				return chromedp.Void{}, nil
			}
			select {
			case <-ctx.Done():
				return chromedp.Void{}, fmt.Errorf("%s: %w (%w)", expression, ctx.Err(), err)
			case <-tick.C:
			}
		}
	}
}

// exampleInstance is that of the exalsius page, but for its image and its
// volume: 100 GB needn't be free where this runs.
const exampleInstance = `{
  "name": "my-jupyter-workspace",
  "description": "My machine learning workspace",
  "template": {"name": "jupyter-notebook", "variables": {"notebook_port": "8888", "image": "jupyter:latest"}},
  "resources": {"gpu_count": 1, "gpu_type": "A100", "gpu_vendor": "NVIDIA", "cpu_milli": 4000, "memory_mib": 16384, "storage_mib": 1024}
}`

const nb = "my-jupyter-workspace"

// A researcher's first hour: a notebook with a GPU, opened in a browser with the
// token of its own; a cell that is run; and all of it there again after stop and
// start.
func TestNotebook(t *testing.T) {
	d := newDaemon(t, "--node-cpu-milli", "8000", "--node-memory-mib", "65536", "--node-storage-mib", "204800")
	d.up()
	d.jupyter()
	r := d.types(exampleInstance, "instance", "create", "-f", "-", "--wait")
	if r.code != 0 {
		t.Fatalf("create: exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	// Running means that the page answers: at once, without a second try.
	first := d.way()
	says(t, r.stdout+r.stderr, first.String())
	answers(t, first)
	d.notebookLimits()

	ctx := browser(t)
	bare := *first
	bare.RawQuery = ""
	browse(t, ctx, "without its token, a page to log in", chromedp.Navigate(bare.String()), chromedp.WaitVisible("#password_input"))
	browse(t, ctx, "with its token, the files", chromedp.Navigate(first.String()), chromedp.WaitVisible("#new-dropdown-button"))
	newNotebook(t, ctx)
	saved := d.notebookFile()
	if !strings.Contains(saved, "print(6*7)") || !strings.Contains(saved, `"42\n"`) {
		t.Errorf("the file in the container: %s", saved)
	}
	look(ctx, "notebook.png")

	d.does("instance", "stop", nb, "--wait")
	d.refused(first.Host)
	d.does("instance", "start", nb, "--wait")
	again := d.way()
	equal(t, "the page after stop and start", again.String(), first.String())
	answers(t, again)
	equal(t, "the notebook after stop and start", d.notebookFile(), saved)
	// A page of its own: the first asks whether one really wants to leave it.
	ctx, shut := chromedp.NewContext(ctx)
	defer shut()
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	browse(t, ctx, "the notebook, with its output", chromedp.Navigate(again.JoinPath("notebooks/Untitled.ipynb").String()),
		shows(`document.querySelector('.output_area .output_stdout pre')?.innerText.trim() === '42'`))
}

// way is the notebook's page, as berth tells it.
func (d *daemon) way() *url.URL {
	d.t.Helper()
	access := reads[workspace.Access](d, "instance", "access", nb)
	if len(access.Ways) != 1 || access.Secrets["token"] == "" {
		d.t.Fatalf("access: %+v", access)
	}
	u, err := url.Parse(access.Ways[0].URL)
	if err != nil || u.Query().Get("token") != access.Secrets["token"] {
		d.t.Fatalf("the page %s has another token than %s (%v)", access.Ways[0].URL, access.Secrets["token"], err)
	}
	return u
}

// refused waits until nothing listens on a published port.
func (d *daemon) refused(address string) {
	d.t.Helper()
	d.eventually("the port is closed", func(context.Context) error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		switch {
		case err == nil:
			_ = conn.Close()
			return errors.New("it answers")
		case !errors.Is(err, syscall.ECONNREFUSED):
			return err
		}
		return nil
	})
}

// answers checks that a page is there.
func answers(t *testing.T, page *url.URL) {
	t.Helper()
	r, err := http.Get(page.String())
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, r.Body)
	if err = errors.Join(err, r.Body.Close()); err != nil || r.StatusCode != http.StatusOK {
		t.Errorf("%s: %s (%v)", page, r.Status, err)
	}
}

// notebookLimits checks what a process of the container has: as whom, where, and
// how much.
func (d *daemon) notebookLimits() {
	d.t.Helper()
	said := d.does("exec", nb, "--", "sh", "-c", `id -un; id -u; echo $HOME; stat -c %U "$HOME"; grep " $HOME " /proc/self/mountinfo | grep -c ext4; ls /dev | grep -c '^nvidia[0-9]'`)
	equal(d.t, "user, home and GPUs", strings.Join(strings.Fields(said), " "), "jovyan 1000 /home/jovyan jovyan 1 1")
	run := reads[workspace.Instance](d, "instance", "get", nb).Run
	var quota, period int
	if raw, err := os.ReadFile("/sys/fs/cgroup" + cgroupParent + "/" + run + "/cpu.max"); err == nil {
		_, err = fmt.Sscan(string(raw), &quota, &period)
		if err != nil {
			d.t.Fatal(err)
		}
	} else {
		cpu := "/sys/fs/cgroup/cpu" + cgroupParent + "/" + run
		quota, period = number(d.t, cpu+"/cpu.cfs_quota_us"), number(d.t, cpu+"/cpu.cfs_period_us")
	}
	if quota != 4*period {
		d.t.Errorf("the quota is %d µs in %d, not 4 cores", quota, period)
	}
}

func number(t *testing.T, path string) (n int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err == nil {
		_, err = fmt.Sscan(string(raw), &n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// newNotebook makes one as a user does, runs a cell in it, and saves it.
func newNotebook(t *testing.T, ctx context.Context) {
	t.Helper()
	browse(t, ctx, "the menu of new files", chromedp.Click("#new-dropdown-button"), chromedp.WaitVisible("#kernel-python3 a"),
		// Another page can't be opened from here: it stays in this one.
		chromedp.Evaluate[chromedp.Void](`window.open = () => window`), chromedp.Click("#kernel-python3 a"))
	browse(t, ctx, "an idle kernel", shows(`location.pathname.endsWith('/Untitled.ipynb')`), chromedp.WaitVisible(".kernel_idle_icon"), chromedp.WaitVisible(".cell.selected .CodeMirror"))
	browse(t, ctx, "a cell is run", chromedp.Click(".cell.selected .CodeMirror"), chromedp.KeyEvent("print(6*7)"),
		chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierShift)),
		shows(`document.querySelector('.output_area .output_stdout pre')?.innerText.trim() === '42'`))
	browse(t, ctx, "saved", chromedp.KeyEvent(kb.Escape), chromedp.KeyEvent("s"),
		shows(`Jupyter.notebook.dirty === false`))
}

// notebookFile is the file that the page has saved, on the volume.
func (d *daemon) notebookFile() string {
	d.t.Helper()
	raw := d.does("exec", nb, "--", "cat", "/home/jovyan/Untitled.ipynb")
	if !json.Valid([]byte(raw)) {
		d.t.Fatalf("the notebook isn't whole: %q", raw)
	}
	return raw
}
