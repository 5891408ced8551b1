package api

import (
	"context"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Each request is told of once it begins and once it is answered, by the
// pattern of its route: its path holds names that users chose.
func TestRequestsAreObserved(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	var told []string
	tell := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf(format, args...))
	}
	r.api.observe = func(route, method string, lasting bool) func(int) {
		tell("%s %s lasting=%v", method, route, lasting)
		return func(status int) { tell("%s %d", route, status) }
	}
	r.ask("GET", "instances/secret-name", "")
	r.ask("POST", "instances", `{"name":"one","template":{"name":"demo"},"start":false}`)
	r.ask("GET", "instances/one/wait?phase=stopped", "")
	r.ask("GET", "nowhere", "")
	r.ask("DELETE", "events", "")
	ctx, cancel := context.WithCancel(WithPrincipal(t.Context(), Principal{User: "alice", Role: "cluster_admin"}))
	cancel()
	req := httptest.NewRequest("GET", "/berth/v1/events", nil).WithContext(ctx)
	req.Header.Set("Accept", "text/event-stream")
	r.api.Socket().ServeHTTP(httptest.NewRecorder(), req)
	want := []string{
		"GET /berth/v1/instances/{id} lasting=false", "/berth/v1/instances/{id} 404",
		"POST /berth/v1/instances lasting=false", "/berth/v1/instances 201",
		"GET /berth/v1/instances/{id}/wait lasting=true", "/berth/v1/instances/{id}/wait 200",
		"GET  lasting=false", " 404",
		"DELETE  lasting=false", " 405",
		"GET /berth/v1/events/stream lasting=true", "/berth/v1/events/stream 200",
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("-want +told:\n%s", diff)
	}
}
