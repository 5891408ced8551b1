// Package api is berth's HTTP face: the native API under /berth/v1, described
// in OpenAPI 3.1 at /openapi.json, and the health endpoints. It decodes, decides
// what a caller may see, and turns the codes of workspace.Error into problem
// documents (RFC 9457); nothing else knows HTTP. What a caller may change is
// decided by the state itself.
package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"berth/state"
	"berth/workspace"
)

// base of the native API.
const base = "/berth/v1"

// Cluster is what the API needs of the replicated state and of the nodes. All
// methods are safe for concurrent use.
type Cluster interface {
	// Propose puts a command in the log and returns once it is applied here, so
	// that View shows it. Without a leader it waits for one as long as ctx, then
	// gives CodeUnavailable. What Apply refused is in the result, not the error.
	Propose(ctx context.Context, cmd state.Command, by state.Caller) (state.Result, error)
	// View is this server's state now.
	View() state.View
	// Consistent is a view after leadership was verified later than the call.
	Consistent(ctx context.Context) (state.View, error)
	// Seal encrypts a secret for the log.
	Seal(workspace.Secret) (workspace.Sealed, error)
	// Open decrypts what Seal made.
	Open(workspace.Sealed) (workspace.Secret, error)
	// Node reaches a node's agent; CodeUnavailable when it can't be reached.
	Node(id string) (workspace.NodeService, error)
	// Status of this server in the cluster.
	Status() ClusterStatus
}

// ClusterStatus is what a server knows of the cluster besides the state.
type ClusterStatus struct {
	Leader   string        // id of the leader's node, empty when none is known
	Term     uint64        // of the log
	Age      time.Duration // how old this server's state may be: time since it heard of the leader; 0 on the leader
	Warnings []string      // sentences for the operator
}

// Config of the API. All fields but Metrics and Observe are needed.
type Config struct {
	Cluster Cluster
	Version string // of this binary
	NodeID  string // of this host, where images go by default
	Log     *slog.Logger
	// Explain says where a pending run would go now, or why nowhere. A run
	// without an id is only a question.
	Explain func(view state.View, run *workspace.Run) workspace.Placement
	Metrics http.Handler // serves /metrics; nil: the path is unknown
	// Observe is told of each request: the pattern that matched, empty for none,
	// and whether its caller decides how long it lasts (a stream or a long poll).
	// What it gives is called with the status once it is answered; 0: the handler
	// said nothing.
	Observe func(route, method string, lasting bool) func(status int)
}

// API holds what the handlers share.
type API struct {
	cluster Cluster
	version string
	nodeID  string
	log     *slog.Logger
	explain func(state.View, *workspace.Run) workspace.Placement
	observe func(route, method string, lasting bool) func(status int)

	socket, public http.Handler
	openapi        []byte
	cursorKey      []byte
	now            func() time.Time
	// heartbeat is the pause between signs of life on a quiet event stream.
	heartbeat time.Duration
	// draining ends when a server shuts down: long polls and streams end too.
	draining context.Context
	drain    context.CancelFunc
	streams  sync.WaitGroup // on connections that the HTTP server has given away
}

// New makes the handlers.
func New(c Config) (*API, error) {
	if c.Cluster == nil || c.Log == nil || c.Explain == nil || c.NodeID == "" || c.Version == "" {
		return nil, errors.New("api: Config needs Cluster, Version, NodeID, Log and Explain")
	}
	a := &API{
		cluster: c.Cluster, version: c.Version, nodeID: c.NodeID, log: c.Log, explain: c.Explain,
		cursorKey: make([]byte, 32), now: time.Now, heartbeat: 15 * time.Second,
	}
	if a.observe = c.Observe; a.observe == nil {
		a.observe = func(string, string, bool) func(int) { return func(int) {} }
	}
	a.draining, a.drain = context.WithCancel(context.Background())
	if _, err := rand.Read(a.cursorKey); err != nil {
		return nil, fmt.Errorf("api: a key for cursors: %w", err)
	}
	mux := http.NewServeMux()
	native := humago.New(mux, nativeConfig(c.Version))
	a.register(native)
	var err error
	if a.openapi, err = json.Marshal(native.OpenAPI()); err != nil {
		return nil, fmt.Errorf("api: describe it: %w", err)
	}
	mux.HandleFunc("GET /openapi.json", a.serveOpenAPI)
	a.registerHealth(mux, c.Metrics)
	a.socket = a.around(mux, "there is no such path: GET /openapi.json lists them")

	health := http.NewServeMux()
	a.registerHealth(health, c.Metrics)
	a.public = a.around(health, "here are only /livez, /readyz, /version and /metrics: the API is on the control socket")
	return a, nil
}

func nativeConfig(version string) huma.Config {
	c := huma.DefaultConfig("berth", version)
	// No $schema in answers, no documentation pages from elsewhere, and the one
	// description is served by us.
	c.CreateHooks, c.SchemasPath, c.DocsPath, c.OpenAPIPath = nil, "", "", ""
	c.FieldsOptionalByDefault = true
	c.RejectUnknownQueryParameters = true
	c.Transformers = []huma.Transformer{problemTransformer}
	// Described as what they hold: their own shape is not what is sent.
	alias := c.Components.Schemas.RegisterTypeAlias
	alias(reflect.TypeFor[workspace.Optional[string]](), reflect.TypeFor[*string]())
	alias(reflect.TypeFor[workspace.Optional[int]](), reflect.TypeFor[*int]())
	alias(reflect.TypeFor[workspace.Optional[int64]](), reflect.TypeFor[*int64]())
	alias(reflect.TypeFor[workspace.Optional[workspace.Ceilings]](), reflect.TypeFor[ceilingsOrNull]())
	alias(reflect.TypeFor[workspace.Optional[time.Time]](), reflect.TypeFor[*time.Time]())
	alias(reflect.TypeFor[templateBody](), reflect.TypeFor[workspace.Template]())
	return c
}

func (a *API) register(h huma.API) {
	a.registerWorkspaces(h)
	a.registerLimits(h)
	a.registerCluster(h)
	a.registerPrices(h)
	a.registerUsage(h)
	a.registerTemplates(h)
	a.registerInstances(h)
	a.registerActions(h)
	a.registerRuns(h)
	a.registerExternal(h)
	a.registerNodes(h)
	a.registerImages(h)
	a.registerStreams(h)
	a.registerContents(h)
	a.registerAccess(h)
	a.registerVolumes(h)
	a.registerRegistries(h)
	a.registerEvents(h)
	a.registerStatus(h)
}

// Socket serves everything; every request's context must hold a Principal.
func (a *API) Socket() http.Handler { return a.socket }

// Public serves only what needs no caller: health, version and metrics.
func (a *API) Public() http.Handler { return a.public }

func (a *API) serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(a.openapi)
}

// Limits of a server. There is no write timeout: event streams and long polls
// have none; each write of a stream has its own.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// Server makes the HTTP server for one of the handlers. Its Shutdown ends the
// long polls and streams of all of them.
func (a *API) Server(h http.Handler) *http.Server {
	s := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	s.RegisterOnShutdown(a.drain)
	return s
}

// Wait returns once the websockets have ended that a server's Shutdown, which
// knows nothing of them, has told to.
func (a *API) Wait(ctx context.Context) error {
	ended := make(chan struct{})
	go func() { a.streams.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stoppable gives a context that also ends when the server shuts down.
func (a *API) stoppable(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(a.draining, cancel)
	return ctx, func() { unhook(); cancel() }
}
