package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"berth/workspace"
)

// The exit codes; scripts rely on them.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitConflict    = 5 // conflict or limit
	exitUnavailable = 6
)

// usageError is a command line that can't be carried out as typed.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Sprintf(format, args...)}
}

// exitCode is the one map from what went wrong to an exit code.
func exitCode(err error) int {
	var process *exitStatus
	if errors.As(err, &process) {
		return process.code
	}
	var usage *usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	switch workspace.CodeOf(err) {
	case "":
		return exitOK
	case workspace.CodeInvalid, workspace.CodeMalformed:
		return exitUsage
	case workspace.CodeNotFound:
		return exitNotFound
	case workspace.CodeDenied, workspace.CodeUnauthorized:
		return exitDenied
	case workspace.CodeExists, workspace.CodeConflict, workspace.CodeKeyReused, workspace.CodeTooOld,
		workspace.CodeWorkspaceArchived, workspace.CodeKillSwitch, workspace.CodeUserBlocked,
		workspace.CodeWorkspaceBudget, workspace.CodeUserBudget, workspace.CodeSpendingLimit,
		workspace.CodeMonthlyRuns, workspace.CodeConcurrency, workspace.CodeUnpriced:
		return exitConflict
	case workspace.CodeUnavailable:
		return exitUnavailable
	}
	return exitError
}

// printError writes one sentence, then each field that breaks a rule, unless
// the sentence is about that field already. A process that was run has told its
// own errors.
func printError(w io.Writer, err error) {
	var process *exitStatus
	if errors.As(err, &process) {
		return
	}
	text := sentence(err)
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	fmt.Fprintf(w, "error: %s\n", text)
	var e *workspace.Error
	if !errors.As(err, &e) {
		return
	}
	for _, field := range slices.Sorted(maps.Keys(e.Fields)) {
		if line := printable(field + ": " + e.Fields[field]); !strings.Contains(text, line) {
			fmt.Fprintf(w, "  %s\n", line)
		}
	}
}

// sentence is an error for people: without its code, which is for programs.
func sentence(err error) string {
	text := err.Error()
	var e *workspace.Error
	if errors.As(err, &e) {
		text = strings.Replace(text, e.Error(), e.Message, 1)
	}
	return printable(text)
}
