package api

import (
	"encoding/json"
	"net/http"
	goruntime "runtime"

	"berth/state"
	"berth/workspace"
)

// registerHealth puts in the endpoints that ask for no caller.
func (a *API) registerHealth(mux *http.ServeMux, metrics http.Handler) {
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, map[string]string{"status": "alive"}) })
	mux.HandleFunc("GET /readyz", a.serveReady)
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, workspace.VersionInfo{Version: a.version, GoVersion: goruntime.Version(), ClusterVersion: state.Version})
	})
	if metrics != nil {
		mux.Handle("GET /metrics", metrics)
	}
}

// serveReady: ready is a server that knows its leader and whose own node takes
// work.
func (a *API) serveReady(w http.ResponseWriter, r *http.Request) {
	if err := a.ready(); err != nil {
		writeProblem(w, r, problemOf(err))
		return
	}
	writeJSON(w, map[string]string{"status": "ready"})
}

func (a *API) ready() error {
	v := a.cluster.View()
	if a.cluster.Status().Leader == "" {
		return workspace.Errorf(workspace.CodeUnavailable, "no leader is known")
	}
	if v.Cluster() == nil {
		return workspace.Errorf(workspace.CodeUnavailable, "the cluster isn't initialised yet")
	}
	n := v.Node(a.nodeID)
	switch {
	case n == nil:
		return workspace.Errorf(workspace.CodeUnavailable, "this host's agent hasn't reported yet")
	case !n.Ready:
		return workspace.Errorf(workspace.CodeUnavailable, "this host takes no work (%s): %s", n.Reason, n.Message)
	}
	return nil
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // nobody left to tell
}
