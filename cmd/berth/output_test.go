package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	"berth/workspace"
)

func TestTable(t *testing.T) {
	columns := []column[string]{
		{title: "TEXT", cell: func(s *string) string { return *s }},
		{title: "BYTES", cell: func(s *string) string { return fmt.Sprint(len(*s)) }},
	}
	var b bytes.Buffer
	painted := &table{w: &b, header: true, paint: func(cell string) string {
		return strings.ReplaceAll(cell, "free", "<free>")
	}}
	writeRows(painted, columns, []string{"free", "", "grün", "a\x1b[2Jb\nc"})
	writeRows(painted, columns, []string{"x"})
	want := "TEXT      BYTES\n" +
		"<free>      4\n" +
		"-         0\n" +
		"grün      5\n" +
		"a?[2Jb c  8\n" +
		"x         1\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
}

// A document that was written as YAML has the keys, the order and the values of
// its JSON.
func TestYAMLIsTheJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inst := workspace.Instance{
			Name:        rapid.String().Draw(t, "name"),
			Description: rapid.SampledFrom([]string{"", "yes", "null", "007", "1e3", "- a\n- b", "2026-01-02", "a: b # c", " x "}).Draw(t, "description"),
			Template:    workspace.TemplateRef{Variables: rapid.MapOfN(rapid.StringN(1, 8, -1), rapid.String(), 0, 3).Draw(t, "variables")},
			Resources:   workspace.Resources{MemoryMiB: rapid.Int64().Draw(t, "memory")},
			CreatedAt:   time.Unix(rapid.Int64Range(0, 1<<32).Draw(t, "created"), 0).UTC(),
		}
		text, err := marshalYAML(inst)
		if err != nil {
			t.Fatal(err)
		}
		if text[0] == '{' {
			t.Fatalf("still JSON:\n%s", text)
		}
		var back workspace.Instance
		if err := unmarshalYAML(text, &back); err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		want, got := asJSON(t, inst), asJSON(t, back)
		if want != got {
			t.Fatalf("wrote\n%s\nread\n%s\nfrom\n%s", want, got, text)
		}
	})
}

func asJSON(t *rapid.T, v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestYAMLKeepsTheOrder(t *testing.T) {
	text, err := marshalYAML(workspace.AccessInfo{Type: "NODE_PORT", Protocol: "HTTP", Host: "::1", Port: 1})
	if diff := cmp.Diff("type: NODE_PORT\nprotocol: HTTP\nhost: ::1\nport: 1\n", string(text)); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	var node yaml.Node
	if err := yaml.Unmarshal(text, &node); err != nil {
		t.Error(err)
	}
}

func TestExitCodes(t *testing.T) {
	for code, want := range map[workspace.Code]int{
		workspace.CodeInvalid: 2, workspace.CodeMalformed: 2, workspace.CodeNotFound: 3,
		workspace.CodeDenied: 4, workspace.CodeUnauthorized: 4,
		workspace.CodeExists: 5, workspace.CodeConflict: 5, workspace.CodeKeyReused: 5, workspace.CodeTooOld: 5,
		workspace.CodeWorkspaceArchived: 5, workspace.CodeKillSwitch: 5, workspace.CodeUserBlocked: 5,
		workspace.CodeWorkspaceBudget: 5, workspace.CodeUserBudget: 5, workspace.CodeSpendingLimit: 5,
		workspace.CodeMonthlyRuns: 5, workspace.CodeConcurrency: 5,
		workspace.CodeUnavailable: 6, workspace.CodeInternal: 1, "code_of_a_newer_daemon": 1,
	} {
		if got := exitCode(fmt.Errorf("somewhere: %w", workspace.Errorf(code, "x"))); got != want {
			t.Errorf("%s ends with %d, want %d", code, got, want)
		}
	}
	for err, want := range map[error]int{nil: 0, errors.New("x"): 1, usagef("x"): 2} {
		if got := exitCode(err); got != want {
			t.Errorf("%v ends with %d, want %d", err, got, want)
		}
	}
}

func TestPrintError(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{errors.New("plain"), "error: plain\n"},
		{workspace.Errorf(workspace.CodeNotFound, "no such \x1b[31mthing"), "error: no such ?[31mthing\n"},
		{fmt.Errorf("around: %w", workspace.Errorf(workspace.CodeConflict, "x")), "error: around: x\n"},
		{workspace.InvalidField("name", "is required"), "error: name: is required\n"},
		{&workspace.Error{Code: workspace.CodeInvalid, Message: "two fields are wrong", Fields: map[string]string{"b": "too big", "a": "too small"}},
			"error: two fields are wrong\n  a: too small\n  b: too big\n"},
	} {
		var b bytes.Buffer
		printError(&b, c.err)
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// On a terminal the line is rewritten and kept within its width; elsewhere each
// change is a line.
func TestProgress(t *testing.T) {
	var b bytes.Buffer
	p := newProgress(&b)
	for _, line := range []string{"one", "one", "two\x1b"} {
		p.show(line)
	}
	p.done()
	if diff := cmp.Diff("one\ntwo?\n", b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.Reset()
	p = &progress{w: &b, live: true}
	p.show("short")
	p.show(strings.Repeat("x", 100))
	p.done()
	want := "\r\x1b[Kshort\r\x1b[K" + strings.Repeat("x", 78) + "…\r\x1b[K"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("live (-want +got):\n%s", diff)
	}
}

func TestFormatDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 119 * time.Second: "119s", 2 * time.Minute: "2m", 119 * time.Minute: "119m",
		2 * time.Hour: "2h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * time.Hour: "41d",
	} {
		if got := formatDuration(d); got != want {
			t.Errorf("formatDuration(%v) = %s, want %s", d, got, want)
		}
	}
}
