package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"berth/workspace"
)

// Problem is the body of every answer that is no success (RFC 9457). Programs
// go by its code.
type Problem struct {
	Type      string            `json:"type" doc:"about:blank: the code says it all"`
	Title     string            `json:"title"`
	Status    int               `json:"status"`
	Detail    string            `json:"detail" doc:"what happened, where, and what to do"`
	Code      workspace.Code    `json:"code"`
	Fields    map[string]string `json:"fields,omitempty" doc:"path of a field → the rule it breaks"`
	Run       string            `json:"run,omitempty" doc:"of a denied external run: its id, kept as failed for a day"`
	RequestID string            `json:"request_id"`
}

const problemType = "application/problem+json"

// statusOf is the one place where a code becomes a status.
func statusOf(code workspace.Code) int {
	switch code {
	case workspace.CodeInvalid, workspace.CodeKeyReused:
		return http.StatusUnprocessableEntity
	case workspace.CodeMalformed:
		return http.StatusBadRequest
	case workspace.CodeNotFound:
		return http.StatusNotFound
	case workspace.CodeDenied:
		return http.StatusForbidden
	case workspace.CodeUnauthorized:
		return http.StatusUnauthorized
	case workspace.CodeUnavailable:
		return http.StatusServiceUnavailable
	case workspace.CodeTooOld:
		return http.StatusPreconditionFailed
	case workspace.CodeExists, workspace.CodeConflict,
		workspace.CodeWorkspaceArchived, workspace.CodeKillSwitch, workspace.CodeUserBlocked,
		workspace.CodeWorkspaceBudget, workspace.CodeUserBudget, workspace.CodeSpendingLimit,
		workspace.CodeMonthlyRuns, workspace.CodeConcurrency, workspace.CodeUnpriced:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// problemOf makes the problem of any error.
func problemOf(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var e *workspace.Error
	switch {
	case errors.As(err, &e):
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e = workspace.Errorf(workspace.CodeUnavailable, "it took too long: %v", err)
	default:
		e = workspace.Errorf(workspace.CodeInternal, "%v", err)
	}
	return newProblem(statusOf(e.Code), e.Code, e.Message, e.Fields)
}

func newProblem(status int, code workspace.Code, detail string, fields map[string]string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, Code: code, Fields: fields}
}

// Error makes a Problem an error; GetStatus, GetHeaders and ContentType are what
// huma asks of one.
func (p *Problem) Error() string { return string(p.Code) + ": " + p.Detail }

// GetStatus is the answer's status.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders tells a client when to ask again.
func (p *Problem) GetHeaders() http.Header {
	if p.Status == http.StatusServiceUnavailable {
		return http.Header{"Retry-After": {"1"}}
	}
	return nil
}

// ContentType is that of RFC 9457.
func (*Problem) ContentType(string) string { return problemType }

// problemTransformer gives huma's own errors (its validation) our shape, and
// every problem its request id.
func problemTransformer(ctx huma.Context, _ string, v any) (any, error) {
	if m, ok := v.(*huma.ErrorModel); ok {
		v = problemOfModel(m)
	}
	if p, ok := v.(*Problem); ok {
		p.RequestID = requestOf(ctx.Context()).id
	}
	return v, nil
}

func problemOfModel(m *huma.ErrorModel) *Problem {
	code := workspace.CodeMalformed
	switch {
	case m.Status == http.StatusUnprocessableEntity:
		code = workspace.CodeInvalid
	case m.Status >= http.StatusInternalServerError:
		code = workspace.CodeInternal
	}
	p := newProblem(m.Status, code, m.Detail, nil)
	var sentences []string
	for _, e := range m.Errors {
		// The same paths as the state's own rules: "resources.gpu_count".
		field, rule := strings.TrimPrefix(e.Location, "body."), ruleOf(e)
		if p.Fields == nil {
			p.Fields = map[string]string{}
		}
		p.Fields[field] = rule
		sentences = append(sentences, field+": "+rule)
	}
	if len(sentences) > 0 {
		p.Detail = strings.Join(sentences, "; ")
	}
	return p
}

// ruleOf is what huma says of a value. The value itself is repeated only where
// a number is wanted: others may be secrets.
func ruleOf(e *huma.ErrorDetail) string {
	value, isNumber := e.Value.(float64)
	text, bound, _ := strings.Cut(e.Message, "= ")
	switch {
	case isNumber && e.Message == validation.MsgExpectedInteger:
		return e.Message + ", not " + digits(value)
	case isNumber && strings.HasPrefix(e.Message, "expected number"):
		if limit, err := strconv.ParseFloat(bound, 64); err == nil {
			return text + "= " + digits(limit) + ", not " + digits(value)
		}
	}
	// What passes as a whole number in the description, and Go doesn't read.
	if rest, ok := strings.CutPrefix(e.Message, "json: cannot unmarshal number "); ok {
		number, _, _ := strings.Cut(rest, " ")
		return number + " isn't a whole number written as digits alone, or is too large"
	}
	return e.Message
}

// digits is a number without an exponent.
func digits(x float64) string {
	if x == math.Trunc(x) {
		return strconv.FormatFloat(x, 'f', 0, 64)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// writeProblem answers a request that doesn't reach huma.
func writeProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	p.RequestID = requestOf(r.Context()).id
	for name, values := range p.GetHeaders() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // nobody left to tell
}
