package workspace

import (
	"errors"
	"fmt"
)

// Code names a class of failure. Each API face maps it to its own status; no
// other package knows HTTP numbers.
type Code string

// The codes. Upper-case ones are the admission codes of docs/domain.md, in
// the order in which their rules are checked.
const (
	CodeInvalid      Code = "invalid"      // a field's value breaks a rule; Fields says which
	CodeMalformed    Code = "malformed"    // the request can't be read at all
	CodeNotFound     Code = "not_found"    // no such object (or not yours to see)
	CodeExists       Code = "exists"       // a name or slug is taken
	CodeConflict     Code = "conflict"     // the object's state doesn't allow it
	CodeDenied       Code = "denied"       // the caller may not
	CodeUnauthorized Code = "unauthorized" // no caller, or none we know
	CodeUnavailable  Code = "unavailable"  // no leader, no runtime: try again
	CodeKeyReused    Code = "idempotency_key_reused"
	CodeTooOld       Code = "version_mismatch" // If-Match names another index
	CodeInternal     Code = "internal_error"
	CodeUnpriced     Code = "unpriced" // a money limit applies, and something asked for has no price

	CodeWorkspaceArchived Code = "WORKSPACE_ARCHIVED"
	CodeKillSwitch        Code = "KILL_SWITCH_ACTIVE"
	CodeUserBlocked       Code = "USER_BLOCKED"
	CodeWorkspaceBudget   Code = "WORKSPACE_DAILY_BUDGET_EXCEEDED"
	CodeUserBudget        Code = "USER_DAILY_BUDGET_EXCEEDED"
	CodeSpendingLimit     Code = "SPENDING_LIMIT_EXCEEDED"
	CodeMonthlyRuns       Code = "MONTHLY_RUN_LIMIT_EXCEEDED"
	CodeConcurrency       Code = "MAX_CONCURRENT_RUNS_EXCEEDED"
)

// Admission reports whether a code is one of admission's: a limit, not a fault.
func (c Code) Admission() bool {
	switch c {
	case CodeWorkspaceArchived, CodeKillSwitch, CodeUserBlocked, CodeWorkspaceBudget, CodeUserBudget, CodeSpendingLimit,
		CodeMonthlyRuns, CodeConcurrency, CodeUnpriced:
		return true
	}
	return false
}

// Error is the one error type that crosses package and process borders.
type Error struct {
	Code    Code              `json:"code" cbor:"1,keyasint"`
	Message string            `json:"message" cbor:"2,keyasint"`                    // what, where, what to do
	Fields  map[string]string `json:"fields,omitempty" cbor:"3,keyasint,omitempty"` // field path → rule broken
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// InvalidField is CodeInvalid for one field.
func InvalidField(field, format string, args ...any) *Error {
	msg := fmt.Sprintf(format, args...)
	return &Error{Code: CodeInvalid, Message: field + ": " + msg, Fields: map[string]string{field: msg}}
}

// CodeOf is the code of the first *Error in err's chain, CodeInternal when
// there is none, empty for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
