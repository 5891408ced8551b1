package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"berth/workspace"
)

// How a container is asked whether it is ready.
const (
	probeLasts   = 5 * time.Second  // one question, at most
	probeHeaders = 64 << 10         // bytes of an answer's header that are read
	probeSlack   = 30 * time.Second // over the probe's own timeout, for the last question
)

// probeInterval is how long after a question the next one is put. A server that
// starts fast is seen at once, one that takes minutes isn't bothered.
func probeInterval(waited time.Duration) time.Duration {
	switch {
	case waited < 2*time.Second:
		return 10 * time.Millisecond
	case waited < 20*time.Second:
		return 50 * time.Millisecond
	case waited < time.Minute:
		return 250 * time.Millisecond
	}
	return time.Second
}

// probe asks the container beside the loop until it is ready or its time is over.
func (w *worker) probe(ctx context.Context, in input) {
	a, assignment, p := w.agent, in.assignment, *in.assignment.Spec.Probe
	timeout := time.Duration(p.Timeout) * time.Second
	if timeout == 0 {
		timeout = workspace.DefaultProbeTimeout * time.Second
	}
	w.tell(in, workspace.PhaseStarting, reasonWaiting, fmt.Sprintf(
		"its container runs; it is ready once %s, for which it has %s", describeProbe(p), timeout))
	already := max(0, a.cfg.Boottime()-ms(in.progress.life.Started)) // the time counts from the start, whoever saw it
	left := max(timeout-already, 0)
	secrets := w.secrets
	w.probing = w.beside(ctx, left+probeSlack, func(ctx context.Context, j *job) func(input) {
		last := w.askUntilReady(ctx, assignment, secrets, a.cfg.Boottime()+left)
		if last == nil {
			a.cfg.Crash(crashAfterProbe)
		}
		return func(in input) {
			w.probing = nil
			switch {
			case j.useless(&in):
			case last == nil:
				w.report(in, workspace.PhaseRunning, reasonRunning, "its container is ready"+w.progress.moved)
			default:
				w.progress.end = endWith(in.assignment, workspace.PhaseFailed, reasonNotReady, redactText(fmt.Sprintf(
					"not ready after %s: it was waited until %s; the last answer: %v", timeout, describeProbe(p), last), w.secrets))
			}
		}
	})
}

func describeProbe(p workspace.Probe) string {
	if p.HTTPPath == "" {
		return "port " + p.Port + " takes connections"
	}
	return fmt.Sprintf("port %s answers GET %s with a status below 500", p.Port, p.HTTPPath)
}

// askUntilReady gives nil once the container is ready, and the last answer when
// it isn't by the deadline. It asks once at least.
func (w *worker) askUntilReady(ctx context.Context, a *workspace.Assignment, secrets map[string]workspace.Secret, deadline time.Duration) error {
	begun := w.agent.cfg.Boottime()
	for {
		err := w.askOnce(ctx, a, secrets)
		now := w.agent.cfg.Boottime()
		if err == nil || ctx.Err() != nil || now >= deadline {
			return err
		}
		sleep(ctx, min(probeInterval(now-begun), deadline-now), nil)
	}
}

// askOnce puts one question, in the container's network, on its loopback.
func (w *worker) askOnce(ctx context.Context, a *workspace.Assignment, secrets map[string]workspace.Secret) error {
	ctx, cancel := context.WithTimeout(ctx, probeLasts)
	defer cancel()
	p := a.Spec.Probe
	port, err := strconv.Atoi(p.Port)
	if err != nil {
		return fmt.Errorf("port %q is no number", p.Port)
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return w.agent.cfg.Networks.Dial(ctx, a.Run, port)
	}
	if p.HTTPPath == "" {
		conn, err := dial(ctx, "", "")
		if err == nil {
			conn.Close()
		}
		return err
	}
	client := http.Client{
		Transport: &http.Transport{
			DialContext: dial, DisableKeepAlives: true, MaxResponseHeaderBytes: probeHeaders,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // #nosec G402 -- its own loopback, and only a status is read
		},
		// Where a redirect leads to isn't asked: it is an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, probeURL(a, secrets), nil)
	if err != nil {
		return errors.New("the probe's path makes no URL")
	}
	response, err := client.Do(request)
	if err != nil {
		var quoted *url.Error // it quotes the URL, which may hold a secret
		if errors.As(err, &quoted) {
			err = quoted.Err
		}
		return err
	}
	_, _ = io.CopyN(io.Discard, response.Body, probeHeaders) // so that a server isn't cut off in a short page
	response.Body.Close()
	if response.StatusCode >= http.StatusInternalServerError {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return nil
}

func probeURL(a *workspace.Assignment, secrets map[string]workspace.Secret) string {
	p, scheme := a.Spec.Probe, "http"
	for _, port := range a.Spec.Ports {
		if port.Number == p.Port && port.Protocol == "HTTPS" {
			scheme = "https"
		}
	}
	escaped := map[string]workspace.Secret{}
	for name, secret := range secrets {
		// A form that is right in a path and in a query.
		escaped[name] = workspace.NewSecret(strings.ReplaceAll(url.QueryEscape(secret.Reveal()), "+", "%20"))
	}
	return scheme + "://127.0.0.1:" + p.Port + fillSecrets(p.HTTPPath, escaped)
}
