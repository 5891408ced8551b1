package rules

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// Each rule is shown trees: want is a part of what it must say, or empty where
// it must keep quiet.

func TestRulesOnTrees(t *testing.T) {
	budget := func(s *tree) []string { return checkBudget(s, map[string]string{"agent.T.reasoned": "a reason"}) }
	long := strings.Repeat("\n", maxFunctionLines)
	// within is the exception that checkBudget above must find in use.
	within := "func (t *T) reasoned() {" + long + "}\n"
	cases := []struct {
		name  string
		check func(*tree) []string
		files map[string]string
		want  string
	}{
		{"allowed edge", checkImports, files("agent/a.go", `package agent; import "berth/runtime"`), ""},
		{"unlisted edge", checkImports, files("agent/a.go", `package agent; import "berth/state"`), "agent may not import state"},
		{"edge behind a build tag", checkImports, files("gpu/a.go", "//go:build mutant_x\n\npackage gpu\nimport \"berth/workspace\""), "gpu may not import workspace"},
		{"edge of a test", checkImports, files("agent/a_test.go", `package agent; import "berth/cluster"`), "agent may not import cluster"},
		{"unlisted package", checkImports, files("queue/a.go", `package queue`), "queue: no row"},
		{"unlisted subpackage", checkImports, files("state/log/a.go", `package log`), "state/log: no row"},
		{"package at the root", checkImports, files("a.go", `package berth`), ".: no row"},
		{"fake in a test", checkImports, files("agent/a_test.go", `package agent; import "berth/gpu/gputest"`), ""},
		{"own fake in a test", checkImports, files("gpu/a_test.go", `package gpu_test; import ("berth/gpu"; "berth/gpu/gputest")`), ""},
		{"fake in the daemon", checkImports, files("cmd/berthd/a.go", `package main; import "berth/gpu/gputest"`), "cmd/berthd may not import gpu/gputest"},
		{"foreign fake in a test", checkImports, files("client/a_test.go", `package client; import "berth/runtime/runtimetest"`), "client may not import runtime/runtimetest"},
		{"test tool in a test", checkImports, files("runtime/containerd/a_test.go", `package containerd; import "berth/test/image"`), ""},
		{"test tool in the client", checkImports, files("cmd/berth/a.go", `package main; import "berth/test/image"`), "cmd/berth may not import test/image"},
		{"everything in test", checkImports, files("test/cluster/a.go", `package cluster; import ("berth/state"; "berth/agent"; "berth/gpu/gputest")`), ""},

		{"adapter's library in its place", checkAdapters, files("cluster/a.go", `package cluster; import "github.com/hashicorp/raft"`), ""},
		{"raft store elsewhere", checkAdapters, files("state/a.go", `package state; import "github.com/hashicorp/raft-boltdb/v2"`), "only cluster imports github.com/hashicorp/raft"},
		{"containerd elsewhere", checkAdapters, files("agent/a.go", `package agent; import "github.com/containerd/containerd/v2/client"`), "only runtime/containerd"},
		{"prometheus elsewhere", checkAdapters, files("api/a.go", `package api; import "github.com/prometheus/client_golang/prometheus"`), "only metrics"},
		{"nvml elsewhere", checkAdapters, files("gpu/a.go", `package gpu; import "github.com/NVIDIA/go-nvml/pkg/nvml"`), "only gpu/nvml"},

		{"runtime named", checkImportNames, files("agent/a.go", `package agent; import goruntime "runtime"`), ""},
		{"runtime unnamed", checkImportNames, files("agent/a_test.go", `package agent; import "runtime"`), "as goruntime"},
		{"our runtime renamed", checkImportNames, files("agent/a.go", `package agent; import rt "berth/runtime"`), "not rt"},

		{"one comment", checkPackageComments, files("gpu/a.go", "// Package gpu is.\npackage gpu", "gpu/b.go", "package gpu"), ""},
		{"no comment", checkPackageComments, files("gpu/a.go", "//go:build linux\n\npackage gpu"), "gpu: no file has a package comment"},
		{"two comments", checkPackageComments, files("gpu/a.go", "// Package gpu is.\npackage gpu", "gpu/b.go", "// Package gpu is too.\npackage gpu"), "gpu/a.go, gpu/b.go: keep one"},
		{"comment of another name", checkPackageComments, files("gpu/a.go", "// GPUs and more.\npackage gpu"), "starts with"},

		{"file at the limit", budget, files("agent/a.go", "package agent\n"+within+strings.Repeat("\n", maxFileLines-maxFunctionLines-2)), ""},
		{"file over the limit", budget, files("agent/a.go", "package agent\n"+within+strings.Repeat("\n", maxFileLines-maxFunctionLines-1)), "601 lines"},
		{"function over the limit", budget, files("agent/a.go", "package agent\n"+within+"func f() {"+long+"}"), "agent.f has 61 lines"},
		{"function in a test", budget, files("agent/a.go", "package agent\n"+within, "agent/a_test.go", "package agent\nfunc f() {"+long+"}"), ""},
		{"exception not in use", budget, files("agent/a.go", "package agent\n"), "agent.T.reasoned is within the budget"},

		{"folder util", checkFolderNames, files("state/util/a.go", "package util"), "state/util"},
		{"folder helpers", checkFolderNames, files("helpers/a.go", "package helpers"), "helpers"},
		{"a program's name", checkFolderNames, files("cmd/berth-helper/a.go", "package main"), ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fsys := fstest.MapFS{}
			for _, dir := range []string{"gpu/testdata", ".git", "_old", "build/tools", "bin"} {
				fsys[dir+"/x.go"] = &fstest.MapFile{Data: []byte("not Go")}
			}
			for name, text := range c.files {
				fsys[name] = &fstest.MapFile{Data: []byte(text)}
			}
			source, err := load(fsys)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, c.check(source), c.want)
		})
	}
}

func files(pairs ...string) map[string]string {
	m := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = pairs[i+1]
	}
	return m
}

func expect(t *testing.T, problems []string, want string) {
	t.Helper()
	all := strings.Join(problems, "\n")
	if want == "" && all != "" {
		t.Errorf("the rule complains of what is fine:\n%s", all)
	}
	if !strings.Contains(all, want) {
		t.Errorf("the rule says %q, want something with %q", all, want)
	}
}

func TestImportMapRule(t *testing.T) {
	expect(t, checkImportMap(map[string][]string{"gpu": {}, "gpu/nvml": {"gpu"}}), "")
	expect(t, checkImportMap(map[string][]string{"gpu": {}, "gpu/nvml": {"gpu", "state"}}), "gpu/nvml may import state, which its parent gpu may not")
}

func TestPurityRule(t *testing.T) {
	cases := []struct{ name, imports, body, want string }{
		{"plain", `"time"`, "func f(at time.Time) time.Time { return at.Add(time.Second).UTC() }", ""},
		{"sorted keys", `"maps"; "slices"`, "func f(m map[string]int) { for range slices.Sorted(maps.Keys(m)) {} }", ""},
		{"sync and net/netip", `"sync"; "net/netip"`, "var mu sync.Mutex; var _ netip.Addr", ""},
		{"clock", `"time"`, "var f = time.Now", "may not use time.Now"},
		{"clock under another name", `clock "time"`, "func f() bool { return clock.Since(clock.Time{}) > 0 }", "may not use time.Since"},
		{"clock by a timer", `"time"`, "func f() { <-time.After(1) }", "may not use time.After"},
		{"the host's time zone", `"time"`, "func f(t time.Time) time.Time { return t.In(time.Local) }", "may not use time.Local"},
		{"the host's time zone by method", `"time"`, "func f(t time.Time) time.Time { return t.Local() }", "may not use (time.Time).Local"},
		{"deadline", `"context"`, "var f = context.WithTimeout", "may not use context.WithTimeout"},
		{"random", `"math/rand/v2"`, "var f = rand.Int", "may not import math/rand/v2"},
		{"files", `"os"`, "var f = os.Open", "may not import os"},
		{"log", `"log/slog"`, "var f = slog.Info", "may not import log/slog"},
		{"stdout", `"fmt"`, "func f() { fmt.Println() }", "may not use fmt.Println"},
		{"goroutine", `"sync"`, "func f() { var w sync.WaitGroup; go w.Wait() }", "may not start goroutines"},
		{"goroutine by a group", `"sync"`, "func f(w *sync.WaitGroup) { w.Go(nil) }", "(*sync.WaitGroup).Go"},
		{"map order", `"time"`, "func f(m map[string]time.Time) { for range m {} }", "range over a map"},
		{"map order of a named type", `"time"`, "type set map[string]time.Time; func f(m set) { for range m {} }", "range over a map"},
		{"map order by iterator", `"maps"`, "func f(m map[string]int) { for range maps.Keys(m) {} }", "maps.Keys has no order"},
		{"map order by collecting", `"maps"; "slices"`, "func f(m map[string]int) []int { return slices.Collect(maps.Values(m)) }", "maps.Values has no order"},
		{"map order by sync.Map", `"sync"`, "func f(m *sync.Map) { m.Range(nil) }", "(*sync.Map).Range"},
	}
	_, exports := goList(t, "context", "fmt", "log/slog", "maps", "math/rand/v2", "net/netip", "os", "slices", "sync", "time")
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			fset := token.NewFileSet()
			parsed, err := parser.ParseFile(fset, "x.go", "package state; import ("+c.imports+"); "+c.body, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, checkPurity(t, fset, []*ast.File{parsed}, exports), c.want)
		})
	}
}

func TestPinRule(t *testing.T) {
	good, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	cases := []struct{ name, from, to, want string }{
		{"as pinned", "", "", ""},
		{"newer raft", "hashicorp/raft v1.7.3", "hashicorp/raft v1.8.0", `github.com/hashicorp/raft is "v1.8.0"`},
		{"no bbolt", "go.etcd.io/bbolt v1.5.0", "example.org/other v1.5.0", `go.etcd.io/bbolt is ""`},
		{"replaced", "go 1.26.6", "go 1.26.6\nreplace go.etcd.io/bbolt => example.org/bbolt v1.5.0", "go.etcd.io/bbolt is replaced"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "go.mod")
			if err := os.WriteFile(name, []byte(strings.Replace(string(good), c.from, c.to, 1)), 0o600); err != nil {
				t.Fatal(err)
			}
			expect(t, checkPins(t, name), c.want)
		})
	}
}
