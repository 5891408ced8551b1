package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"berth/runtime"
	"berth/workspace"
)

var _ workspace.NodeService = (*Agent)(nil)

// errNoImage: no image here has the wanted digest.
var errNoImage = errors.New("no such image here")

// ImportImage stores an OCI archive's images on this host. When it returns, the
// cluster has recorded that the node has them, so that a start may follow.
func (a *Agent) ImportImage(ctx context.Context, archive io.Reader, name string) ([]workspace.NodeImage, error) {
	stored, err := a.cfg.Runtime.Import(ctx, archive, name)
	if err != nil {
		return nil, a.importError(err)
	}
	if err := a.reportImages(ctx); err != nil {
		return nil, err
	}
	return nodeImages(stored), nil
}

func (a *Agent) importError(err error) error {
	switch {
	case errors.Is(err, runtime.ErrInvalid):
		return workspace.Errorf(workspace.CodeInvalid,
			"the archive can't be taken (an OCI image layout is wanted, as `skopeo copy … oci-archive:FILE` makes one): %v", err)
	case errors.Is(err, runtime.ErrNoSpace):
		return workspace.Errorf(workspace.CodeConflict,
			"node %s has no room for the archive: free some (`berth image rm`), or take a smaller one: %v", a.cfg.Facts.Name, err)
	case away(err):
		return a.runtimeAway(err)
	}
	return workspace.Errorf(workspace.CodeInternal, "node %s could not store the archive: %v", a.cfg.Facts.Name, err)
}

// RemoveImage forgets a reference on this host, and reports it before it
// returns.
func (a *Agent) RemoveImage(ctx context.Context, reference string) error {
	err := a.cfg.Runtime.RemoveImage(ctx, reference)
	switch {
	case err == nil:
		return a.reportImages(ctx)
	case errors.Is(err, runtime.ErrNotFound):
		return workspace.Errorf(workspace.CodeNotFound,
			"node %s has no image %s; `berth image ls` shows what it has", a.cfg.Facts.Name, reference)
	case errors.Is(err, runtime.ErrInUse):
		return workspace.Errorf(workspace.CodeConflict,
			"image %s is in use on node %s by %s; stop what uses it first", reference, a.cfg.Facts.Name, a.usersOf(ctx, reference))
	case away(err):
		return a.runtimeAway(err)
	}
	return workspace.Errorf(workspace.CodeInternal, "node %s could not remove image %s: %v", a.cfg.Facts.Name, reference, err)
}

func (a *Agent) runtimeAway(err error) error {
	return workspace.Errorf(workspace.CodeUnavailable,
		"the container runtime of node %s doesn't answer; try again when `berth node ls` shows it ready: %v", a.cfg.Facts.Name, err)
}

// usersOf names the runs whose containers are made from an image.
func (a *Agent) usersOf(ctx context.Context, reference string) string {
	list, err := a.cfg.Runtime.List(ctx)
	var runs []string
	for _, c := range list {
		if c.Image == reference {
			runs = append(runs, c.ID)
		}
	}
	if err != nil || len(runs) == 0 {
		return "a run"
	}
	return "run " + strings.Join(runs, ", ")
}

func (a *Agent) reportImages(ctx context.Context) error {
	if _, err := a.readImages(ctx); err != nil {
		return a.runtimeAway(err)
	}
	if err := a.reports.flush(ctx); err != nil {
		return workspace.Errorf(workspace.CodeUnavailable,
			"done on node %s, but the cluster hasn't recorded it yet: %v", a.cfg.Facts.Name, err)
	}
	return nil
}

// findImage gives the reference under which the image with that digest is
// stored here, the asked one if it can be; errNoImage when there is none. An
// empty digest takes whatever the reference names.
func (a *Agent) findImage(ctx context.Context, reference, digest string) (string, error) {
	a.mu.Lock()
	images := a.images
	a.mu.Unlock()
	if found, ok := pick(images, reference, digest); ok {
		return found, nil
	}
	images, err := a.readImages(ctx)
	if err != nil {
		return "", err
	}
	if found, ok := pick(images, reference, digest); ok {
		return found, nil
	}
	return "", errNoImage
}

func pick(images []runtime.Image, reference, digest string) (string, bool) {
	found, ok := "", false
	for _, image := range images {
		switch {
		case image.Reference == reference && (digest == "" || image.Digest == digest):
			return reference, true
		case image.Digest == digest && digest != "":
			found, ok = image.Reference, true
		}
	}
	return found, ok
}

// readImages lists the images here and reports them when they changed.
func (a *Agent) readImages(ctx context.Context) ([]runtime.Image, error) {
	a.imaging.Lock() // a list read earlier must not be reported later
	defer a.imaging.Unlock()
	listed, err := a.cfg.Runtime.Images(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	images := append([]runtime.Image{}, listed...)
	slices.SortFunc(images, func(x, y runtime.Image) int { return strings.Compare(x.Reference, y.Reference) })
	a.mu.Lock()
	changed := a.images == nil || !slices.Equal(a.images, images)
	a.images = images
	if changed {
		reported := nodeImages(images)
		a.reports.add(workspace.Report{Images: &reported})
	}
	a.mu.Unlock()
	return images, nil
}

func nodeImages(images []runtime.Image) []workspace.NodeImage {
	list := make([]workspace.NodeImage, len(images))
	for i, image := range images {
		list[i] = workspace.NodeImage{Reference: image.Reference, Digest: image.Digest, Size: image.Size}
	}
	return list
}
