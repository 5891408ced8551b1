package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"berth/workspace"
)

func calledCommand(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	ts.Check(server(ts).Called(ctx, args[0]))
}

func writesCommand(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	ts.Check(server(ts).Log(ctx, args[0], args[1]+"\n"))
}

func pullsCommand(ts *testscript.TestScript, _ bool, args []string) {
	percent, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), scriptTime)
	defer cancel()
	ts.Check(server(ts).Pull(ctx, args[0], workspace.PullProgress{
		Reference: "demo", DoneBytes: percent << 20, TotalBytes: 100 << 20, Layers: 5, LayersDone: 2}))
}

func freePortCommand(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	ts.Check(l.Close())
}

func servesCommand(ts *testscript.TestScript, _ bool, args []string) {
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "you are at %s of a container", r.URL.Path)
	}))
	ts.Defer(page.Close)
	ts.Setenv(args[0], strconv.Itoa(page.Listener.Addr().(*net.TCPAddr).Port))
}

func fetchesCommand(ts *testscript.TestScript, neg bool, args []string) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: scriptTime}
	for deadline := time.Now().Add(scriptTime); ; {
		res, err := client.Get(args[0])
		if err == nil {
			text, err := io.ReadAll(res.Body)
			res.Body.Close()
			ts.Check(err)
			if !strings.Contains(string(text), args[1]) {
				ts.Fatalf("%s says %q", args[0], text)
			}
			return
		}
		if neg && !errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
