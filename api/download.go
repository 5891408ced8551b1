package api

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// errorTrailer tells, as JSON after the body, what broke an answer off that had
// begun.
const errorTrailer = "X-Berth-Error"

// download is an answer that is written as it comes. It begins with its first
// byte: until then an error can still be a problem.
type download struct {
	w       http.ResponseWriter
	control *http.ResponseController
	kind    string

	mu    sync.Mutex
	begun bool
	over  bool // its handler has ended
}

func newDownload(w http.ResponseWriter, kind string) *download {
	return &download{w: w, control: http.NewResponseController(w), kind: kind}
}

// begin sends the head.
func (d *download) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.over {
		d.head()
		_ = d.control.Flush() // the next write tells
	}
}

func (d *download) hasBegun() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.begun
}

func (d *download) head() {
	if !d.begun {
		d.begun = true
		d.w.Header().Set("Content-Type", d.kind)
		d.w.Header().Set("Cache-Control", "no-store")
		d.w.WriteHeader(http.StatusOK)
	}
}

// Write sends bytes at once.
func (d *download) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.head()
	n, err := d.w.Write(p)
	if err == nil {
		err = d.control.Flush()
	}
	return n, err
}

// headPatience is how long a follower may have to wait for the head.
const headPatience = 200 * time.Millisecond

// farewell is how long a server that shuts down takes to tell a client so.
const farewell = 2 * time.Second

// run lets work write the answer. There is no deadline for a client that is
// slow, such as a pager; one that is gone ends ctx, and so does the server's
// shutdown. An answer that may be silent begins after a moment without bytes.
func (a *API) run(ctx context.Context, d *download, silent bool, work func(context.Context) error) (*huma.StreamResponse, error) {
	ctx, cancel := a.stoppable(ctx)
	defer cancel()
	defer context.AfterFunc(a.draining, func() {
		// A client that reads nothing would hold the shutdown up.
		_ = d.control.SetWriteDeadline(time.Now().Add(farewell))
	})()
	if silent {
		defer time.AfterFunc(headPatience, d.begin).Stop()
	}
	err := a.orShutdown(work(ctx))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if err != nil && !d.begun {
		return nil, err
	}
	d.head()
	if err != nil {
		d.w.Header().Set(http.TrailerPrefix+errorTrailer, trailer(err))
	}
	return answered(), nil
}

// trailer is an error in the characters that a header may have.
func trailer(err error) string {
	text, _ := json.Marshal(errorOf(err)) // strings only
	return strconv.QuoteToASCII(string(text))
}
