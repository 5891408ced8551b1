package api

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"berth/state"
	"berth/workspace"
)

// maxBody bounds the body of every request whose body isn't streamed.
const maxBody = 1 << 20

// streamedBodies are the operations that take their body as it comes.
var streamedBodies = map[string]bool{
	http.MethodPost + " " + base + importPath: true,
	http.MethodPut + " " + base + filesPath:   true,
}

// bodyTimeout bounds how long a body may take to come.
const bodyTimeout = 30 * time.Second

// request is what one HTTP request carries along in its context.
type request struct {
	id   string // X-Request-Id: the caller's, or ours
	idem *state.IdempotencyKey
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return &request{}
}

// around puts what every request needs around a mux: its id, a log line, bounds
// on its body, and problem documents for what the mux doesn't know.
func (a *API) around(mux *http.ServeMux, unknown string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := &request{id: requestID(r)}
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
		w.Header().Set("X-Request-Id", req.id)
		seen := &observer{ResponseWriter: w}
		began := time.Now()
		defer a.finish(seen, r, began)
		if wantsStream(r) {
			r.URL = r.URL.JoinPath("stream")
		}
		_, pattern := mux.Handler(r)
		seen.done = a.observe(routeOf(pattern), r.Method, lasting(r, pattern))
		if pattern == "" {
			writeProblem(seen, r, unmatched(mux, seen, r, unknown))
			return
		}
		if !streamedBodies[pattern] {
			if err := takeBody(seen, r, req); err != nil {
				writeProblem(seen, r, problemOf(err))
				return
			}
		}
		mux.ServeHTTP(seen, r)
	})
}

// routeOf is a pattern of the mux without its method.
func routeOf(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return path
	}
	return pattern
}

// lasting: how long the request takes is up to who made it.
func lasting(r *http.Request, pattern string) bool {
	return streamedBodies[pattern] || strings.HasSuffix(pattern, "/stream") || strings.HasSuffix(pattern, "/wait") || strings.HasSuffix(pattern, "/ledger") ||
		r.URL.Query().Get("follow") == "true" || r.Header.Get("Upgrade") != ""
}

// finish logs a request and turns a panic into an answer.
func (a *API) finish(w *observer, r *http.Request, began time.Time) {
	defer w.observed()
	log := a.log.With("request_id", requestOf(r.Context()).id, "method", r.Method, "path", r.URL.Path)
	if p := recover(); p != nil {
		if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(p)
		}
		log.Error("a handler panicked", "panic", p, "stack", string(debug.Stack()))
		if w.status == 0 {
			writeProblem(w, r, newProblem(http.StatusInternalServerError, workspace.CodeInternal, "a fault in berthd: its log says more", nil))
		}
		return
	}
	if w.status >= http.StatusInternalServerError && w.status != http.StatusServiceUnavailable {
		log.Error("request failed", "status", w.status, "duration", time.Since(began))
		return
	}
	log.Debug("request", "status", w.status, "duration", time.Since(began))
}

// observer remembers the status of an answer.
type observer struct {
	http.ResponseWriter
	status int
	done   func(status int) // nil: nobody was told that the request began
}

func (o *observer) observed() {
	if o.done != nil {
		o.done(o.status)
	}
}

func (o *observer) WriteHeader(status int) {
	if o.status == 0 {
		o.status = status
	}
	o.ResponseWriter.WriteHeader(status)
}

func (o *observer) Write(p []byte) (int, error) {
	if o.status == 0 {
		o.status = http.StatusOK
	}
	return o.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController flush and set deadlines.
func (o *observer) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// unmatched tells an unknown path from a method that a path doesn't have.
func unmatched(mux *http.ServeMux, w http.ResponseWriter, r *http.Request, unknown string) *Problem {
	probe := &discard{header: http.Header{}}
	mux.ServeHTTP(probe, r)
	if probe.status != http.StatusMethodNotAllowed {
		return newProblem(http.StatusNotFound, workspace.CodeNotFound, r.URL.Path+": "+unknown, nil)
	}
	allow := probe.header.Get("Allow")
	w.Header().Set("Allow", allow)
	return newProblem(probe.status, workspace.CodeMalformed, r.Method+" isn't possible on "+r.URL.Path+", only "+allow, nil)
}

// discard keeps only the head of an answer.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }

// requestID is the caller's when it is one that a log can hold, else ours.
func requestID(r *http.Request) string {
	given := r.Header.Get("X-Request-Id")
	sane := given != "" && len(given) <= 128 && strings.IndexFunc(given, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
	if sane {
		return given
	}
	return newID()
}

// newID is a UUIDv7. Drawing it fails only where the system has no random
// numbers, and then nothing here can work.
func newID() string { return uuid.Must(uuid.NewV7()).String() }

// takeBody reads a request's body whole and in time, so that a slow sender
// holds no handler, and makes its idempotency key.
func takeBody(w http.ResponseWriter, r *http.Request, req *request) error {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	control := http.NewResponseController(w)
	// Without deadlines (a connection of a test) the body is just read.
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	_ = control.SetReadDeadline(time.Time{})
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return newProblem(http.StatusRequestEntityTooLarge, workspace.CodeMalformed, "the body is larger than 1 MiB", nil)
	case err != nil:
		return workspace.Errorf(workspace.CodeMalformed, "the body can't be read: %v", err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	req.idem, err = idempotency(r, body)
	return err
}

// idempotency makes what the log keeps of an Idempotency-Key. The body's hash
// is keyed with the client's key, which the log doesn't hold: a secret in the
// body can't be guessed from it.
func idempotency(r *http.Request, body []byte) (*state.IdempotencyKey, error) {
	given := r.Header.Get("Idempotency-Key")
	if given == "" {
		return nil, nil
	}
	if len(given) > 255 {
		return nil, workspace.InvalidField("Idempotency-Key", "%d bytes; at most 255", len(given))
	}
	who, err := principalOf(r.Context())
	if err != nil {
		return nil, err
	}
	scope := sha256.New()
	for _, part := range []string{who.User, r.Method, r.URL.Path, given} {
		// Zero bytes can't stand in any of them.
		_, _ = io.WriteString(scope, part+"\x00")
	}
	sum := hmac.New(sha256.New, []byte(given))
	_, _ = io.WriteString(sum, r.URL.RawQuery+"\x00"+r.Header.Get("If-Match")+"\x00"+r.Header.Get(workspaceHeader)+"\x00")
	_, _ = sum.Write(canonical(body))
	return &state.IdempotencyKey{Scope: hex.EncodeToString(scope.Sum(nil)), Body: hex.EncodeToString(sum.Sum(nil))}, nil
}

// canonical is a JSON body without blanks and with its keys in order; what
// isn't JSON stays as it is, and is refused later.
func canonical(body []byte) []byte {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return body
	}
	out, err := json.Marshal(v)
	if err != nil {
		return body
	}
	return out
}
