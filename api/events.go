package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"berth/state"
	"berth/workspace"
)

type listEventsInput struct {
	Paging
	After  string `query:"after" doc:"id of the last event known"`
	Object string `query:"object" doc:"id of anything that they are about"`
}

type streamEventsInput struct {
	After       string `query:"after" doc:"id of the last event known; now: only new ones; absent: all that are kept, then new ones"`
	LastEventID string `header:"Last-Event-ID" doc:"the same, sent by a client that connects again"`
	Object      string `query:"object" doc:"id of anything that they are about"`
}

const eventsPath = "/events"

// wantsStream: GET /events gives a list, or a stream to those who ask for one.
func wantsStream(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Path == base+eventsPath && strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

func (a *API) registerEvents(h huma.API) {
	route(h, http.MethodGet, eventsPath, "list-events", "The events kept, oldest first; a stream with Accept: text/event-stream", a.listEvents)
	route(h, http.MethodGet, eventsPath+"/stream", "stream-events", "Events as they happen (server-sent events)", a.streamEvents, streamBody)
}

func streamBody(op *huma.Operation) {
	op.Responses["200"] = &huma.Response{Description: "each event's data is an Event, its id resumes the stream",
		Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}}}
}

func (a *API) listEvents(ctx context.Context, in *listEventsInput) (*pageAnswer[workspace.Event], error) {
	r, err := a.reader(ctx, in.Reading)
	if err != nil {
		return nil, err
	}
	rows, err := r.Events(in.After)
	if err != nil {
		return nil, err
	}
	rows = where(rows, func(e *workspace.Event) bool { return r.shows(e, in.Object) })
	return paged(a, r, "events", &in.Paging, rows, eventKey)
}

// eventKey orders events as they happened.
func eventKey(e *workspace.Event) string {
	index, n, _ := strings.Cut(e.ID, ".")
	return fmt.Sprintf("%020s.%020s", index, n)
}

// shows reports whether an event may be seen and is about an object.
func (r *reader) shows(e *workspace.Event, object string) bool {
	about := []string{e.Object, e.Workspace, e.Instance, e.Run, e.Node}
	return r.sees(e.Workspace) && (object == "" || slices.Contains(about, object))
}

// streamEvents gives events for as long as the client and the server stay.
func (a *API) streamEvents(ctx context.Context, in *streamEventsInput) (*huma.StreamResponse, error) {
	r, err := a.reader(ctx, Reading{})
	if err != nil {
		return nil, err
	}
	after := in.LastEventID
	if after == "" {
		after = in.After
	}
	if after == "now" {
		after = fmt.Sprintf("%d.%d", r.Index(), uint32(math.MaxUint32))
	}
	if _, err := r.Events(after); err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(h huma.Context) {
		h.SetHeader("Content-Type", "text/event-stream")
		h.SetHeader("Cache-Control", "no-store")
		h.SetStatus(http.StatusOK)
		ctx, cancel := a.stoppable(ctx)
		defer cancel()
		w := h.BodyWriter().(http.ResponseWriter) // humago's body writer is the response itself
		s := &eventStream{w: w, control: http.NewResponseController(w)}
		if err := a.pour(ctx, s, after, in.Object); err != nil && ctx.Err() == nil {
			a.log.Debug("an event stream ended", "request_id", requestOf(ctx).id, "err", err)
		}
	}}, nil
}

// pour sends events until ctx ends or the client is gone.
func (a *API) pour(ctx context.Context, s *eventStream, after, object string) error {
	if err := s.comment("berth"); err != nil {
		return err
	}
	for {
		r, err := a.reader(ctx, Reading{})
		if err != nil {
			return err
		}
		rows, err := r.Events(after)
		if err != nil {
			return err
		}
		for e := range rows {
			after = e.ID
			if r.shows(e, object) {
				if err := s.event(e); err != nil {
					return err
				}
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
		quiet, cancel := context.WithTimeout(ctx, a.heartbeat)
		err = r.Wait(quiet, state.TopicEvents)
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, context.DeadlineExceeded):
			if err := s.comment("still here"); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// eventStream writes server-sent events.
type eventStream struct {
	w       io.Writer
	control *http.ResponseController
}

// writeTimeout ends a stream whose client takes nothing any more.
const writeTimeout = 30 * time.Second

func (s *eventStream) event(e *workspace.Event) error {
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event %s: %w", e.ID, err)
	}
	return s.write("id: %s\ndata: %s\n\n", e.ID, data)
}

// comment is a line that clients skip; it shows that the stream lives.
func (s *eventStream) comment(text string) error {
	if err := s.write(": %s\n\n", text); err != nil {
		return err
	}
	return s.flush()
}

func (s *eventStream) write(format string, args ...any) error {
	// Without deadlines (a recorder of a test) it is just written.
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := fmt.Fprintf(s.w, format, args...)
	return err
}

func (s *eventStream) flush() error { return s.control.Flush() }
