package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"berth/workspace"
)

// page asks an instance's published port for its page.
func (d *daemon) page(name string) (port int) {
	d.t.Helper()
	d.eventually("the page of "+name+" is served", func(ctx context.Context) error {
		inst, err := d.client.Instance(ctx, name)
		if err != nil {
			return err
		}
		if len(inst.Access) != 1 {
			return fmt.Errorf("its ways in are %+v", inst.Access)
		}
		port = inst.Access[0].Port
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s:%d/", inst.Access[0].Host, port), nil)
		if err != nil {
			return err
		}
		response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 2 * time.Second}).Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if body, err := io.ReadAll(response.Body); err != nil || strings.TrimSpace(string(body)) != "hello" {
			return fmt.Errorf("it answers %q (%w)", body, err)
		}
		return nil
	})
	return port
}

// A published port is the instance's: over stops, starts and daemons. Only when
// something else has it does the instance get another, and says so.
func TestPublishedPort(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.served("web", "count")
	d.create("box", "web")
	d.waitFor("box", "running")
	port := d.page("box")
	d.signal(15)
	d.up()
	if again := d.page("box"); again != port {
		t.Errorf("published at %d, and at %d after a restart of the daemon", port, again)
	}
	d.stop("box")
	d.startAgain("box")
	if again := d.page("box"); again != port {
		t.Errorf("published at %d, and at %d after a stop and a start", port, again)
	}
	d.stop("box")
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	d.startAgain("box")
	moved := d.page("box")
	if moved == port {
		t.Fatalf("published at %d, which something else has", port)
	}
	inst, err := d.client.Instance(t.Context(), "box")
	if err != nil {
		t.Fatal(err)
	}
	says(t, inst.Message, "page", fmt.Sprint(moved), "something else")
}

// Containers of two workspaces reach neither each other nor the host.
func TestWorkspacesAreApart(t *testing.T) {
	d := newDaemon(t)
	d.up()
	d.prepare()
	d.served("web", "count")
	if _, err := d.client.CreateWorkspace(t.Context(), workspace.NewWorkspace{Slug: "others"}); err != nil {
		t.Fatal(err)
	}
	d.create("box", "web")
	theirs := d.asked("theirs", "web", func(n *workspace.NewInstance) { n.Workspace = "others" }).ID
	d.waitFor("box", "running")
	inst := d.waitFor(theirs, "running")

	host, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	go serveHello(host)
	_, hostPort, err := net.SplitHostPort(host.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	address := strings.Fields(d.must(theirs, "hostname -i"))[0]
	gateway := strings.TrimSuffix(d.subnet, "0/24") + "1"
	// busybox's own wget doesn't work on every processor.
	ask := func(from, host, port string) (bool, string) {
		_, said := d.inside(from, fmt.Sprintf("printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 %s %s", host, port))
		return strings.Contains(said, "hello"), said
	}
	if ok, said := ask(theirs, address, "8080"); !ok {
		t.Fatalf("it doesn't reach itself at %s: %s", address, said)
	}
	if ok, said := ask("box", "127.0.0.1", "8080"); !ok {
		t.Fatalf("a container doesn't reach itself: %s", said)
	}
	for what, at := range map[string][2]string{
		"another workspace's container":      {address, "8080"},
		"another workspace's published port": {gateway, strconv.Itoa(inst.Access[0].Port)},
		"the host":                           {gateway, hostPort},
	} {
		if ok, said := ask("box", at[0], at[1]); ok || said == "" {
			t.Errorf("it reaches %s at %v: %q", what, at, said)
		}
	}
	if status, body := get(t, "http://127.0.0.1:"+hostPort); status != http.StatusOK || body != "hello" {
		t.Errorf("the host doesn't reach itself: %d %s", status, body)
	}
}

func serveHello(l net.Listener) {
	_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
}
