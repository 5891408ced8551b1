package guard

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// serve runs a guard whose host is a fake. Its clock stands at 1000 ms.
func serve(t testing.TB) (*Client, *Server) {
	t.Helper()
	dir := t.TempDir()
	now := func() int64 { return 1000 }
	up := make(chan struct{})
	s := &Server{
		Dir: dir, Socket: socketIn(dir), BootID: testBoot, Now: now,
		processes: &fakeHost{now: now, alive: map[string]int{}}, Ready: func() { close(up) },
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-up:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return NewClient(s.Socket), s
}

func later(run string) Deadline {
	return Deadline{Run: run, BootID: testBoot, Kill: 60_000, Cgroups: []string{"/cg/" + run}}
}

func TestCalls(t *testing.T) {
	c, s := serve(t)
	ctx := t.Context()
	d := later("a")
	d.Term, d.Pid, d.Started, d.Notice, d.NoticeText = 30_000, 77, 5, "/n", "line\n\"quoted\"\n"
	if err := errors.Join(c.Set(ctx, d), c.Set(ctx, later("b")), c.Clear(ctx, "b"), c.Clear(ctx, "none")); err != nil {
		t.Fatal(err)
	}
	all, err := c.List(ctx)
	if err != nil || len(all) != 1 || fmt.Sprint(all[0].Deadline) != fmt.Sprint(d) {
		t.Errorf("%+v, %v", all, err)
	}
	earlier, foreign, bad := d, d, d
	earlier.Kill--
	foreign.BootID = "x"
	bad.Run = "../a"
	for _, refused := range []struct {
		err  error
		want error
	}{
		{c.Set(ctx, earlier), ErrEarlier}, {c.Set(ctx, foreign), ErrOtherBoot}, {c.Stop(ctx, bad), ErrInvalid},
		{c.Clear(ctx, ""), ErrInvalid}, {c.Quit(ctx), ErrBusy},
	} {
		if !errors.Is(refused.err, refused.want) || errors.Is(refused.err, ErrUnavailable) {
			t.Errorf("%v, want %v", refused.err, refused.want)
		}
	}
	if err := c.Stop(ctx, earlier); err != nil {
		t.Error(err)
	}
	status, err := c.Status(ctx)
	if err != nil || status.Pid != os.Getpid() || status.BootID != testBoot || status.Entries != 1 {
		t.Errorf("%+v, %v", status, err)
	}
	if err := (&Server{Dir: s.Dir, Socket: s.Socket + "2"}).Run(ctx); !errors.Is(err, ErrTaken) {
		t.Errorf("a second guard on the directory: %v", err)
	}
	for file, mode := range map[string]os.FileMode{s.Dir: 0o700, s.Socket: 0o600, s.book.store.path("a"): 0o600} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %o", file, info.Mode(), err, mode)
		}
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	if err := c.Set(stopped, d); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if err := errors.Join(c.Clear(ctx, "a"), c.Quit(ctx)); err != nil {
		t.Error(err)
	}
	eventually(t, "it has ended", func() bool { return errors.Is(c.Clear(ctx, "a"), ErrUnavailable) })
}

// TestConcurrency: many at once, each gets its own answer.
func TestConcurrency(t *testing.T) {
	c, _ := serve(t)
	var all sync.WaitGroup
	for i := range 24 {
		all.Go(func() {
			run := fmt.Sprint("r", i)
			for n := range 20 {
				d := later(run)
				d.Kill += int64(n)
				if err := c.Set(t.Context(), d); err != nil {
					t.Error(err)
					return
				}
				d.Kill--
				if err := c.Set(t.Context(), d); !errors.Is(err, ErrEarlier) {
					t.Error(err)
				}
			}
			if _, err := c.List(t.Context()); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				if err := c.Clear(t.Context(), run); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if left, err := c.List(t.Context()); err != nil || len(left) != 12 {
		t.Errorf("%d entries, %v", len(left), err)
	}
}

// TestBadInput never ends the guard, and is answered where there is a line.
func TestBadInput(t *testing.T) {
	c, s := serve(t)
	for name, sent := range map[string]string{
		"no JSON": "x\n", "no object": "[]\n", "nothing": "\n", "another operation": `{"op":"fly"}` + "\n",
		"no deadline": `{"op":"set"}` + "\n", "a list for a number": `{"op":"set","deadline":{"kill_ms":[1]}}` + "\n",
		"too large a number": `{"op":"set","deadline":{"kill_ms":1e99}}` + "\n",
		"a long line":        strings.Repeat("x", 4*maxLine) + "\n",
		"deep":               `{"op":` + strings.Repeat("[", 20_000) + "\n",
	} {
		conn, err := net.Dial("unix", s.Socket)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = conn.Write([]byte(sent)) }()
		var r reply
		line, err := bufio.NewReader(conn).ReadBytes('\n')
		if err == nil {
			err = json.Unmarshal(line, &r)
		}
		if err != nil || r.Code != "invalid" || len(r.Message) > 1000 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		_ = conn.Close()
	}
	var silent []net.Conn
	for range maxConns + 10 { // those over the bound are closed, not kept waiting
		conn, err := net.Dial("unix", s.Socket)
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
	}
	for _, conn := range silent {
		_ = conn.Close()
	}
	eventually(t, "it answers", func() bool {
		_, err := c.Status(t.Context())
		return err == nil
	})
}

// TestLeftOverSocket: the socket of a guard that was killed is replaced, another
// file isn't.
func TestLeftOverSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	l, err = listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(socket); err == nil {
		t.Error("a file was replaced")
	}
}

func FuzzAnswer(f *testing.F) {
	_, s := serve(f)
	for _, seed := range []string{
		`{"op":"set","deadline":{"run":"a","boot_id":"boot-1","term_ms":1,"kill_ms":2,"pid":7,"cgroups":["/cg/a"],"notice":"/n"}}`,
		`{"op":"stop","deadline":{"run":"a","boot_id":"boot-1","kill_ms":99999}}`, `{"op":"clear","run":"a"}`, `{"op":"list"}`, `{"op":"status"}`, `{"op":"\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		all, quit := s.answer(line)
		if quit {
			s.book.closed = false
		}
		if len(all) == 0 {
			t.Error("no answer")
		}
		for _, r := range all {
			if text, err := json.Marshal(r); err != nil || len(text) > 8*maxLine {
				t.Errorf("%d bytes, %v", len(text), err)
			}
		}
	})
}

// TestSlowClient doesn't hold the guard's end up.
func TestSlowClient(t *testing.T) {
	_, s := serve(t)
	conn, err := net.DialTimeout("unix", s.Socket, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(`{"op":`)); err != nil {
		t.Fatal(err)
	}
}
