package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/sync/errgroup"

	"berth/stream"
	"berth/workspace"
)

type forwardInput struct {
	Inside
	Port int `query:"port" required:"true" minimum:"1" maximum:"65535" doc:"inside the container, on its loopback"`
}

func (a *API) registerStreams(h huma.API) {
	route(h, http.MethodGet, "/instances/{id}/exec", "exec", "Run a process in an instance's container (websocket)", a.exec, upgrades(h, execFrames))
	route(h, http.MethodGet, "/instances/{id}/forward", "forward-port", "Connect to a port of an instance's container (websocket)", a.forward, upgrades(h, forwardFrames))
}

const (
	frames = "A binary message is a frame: a byte for its channel, then its content. " +
		"At most 512 KiB of a channel may be on their way: what was read is told by channel 6 (the channel, then a uint32, big endian). "
	execFrames = frames + "The first message is text: an ExecSpec as JSON. Channels: 0 stdin, 1 stdout, 2 stderr, 3 a new terminal size as JSON, " +
		"4 stdin has ended, 5 the end as JSON: {code}, or {error} with code and message. A client that goes ends the process."
	forwardFrames = frames + "Channels: 0 the connection's bytes, both ways; 4 nothing more comes this way; 5 both ways are done."
)

// upgrades describes an operation that becomes a websocket.
func upgrades(h huma.API, how string) func(*huma.Operation) {
	return func(op *huma.Operation) {
		op.DefaultStatus = http.StatusSwitchingProtocols
		op.Description = how
		op.Responses["101"] = &huma.Response{Description: "a websocket (RFC 6455)"}
		for _, t := range []reflect.Type{reflect.TypeFor[workspace.ExecSpec](), reflect.TypeFor[stream.End]()} {
			h.OpenAPI().Components.Schemas.Schema(t, true, t.Name())
		}
	}
}

// needUpgrade refuses a request that is no websocket's before anything is done
// for it.
func needUpgrade(r *http.Request) error {
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		return nil
	}
	return newProblem(http.StatusUpgradeRequired, workspace.CodeMalformed, "this path is a websocket: connect with one, or use berth exec and berth port-forward", nil)
}

// exec serves one process. Its end, or why it never began, is the last frame.
func (a *API) exec(ctx context.Context, in *Inside) (*huma.StreamResponse, error) {
	if err := needUpgrade(in.r); err != nil {
		return nil, err
	}
	run, agent, err := a.container(ctx, in)
	if err != nil {
		return nil, err
	}
	a.streams.Add(1)
	defer a.streams.Done()
	ws, err := websocket.Accept(in.w, in.r, nil)
	if err != nil {
		return answered(), nil // it has told the client
	}
	spec, specErr := readSpec(ctx, ws)
	resize := make(chan workspace.TerminalSize, 1)
	s := stream.New(ws, stream.Config{
		Receive: []stream.Channel{stream.Stdin}, Send: []stream.Channel{stream.Stdout, stream.Stderr},
		Note: func(c stream.Channel, content []byte) { noteSize(resize, c, content) },
	})
	defer s.Close()
	if err := s.SendJSON(stream.Ended, a.process(ctx, agent, run.ID, spec, specErr, s, resize)); err != nil {
		a.log.Debug("a process has ended after its client", "run", run.ID, "err", err)
	}
	return answered(), nil
}

// process runs one until it ends, the client goes or the server shuts down.
func (a *API) process(ctx context.Context, agent workspace.NodeService, run string, spec workspace.ExecSpec, err error, s *stream.Session, resize <-chan workspace.TerminalSize) stream.End {
	ctx, cancel := a.during(ctx, s)
	defer cancel()
	var code int
	if err == nil {
		code, err = agent.Exec(ctx, run, spec, workspace.ExecStreams{
			Stdin: s.Reader(stream.Stdin), Stdout: s.Writer(stream.Stdout), Stderr: s.Writer(stream.Stderr), Resize: resize,
		})
	}
	return stream.End{Code: code, Error: errorOf(a.orShutdown(err))}
}

var errClientGone = errors.New("the client is gone")

// during gives a context that ends with the session or the server. What is
// copied then ends with it: a client that takes nothing holds up no shutdown.
func (a *API) during(ctx context.Context, s *stream.Session) (context.Context, context.CancelFunc) {
	ctx, stop := a.stoppable(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-s.Done():
			cancel(errClientGone)
		case <-ctx.Done():
		}
	}()
	unhook := context.AfterFunc(ctx, func() { s.Interrupt(context.Cause(ctx)) })
	return ctx, func() { unhook(); cancel(nil); stop() }
}

// orShutdown is what a stream's client is told when the server goes: that it
// broke is only how that shows.
func (a *API) orShutdown(err error) error {
	if err != nil && a.draining.Err() != nil {
		return workspace.Errorf(workspace.CodeUnavailable, "this server is shutting down: try again")
	}
	return err
}

// errorOf is what went wrong as it is sent after an answer has begun.
func errorOf(err error) *workspace.Error {
	if err == nil {
		return nil
	}
	p := problemOf(err)
	return &workspace.Error{Code: p.Code, Message: p.Detail, Fields: p.Fields}
}

// specTimeout bounds how long a client takes to say what to run.
const specTimeout = 10 * time.Second

func readSpec(ctx context.Context, ws *websocket.Conn) (spec workspace.ExecSpec, err error) {
	ctx, cancel := context.WithTimeout(ctx, specTimeout)
	defer cancel()
	ws.SetReadLimit(maxBody)
	kind, text, err := ws.Read(ctx)
	if err != nil || kind != websocket.MessageText {
		return spec, workspace.Errorf(workspace.CodeMalformed, "the first message must be text: what to run, as JSON")
	}
	if err := json.Unmarshal(text, &spec); err != nil {
		return spec, workspace.Errorf(workspace.CodeMalformed, "what to run can't be read: %v", err)
	}
	return spec, validateExec(&spec)
}

func validateExec(spec *workspace.ExecSpec) error {
	if len(spec.Command) == 0 || spec.Command[0] == "" {
		return workspace.InvalidField("command", "is required: what to run and its arguments")
	}
	texts := append(slices.Clone(spec.Command), spec.Dir)
	for _, e := range spec.Env {
		if e.Name == "" || strings.ContainsRune(e.Name, '=') {
			return workspace.InvalidField("env", "%q can't be the name of an environment variable", e.Name)
		}
		texts = append(texts, e.Name, e.Value)
	}
	if slices.ContainsFunc(texts, func(s string) bool { return strings.ContainsRune(s, 0) }) {
		return workspace.InvalidField("command", "there is a zero byte in it")
	}
	if spec.Dir != "" && !path.IsAbs(spec.Dir) {
		return workspace.InvalidField("dir", "%q must be an absolute path", spec.Dir)
	}
	return nil
}

// noteSize keeps the newest size of a terminal for who asks next.
func noteSize(resize chan workspace.TerminalSize, c stream.Channel, content []byte) {
	var size workspace.TerminalSize
	if c != stream.Resize || json.Unmarshal(content, &size) != nil {
		return
	}
	for {
		select {
		case resize <- size:
			return
		default:
		}
		select {
		case <-resize:
		default:
		}
	}
}

// forward serves one connection. That there is nobody to connect to is a
// problem, like everything before the websocket is one.
func (a *API) forward(ctx context.Context, in *forwardInput) (*huma.StreamResponse, error) {
	if err := needUpgrade(in.r); err != nil {
		return nil, err
	}
	run, agent, err := a.container(ctx, &in.Inside)
	if err != nil {
		return nil, err
	}
	dialing, cancel := a.stoppable(ctx)
	defer cancel()
	conn, err := agent.Dial(dialing, run.ID, in.Port)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	a.streams.Add(1)
	defer a.streams.Done()
	ws, err := websocket.Accept(in.w, in.r, nil)
	if err != nil {
		return answered(), nil // it has told the client
	}
	s := stream.New(ws, stream.Config{Receive: []stream.Channel{stream.Data}, Send: []stream.Channel{stream.Data}})
	defer s.Close()
	ctx, end := a.during(ctx, s)
	defer end()
	if err := s.SendJSON(stream.Ended, stream.End{Error: errorOf(a.orShutdown(join(ctx, conn, s)))}); err != nil {
		a.log.Debug("a forwarded connection has ended after its client", "run", run.ID, "port", in.Port, "err", err)
	}
	return answered(), nil
}

// join copies both ways until both have ended, one has broken, or ctx ends.
func join(ctx context.Context, conn workspace.Stream, s *stream.Session) error {
	var both errgroup.Group
	broken := func(err error) error {
		if err != nil {
			_ = conn.Close() // ends the other copy
			s.Interrupt(err)
		}
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = broken(context.Cause(ctx)) })()
	both.Go(func() error {
		_, err := io.Copy(conn, s.Reader(stream.Data))
		if err == nil {
			err = conn.CloseWrite()
		}
		return broken(err)
	})
	both.Go(func() error {
		_, err := io.Copy(s.Writer(stream.Data), conn)
		if err == nil {
			err = s.CloseWrite()
		}
		return broken(err)
	})
	if err := both.Wait(); err != nil {
		return fmt.Errorf("the connection broke: %w", err)
	}
	return nil
}
