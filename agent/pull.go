package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"berth/runtime"
	"berth/workspace"
)

// pullLimit bounds one try at an image: what was fetched stays for the next.
const pullLimit = 24 * time.Hour

// pull makes sure that the image is here, and fetches it beside the loop where
// it isn't. act bounds the look, ctx the fetching.
func (w *worker) pull(ctx, act context.Context, in input) {
	spec := in.assignment.Spec
	w.report(in, workspace.PhasePulling, reasonPulling, "looking for image "+spec.Image)
	reference, err := w.agent.findImage(act, spec.Image, spec.ImageDigest)
	switch {
	case errors.Is(err, errNoImage):
		w.fetch(ctx, in)
	case err != nil:
		w.runtimeDown(in, err)
	default:
		w.succeeded()
		w.progress.image = reference
	}
}

func (w *worker) runtimeDown(in input, err error) {
	w.explain(in, reasonRuntimeDown, "the node's container runtime doesn't answer: "+w.redact(err).Error())
	w.retryLater("get the image", err)
}

// fetch pulls the image from its registry.
func (w *worker) fetch(ctx context.Context, in input) {
	a, assignment := w.agent, in.assignment
	w.progress.reason = "" // it was told that the image is looked for, with the same reason
	w.explain(in, reasonPulling, "fetching image "+assignment.Spec.Image+" from its registry")
	source := imageSource(workspace.ImageSource{
		Reference: assignment.Spec.Image, Digest: assignment.Spec.ImageDigest, Login: assignment.Login,
	})
	w.preparing = w.beside(ctx, pullLimit, func(ctx context.Context, j *job) func(input) {
		defer a.setPulling(w.run, nil)
		image, err := a.cfg.Runtime.Pull(ctx, source, func(p runtime.PullProgress) {
			progress := pullProgress(source.Reference, p)
			a.setPulling(w.run, &progress)
		})
		if err == nil {
			_, _ = a.readImages(ctx) // it is reported with the next look at the latest
		}
		return func(in input) {
			w.preparing = nil
			switch {
			case j.useless(&in):
			case err != nil:
				w.pullFailed(in, err)
			default:
				w.succeeded()
				w.progress.image = image.Reference
			}
		}
	})
}

func (w *worker) pullFailed(in input, err error) {
	if errors.Is(err, runtime.ErrUnavailable) {
		w.runtimeDown(in, err)
		return
	}
	if errors.Is(err, runtime.ErrNoSpace) {
		nudge(w.agent.houseNow)
	}
	spec := in.assignment.Spec
	w.fail(in, "pull", pullFailure(spec.Image, spec.ImageDigest, w.agent.cfg.Facts.Name, err))
}

// pullFailure says why an image can't be had.
func pullFailure(image, digest, node string, err error) *failure {
	f := &failure{err: err, final: true}
	switch registry := workspace.RegistryOf(image); {
	case errors.Is(err, runtime.ErrDenied):
		f.reason, f.message = reasonDenied, fmt.Sprintf(
			"registry %s doesn't give image %s: if it wants a login, or another one, give it with `berth registry login %s`; node %s must allow the registry ([images] allowed_registries)", registry, image, registry, node)
	case errors.Is(err, runtime.ErrNotFound):
		f.reason, f.message = reasonImageMissing, fmt.Sprintf(
			"image %s%s is neither on node %s nor at registry %s; import it there with `berth image import`, or name another", image, digestText(digest), node, registry)
	case errors.Is(err, runtime.ErrPlatform):
		f.reason, f.message = reasonPlatform, fmt.Sprintf("image %s isn't made for the processors of node %s", image, node)
	case errors.Is(err, runtime.ErrNoSpace):
		f.reason, f.message = reasonNoSpace, fmt.Sprintf(
			"the disk of node %s has no room for image %s; remove some with `berth image rm`", node, image)
	case errors.Is(err, runtime.ErrInvalid):
		f.reason, f.message = reasonImageInvalid, fmt.Sprintf("what registry %s gives for image %s can't be used", registry, image)
	case errors.Is(err, runtime.ErrRegistry):
		f.reason, f.message, f.final = reasonRegistry, fmt.Sprintf("registry %s can't be reached from node %s for image %s", registry, node, image), false
	default:
		f.reason, f.message, f.final = reasonPullFailed, fmt.Sprintf("image %s can't be fetched to node %s", image, node), false
	}
	return f
}

func digestText(digest string) string {
	if digest == "" {
		return ""
	}
	return " (" + digest + ")"
}

// imageGone: it was here a moment ago. It is looked for again, and fetched.
func (w *worker) imageGone(in input, err error) {
	w.progress.image = ""
	w.agent.mu.Lock()
	w.agent.images = nil
	w.agent.mu.Unlock()
	if w.creations++; w.creations == createAttempts {
		w.pullFailed(in, err)
		return
	}
	w.retryLater("create", err)
}

// setPulling notes how far the pull of a run's image is, with nil that there is
// none.
func (a *Agent) setPulling(run string, p *workspace.PullProgress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p == nil {
		delete(a.pulls, run)
		return
	}
	a.pulls[run] = *p
}

func imageSource(s workspace.ImageSource) runtime.ImageSource {
	source := runtime.ImageSource{Reference: s.Reference, Digest: s.Digest}
	if s.Login != nil {
		source.Username, source.Password = s.Login.Username, s.Login.Password.Reveal()
	}
	return source
}

func pullProgress(reference string, p runtime.PullProgress) workspace.PullProgress {
	return workspace.PullProgress{
		Reference: reference, DoneBytes: p.DoneBytes, TotalBytes: p.TotalBytes,
		Layers: p.Layers, LayersDone: p.LayersDone, Unpacking: p.Unpacking,
	}
}
