package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"berth/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon answers without a connection.
type daemon func(w http.ResponseWriter, r *http.Request)

func (d daemon) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body == nil {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	d(w, r)
	return w.Result(), nil
}

func (d daemon) client(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport = d
	return c
}

func refuse(w http.ResponseWriter, status int, code workspace.Code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"about:blank","status":%d,"code":%q,"detail":%q,"fields":{"name":"is required"},"request_id":"req-1"}`, status, code, detail)
}

// Every method sends what the native API takes.
func TestRequests(t *testing.T) {
	name, start, four := "n", false, 4
	cases := []struct {
		want string // method, path and body
		call func(ctx context.Context, c *Client) error
	}{
		{`POST /berth/v1/workspaces {"name":"n"}`, func(ctx context.Context, c *Client) error {
			_, err := c.CreateWorkspace(ctx, workspace.NewWorkspace{Name: &name})
			return err
		}},
		{`GET /berth/v1/workspaces/a%2Fb`, func(ctx context.Context, c *Client) error { _, err := c.Workspace(ctx, "a/b"); return err }},
		{`PATCH /berth/v1/workspaces/w {"name":null,"max_concurrent_runs":4}`, func(ctx context.Context, c *Client) error {
			_, err := c.UpdateWorkspace(ctx, "w", workspace.WorkspaceChange{Name: workspace.Optional[string]{Set: true}, LimitsChange: workspace.LimitsChange{MaxConcurrentRuns: &four}}, 0)
			return err
		}},
		{`PATCH /berth/v1/workspaces/w {"name":"n"}`, func(ctx context.Context, c *Client) error {
			_, err := c.UpdateWorkspace(ctx, "w", workspace.WorkspaceChange{Name: workspace.Optional[string]{Set: true, Value: &name}}, 0)
			return err
		}},
		{`PATCH /berth/v1/workspaces/w {}`, func(ctx context.Context, c *Client) error {
			_, err := c.UpdateWorkspace(ctx, "w", workspace.WorkspaceChange{}, 0)
			return err
		}},
		{`POST /berth/v1/workspaces/w/archive`, func(ctx context.Context, c *Client) error { _, err := c.ArchiveWorkspace(ctx, "w"); return err }},
		{`DELETE /berth/v1/workspaces/w`, func(ctx context.Context, c *Client) error { return c.DeleteWorkspace(ctx, "w") }},
		{`DELETE /berth/v1/templates/t`, func(ctx context.Context, c *Client) error { return c.DeleteTemplate(ctx, "t") }},
		{`GET /berth/v1/templates/t`, func(ctx context.Context, c *Client) error { _, err := c.Template(ctx, "t"); return err }},
		{`POST /berth/v1/instances {"name":"i","template":{"name":"t","variables":{"k":"v"}},"start":false}`, func(ctx context.Context, c *Client) error {
			_, err := c.CreateInstance(ctx, workspace.NewInstance{Name: "i", Template: workspace.TemplateChoice{Name: "t", Variables: map[string]string{"k": "v"}}, Start: &start})
			return err
		}},
		{`GET /berth/v1/instances/i`, func(ctx context.Context, c *Client) error { _, err := c.Instance(ctx, "i"); return err }},
		{`POST /berth/v1/instances/i/start`, func(ctx context.Context, c *Client) error { _, err := c.StartInstance(ctx, "i"); return err }},
		{`POST /berth/v1/instances/i/stop`, func(ctx context.Context, c *Client) error { _, err := c.StopInstance(ctx, "i"); return err }},
		{`POST /berth/v1/instances/i/restart`, func(ctx context.Context, c *Client) error { _, err := c.RestartInstance(ctx, "i"); return err }},
		{`DELETE /berth/v1/instances/i`, func(ctx context.Context, c *Client) error { _, err := c.DeleteInstance(ctx, "i"); return err }},
		{`GET /berth/v1/instances/i/explain`, func(ctx context.Context, c *Client) error { _, err := c.Explain(ctx, "i"); return err }},
		{`GET /berth/v1/instances?limit=5&status=RUNNING&workspace=%2A`, func(ctx context.Context, c *Client) error {
			_, err := c.Instances(ctx, ListOptions{Limit: 5, Status: "RUNNING", Workspace: "*"})
			return err
		}},
		{`GET /berth/v1/instances?kind=job`, func(ctx context.Context, c *Client) error {
			_, err := c.Instances(ctx, ListOptions{Kind: "job"})
			return err
		}},
		{`GET /berth/v1/runs?kind=external&latest=true`, func(ctx context.Context, c *Client) error {
			_, err := c.Runs(ctx, ListOptions{Kind: "external", Latest: true})
			return err
		}},
		{`POST /berth/v1/instances/i/extend {"to_be_deleted_at":"2026-01-02T02:04:05Z"}`, func(ctx context.Context, c *Client) error {
			_, err := c.Extend(ctx, "i", time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("CET", 3600)))
			return err
		}},
		{`POST /berth/v1/instances/i/extend {"to_be_deleted_at":null}`, func(ctx context.Context, c *Client) error {
			_, err := c.Extend(ctx, "i", time.Time{})
			return err
		}},
		{`POST /berth/v1/external-runs {"user":"eve","name":"eval","rate_micro_usd_per_hour":5,"lease_seconds":60}`, func(ctx context.Context, c *Client) error {
			_, err := c.StartExternal(ctx, workspace.NewExternalRun{User: "eve", Name: "eval", Rate: 5, LeaseSeconds: 60})
			return err
		}},
		{`POST /berth/v1/external-runs/r/renew`, func(ctx context.Context, c *Client) error { _, err := c.RenewExternal(ctx, "r"); return err }},
		{`POST /berth/v1/external-runs/r/end {"phase":"failed","exit_code":4}`, func(ctx context.Context, c *Client) error {
			_, err := c.EndExternal(ctx, "r", workspace.ExternalEnd{Phase: workspace.PhaseFailed, ExitCode: &four})
			return err
		}},
		{`GET /berth/v1/runs/r`, func(ctx context.Context, c *Client) error { _, err := c.Run(ctx, "r"); return err }},
		{`GET /berth/v1/instances/i/runs`, func(ctx context.Context, c *Client) error {
			_, err := c.InstanceRuns(ctx, "i", ListOptions{})
			return err
		}},
		{`POST /berth/v1/placements:dry-run {"template":"t"}`, func(ctx context.Context, c *Client) error {
			_, err := c.DryRun(ctx, workspace.DryRun{Template: "t"})
			return err
		}},
		{`DELETE /berth/v1/images?node=h&reference=demo%3Alatest`, func(ctx context.Context, c *Client) error { return c.RemoveImage(ctx, "demo:latest", "h") }},
		{`POST /berth/v1/images?name=x archive`, func(ctx context.Context, c *Client) error {
			_, err := c.ImportImage(ctx, strings.NewReader("archive"), ImportOptions{Name: "x"}, nil)
			return err
		}},
		{`GET /berth/v1/status`, func(ctx context.Context, c *Client) error { _, err := c.Status(ctx); return err }},
		{`GET /version`, func(ctx context.Context, c *Client) error { _, err := c.Version(ctx); return err }},
		{`GET /berth/v1/nodes/h`, func(ctx context.Context, c *Client) error { _, err := c.Node(ctx, "h"); return err }},
		{`GET /berth/v1/devices/GPU-1`, func(ctx context.Context, c *Client) error { _, err := c.Device(ctx, "GPU-1"); return err }},
	}
	for _, k := range cases {
		t.Run(k.want, func(t *testing.T) {
			var got string
			var header http.Header
			c := daemon(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				got, header = strings.TrimSpace(r.Method+" "+r.URL.RequestURI()+" "+string(body)), r.Header
				fmt.Fprint(w, `{}`)
			}).client(t, Options{Token: "secret", Workspace: "team"})
			if err := k.call(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if got != k.want {
				t.Errorf("sent %s", got)
			}
			if header.Get("Authorization") != "Bearer secret" || header.Get("X-Berth-Workspace") != "team" {
				t.Errorf("headers %v", header)
			}
			write := !strings.HasPrefix(got, "GET") && !strings.Contains(got, "POST /berth/v1/images")
			if (header.Get("Idempotency-Key") != "") != write {
				t.Errorf("Idempotency-Key %q", header.Get("Idempotency-Key"))
			}
		})
	}
}

func TestIfMatch(t *testing.T) {
	c := daemon(func(w http.ResponseWriter, r *http.Request) {
		refuse(w, 412, workspace.CodeTooOld, "If-Match "+r.Header.Get("If-Match"))
	}).client(t, Options{})
	_, err := c.UpdateWorkspace(t.Context(), "w", workspace.WorkspaceChange{}, 12)
	if workspace.CodeOf(err) != workspace.CodeTooOld || !strings.Contains(err.Error(), `If-Match "12"`) {
		t.Error(err)
	}
}

func TestProblems(t *testing.T) {
	c := daemon(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 409, workspace.CodeConcurrency, "too many") }).client(t, Options{})
	_, err := c.Status(t.Context())
	var e *workspace.Error
	want := &workspace.Error{Code: workspace.CodeConcurrency, Message: "too many", Fields: map[string]string{"name": "is required"}}
	if !errors.As(err, &e) || cmp.Diff(want, e) != "" {
		t.Errorf("%v", err)
	}
	c = daemon(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 500, workspace.CodeInternal, "a fault") }).client(t, Options{})
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "request req-1") {
		t.Errorf("an internal error doesn't name its request: %v", err)
	}
	c = daemon(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "hello", http.StatusBadGateway) }).client(t, Options{})
	if _, err := c.Status(t.Context()); workspace.CodeOf(err) != workspace.CodeInternal || !strings.Contains(err.Error(), "is this a berthd?") {
		t.Errorf("an answer of something else: %v", err)
	}
	c = daemon(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }).client(t, Options{})
	if _, err := c.Status(t.Context()); err == nil {
		t.Error("no JSON was taken")
	}
}

// A daemon without a leader is asked again, with the same key, so that the
// write happens once.
func TestRetries(t *testing.T) {
	var keys []string
	failures := 2
	d := daemon(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		keys = append(keys, r.Header.Get("Idempotency-Key")+string(body))
		if len(keys) <= failures {
			w.Header().Set("Retry-After", "0")
			refuse(w, 503, workspace.CodeUnavailable, "no leader")
			return
		}
		fmt.Fprint(w, `{"id":"w1"}`)
	})
	c := d.client(t, Options{})
	w, err := c.CreateWorkspace(WithIdempotencyKey(t.Context(), "k"), workspace.NewWorkspace{Slug: "s"})
	if err != nil || w.ID != "w1" || cmp.Diff([]string{`k{"slug":"s"}`, `k{"slug":"s"}`, `k{"slug":"s"}`}, keys) != "" {
		t.Errorf("%v, %v after %q", w, err, keys)
	}
	keys, failures = nil, 100
	if _, err := c.Status(t.Context()); workspace.CodeOf(err) != workspace.CodeUnavailable || len(keys) != retries {
		t.Errorf("%v after %d tries", err, len(keys))
	}
	keys = nil
	if _, err := c.ImportImage(t.Context(), strings.NewReader("x"), ImportOptions{}, nil); err == nil || len(keys) != 1 {
		t.Errorf("an archive was sent %d times: %v", len(keys), err)
	}
	calls := 0
	c = daemon(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		refuse(w, 503, workspace.CodeUnavailable, "not ready")
	}).client(t, Options{})
	if _, err := c.Status(t.Context()); err == nil || calls != 1 {
		t.Errorf("without Retry-After: %d tries, %v", calls, err)
	}
}

func TestAll(t *testing.T) {
	asked := 0
	c := daemon(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.Header().Set("X-Total-Count", "3")
		pages := map[string]string{
			"":  `{"items":[{"id":"1"},{"id":"2"}],"next_cursor":"c"}`,
			"c": `{"items":[{"id":"3"}],"next_cursor":""}`,
		}
		text, ok := pages[r.URL.Query().Get("cursor")]
		if !ok || r.URL.Query().Get("name") != "n" {
			refuse(w, 400, workspace.CodeMalformed, "bad cursor")
			return
		}
		fmt.Fprint(w, text)
	}).client(t, Options{})
	var ids []string
	for i, err := range All(t.Context(), c.Instances, ListOptions{Name: "n"}) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, i.ID)
	}
	if strings.Join(ids, "") != "123" || asked != 2 {
		t.Errorf("%v after %d requests", ids, asked)
	}
	for range All(t.Context(), c.Instances, ListOptions{Name: "n"}) {
		break
	}
	if asked != 3 {
		t.Errorf("%d requests, though the caller had enough", asked)
	}
	failed := 0
	for _, err := range All(t.Context(), c.Instances, ListOptions{Cursor: "x"}) {
		if workspace.CodeOf(err) == workspace.CodeMalformed {
			failed++
		}
	}
	if failed != 1 {
		t.Errorf("%d errors, want one and the end", failed)
	}
	if p, err := c.Instances(t.Context(), ListOptions{Name: "n"}); err != nil || p.Total != 3 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestUnreachable(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	c, err := New(Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	expect := func(code workspace.Code, parts ...string) {
		t.Helper()
		_, err := c.Status(t.Context())
		for _, part := range append(parts, c.where()) {
			if workspace.CodeOf(err) != code || !strings.Contains(err.Error(), part) {
				t.Errorf("%v, want %s with %q", err, code, part)
			}
		}
		if strings.Contains(err.Error(), "http://berthd") {
			t.Errorf("a made-up address in %v", err)
		}
	}
	expect(workspace.CodeUnavailable, "no such socket", "systemctl status berthd")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	expect(workspace.CodeUnavailable, "nobody listens", "systemctl status berthd")
	// Root may open every socket, so the kernel's word is put in.
	denied := &url.Error{Op: "Get", URL: "http://berthd/", Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}}
	if err := c.unreachable(t.Context(), denied); workspace.CodeOf(err) != workspace.CodeDenied || !strings.Contains(err.Error(), "usermod -aG berth") {
		t.Error(err)
	}
	if c, err = New(Options{Addr: "http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	expect(workspace.CodeUnavailable, "is the address right")
	for _, bad := range []string{"host:1", "ftp://host", "http://", "::"} {
		if _, err := New(Options{Addr: bad}); workspace.CodeOf(err) != workspace.CodeInvalid {
			t.Errorf("address %q: %v", bad, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Status(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("after ctx ended: %v", err)
	}
}

func TestOverASocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(workspace.VersionInfo{Version: "9"})
	})}}
	s.Start()
	defer s.Close()
	c, err := New(Options{Socket: socket})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v, err := c.Version(t.Context()); err != nil || v.Version != "9" {
		t.Errorf("%v, %v", v, err)
	}
}
