package onenode

import (
	"context"
	"net/http"
	"strings"
	"sync"
)

// calls knows which requests are under way, so that a test can act at the
// moment a client has begun to listen.
type calls struct {
	mu      sync.Mutex
	open    map[string]int
	changed chan struct{} // closed and replaced at each change
}

func newCalls() *calls { return &calls{open: map[string]int{}, changed: make(chan struct{})} }

func (c *calls) around(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		what := ""
		switch {
		case strings.HasSuffix(r.URL.Path, "/wait"):
			what = "wait " + r.URL.Query().Get("after")
		case strings.HasSuffix(r.URL.Path, "/logs"):
			what = "logs"
		case strings.HasSuffix(r.URL.Path, "/exec"):
			what = "exec"
		case strings.HasPrefix(r.Header.Get("Accept"), "text/event-stream"):
			what = "events"
		}
		c.add(what, 1)
		next.ServeHTTP(w, r)
		c.add(what, -1)
		if c.count("events") > 0 && what == "" && r.Method == http.MethodGet {
			c.add("listed", 1)
		}
	})
}

func (c *calls) add(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[what] += n
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *calls) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open[what]
}

// await returns once ok holds.
func (c *calls) await(ctx context.Context, ok func(open map[string]int) bool) error {
	for {
		c.mu.Lock()
		done, changed := ok(c.open), c.changed
		c.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
