package runtimetest

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"berth/runtime"
)

// Remote is an image that a registry offers.
type Remote struct {
	Reference          string
	Username, Password string // when set, the registry wants them
	Architecture       string // empty: this host's
	Damaged            bool   // a layer isn't what its digest says
}

// remote is what the Fake's pretended registries have.
type remote struct {
	Remote
	digest string
}

// remoteSize is of each pretended image, in bytes; it has two layers.
const remoteSize = 1000

// Offer puts an image in a pretended registry, in place of another one of that
// reference, and gives its digest. Registries that were never offered anything
// can't be reached.
func (f *Fake) Offer(offered Remote) (digest string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	digest = digestOf([]byte(offered.Reference + uuid.NewString()))
	f.remotes[offered.Reference] = remote{Remote: offered, digest: digest}
	return digest
}

// Allow makes these the only registries that images are pulled from.
func (f *Fake) Allow(hosts ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.allowed = hosts
}

// SetImageDisk is what ImageDisk gives from now on.
func (f *Fake) SetImageDisk(use runtime.DiskUse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disk = use
}

// ImageDisk implements runtime.Puller.
func (f *Fake) ImageDisk(ctx context.Context) (runtime.DiskUse, error) {
	if err := f.enter(ctx, "ImageDisk"); err != nil {
		return runtime.DiskUse{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk, nil
}

// Resolve implements runtime.Puller.
func (f *Fake) Resolve(ctx context.Context, source runtime.ImageSource) (string, error) {
	if err := f.enter(ctx, "Resolve"); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	found, err := f.ask(source)
	return found.digest, err
}

// Pull implements runtime.Puller. When one of two layers is there it goes
// through the gate "Unpack": Block("Unpack") stops it in the middle, and
// FailNext("Unpack", err) makes it fail there.
func (f *Fake) Pull(ctx context.Context, source runtime.ImageSource, progress func(runtime.PullProgress)) (runtime.Image, error) {
	if progress == nil {
		progress = func(runtime.PullProgress) {}
	}
	if err := f.enter(ctx, "Pull"); err != nil {
		return runtime.Image{}, err
	}
	f.mu.Lock()
	found, err := f.ask(source)
	f.mu.Unlock()
	if err == nil && found.Architecture != "" {
		err = fmt.Errorf("%w: image %s is made for %s", runtime.ErrPlatform, source.Reference, found.Architecture)
	}
	if err != nil {
		return runtime.Image{}, err
	}
	reached := runtime.PullProgress{DoneBytes: remoteSize / 2, TotalBytes: remoteSize, Layers: 2, LayersDone: 1}
	progress(reached)
	if err = f.enter(ctx, "Unpack"); err == nil && found.Damaged {
		err = fmt.Errorf("%w: image %s: a layer isn't what its digest says", runtime.ErrInvalid, source.Reference)
	}
	if err != nil {
		progress(reached)
		return runtime.Image{}, err
	}
	progress(runtime.PullProgress{DoneBytes: remoteSize, TotalBytes: remoteSize, Layers: 2, LayersDone: 2, Unpacking: true})
	f.mu.Lock()
	defer f.mu.Unlock()
	image := runtime.Image{
		Reference: source.Reference, Digest: found.digest, Size: remoteSize, Pulled: time.Now().UTC().Truncate(time.Second),
	}
	f.images[image.Reference] = image
	return image, nil
}

// ask is what a registry answers.
func (f *Fake) ask(source runtime.ImageSource) (remote, error) {
	name, pinned, _ := strings.Cut(source.Reference, "@")
	if source.Digest != "" {
		pinned = source.Digest
	}
	host, _, _ := strings.Cut(name, "/")
	if name == "" || strings.ContainsAny(name, " ?") || strings.ToLower(name) != name {
		return remote{}, fmt.Errorf("%w: %q can't be an image", runtime.ErrInvalid, source.Reference)
	}
	if !f.allows(host) {
		return remote{}, fmt.Errorf("%w: registry %s isn't allowed", runtime.ErrDenied, host)
	}
	known := false
	for reference, offered := range f.remotes {
		known = known || strings.HasPrefix(reference, host+"/")
		if reference != name && (pinned == "" || offered.digest != pinned) {
			continue
		}
		if offered.Username != source.Username || offered.Password != source.Password {
			return remote{}, fmt.Errorf("%w: registry %s wants another login", runtime.ErrDenied, host)
		}
		if pinned == "" || pinned == offered.digest {
			return offered, nil
		}
	}
	if !known {
		return remote{}, fmt.Errorf("%w: nothing answers at %s", runtime.ErrRegistry, host)
	}
	return remote{}, fmt.Errorf("%w: registry %s has no image %s", runtime.ErrNotFound, host, source.Reference)
}

func (f *Fake) allows(host string) bool {
	for _, allowed := range f.allowed {
		if allowed == host {
			return true
		}
	}
	return len(f.allowed) == 0
}

// ImageUser is root.
func (f *Fake) ImageUser(_ context.Context, _ string) (runtime.User, error) {
	return runtime.User{}, nil
}
