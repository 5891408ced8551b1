package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A scrape from another host tells of a run that starts, and, of a daemon that
// was killed, that it has adopted it and started none.
func TestRemoteScrape(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	d := newDaemon(t, "--metrics-listen", address)
	token := filepath.Join(d.dir, "token")
	if err := os.WriteFile(token, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.args = append(d.args, "--metrics-bearer-file", token)
	scrape := func(authorization string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(body)
	}
	tells := func(what string, lines ...string) {
		t.Helper()
		d.eventually(what, func(context.Context) error {
			status, body := scrape("Bearer s3cret")
			for _, line := range lines {
				if !strings.Contains(body, "\n"+line+"\n") {
					family, _, _ := strings.Cut(line, "{")
					return fmt.Errorf("%d, no line %s; there are %q", status, line, linesWith(body, family))
				}
			}
			return nil
		})
	}
	d.up()
	if status, body := scrape(""); status != http.StatusUnauthorized || strings.Contains(body, "berth_") {
		t.Errorf("without the token: %d %s", status, body)
	}
	d.prepare()
	d.create("box", "demo")
	d.waitFor("box", "running")
	tells("the run is counted", `berth_run_starts_total{kind="interactive"} 1`, `berth_runs{kind="interactive",phase="running"} 1`,
		`berth_agent_containers_total{action="started"} 1`, `berth_devices_held{type="A100-SXM4-80GB"} 1`, "berth_raft_terms_led_total 1",
		`berth_api_requests_total{code="2xx",method="POST",route="/berth/v1/instances"} 1`, "berth_run_start_seconds_count 1",
		`berth_runs_leased{hard="false"} 1`, `berth_kill_switch{scope="cluster",workspace=""} 0`, "berth_guard_up 1", "berth_history_failed 0")
	_, body := scrape("Bearer s3cret")
	check := exec.Command("promtool", "check", "metrics")
	check.Stdin = strings.NewReader(body)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("promtool: %v\n%s", err, out)
	}
	d.kill()
	d.up()
	tells("the run is adopted", `berth_run_starts_total{kind="interactive"} 0`, `berth_runs{kind="interactive",phase="running"} 1`,
		`berth_agent_containers_total{action="adopted"} 1`)
	d.stopAndCheck("box")
	tells("its end is counted", `berth_run_ends_total{phase="stopped",reason="stop_requested"} 1`)
}

func linesWith(text, part string) (found []string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, line)
		}
	}
	return found
}
