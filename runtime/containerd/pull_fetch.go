package containerd

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

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/runtime"
)

const (
	parallelLayers = 4
	maxNesting     = 4 // indexes in indexes
)

// foundImage is what a pull has read of an image's documents.
type foundImage struct {
	children map[digest.Digest][]ocispec.Descriptor // of each index the chosen manifest, of that all parts
	layers   []ocispec.Descriptor                   // each once
}

// documents fetches the indexes, the manifest for this host and the
// configuration. It chooses as containerd does when it unpacks.
func (p *pull) documents(ctx context.Context, target ocispec.Descriptor) (*foundImage, error) {
	found := &foundImage{children: map[digest.Digest][]ocispec.Descriptor{}}
	for range maxNesting {
		if err := p.document(ctx, target); err != nil {
			return nil, err
		}
		children, err := images.Children(ctx, p.client.ContentStore(), target)
		if err != nil {
			return nil, fmt.Errorf("%w: %s %s can't be read: %w", runtime.ErrInvalid, target.MediaType, target.Digest, err)
		}
		for i := range children {
			children[i] = plainDescriptor(children[i])
			if err := children[i].Digest.Validate(); err != nil || children[i].Size <= 0 {
				return nil, fmt.Errorf("%w: manifest %s names a part of digest %.100q and %d bytes", runtime.ErrInvalid, target.Digest, children[i].Digest, children[i].Size)
			}
		}
		if images.IsManifestType(target.MediaType) {
			found.children[target.Digest] = children
			return found, p.manifest(ctx, found, children)
		}
		child, err := p.choose(children)
		if err != nil {
			return nil, err
		}
		found.children[target.Digest] = []ocispec.Descriptor{child}
		target = child
	}
	return nil, fmt.Errorf("%w: its indexes are nested more than %d deep", runtime.ErrInvalid, maxNesting)
}

// choose takes the manifest of an index that is best for this host.
func (p *pull) choose(children []ocispec.Descriptor) (ocispec.Descriptor, error) {
	var fit []ocispec.Descriptor
	var has []string
	for _, child := range children {
		switch {
		case child.Platform == nil || p.platform().Match(*child.Platform):
			fit = append(fit, child)
		case child.Platform.OS != "unknown": // those are signatures and the like
			has = append(has, fmt.Sprintf("%.60s", platforms.Format(*child.Platform)))
		}
	}
	if len(fit) == 0 {
		return ocispec.Descriptor{}, wrongPlatform(strings.Join(has[:min(len(has), 16)], ", "))
	}
	slices.SortStableFunc(fit, func(a, b ocispec.Descriptor) int {
		switch {
		case a.Platform == nil && b.Platform == nil:
			return 0
		case a.Platform == nil:
			return 1
		case b.Platform == nil || p.platform().Less(*a.Platform, *b.Platform):
			return -1
		case p.platform().Less(*b.Platform, *a.Platform):
			return 1
		}
		return 0
	})
	return fit[0], nil
}

func wrongPlatform(has string) error {
	return fmt.Errorf("%w: the image is made for %s, this host is %s", runtime.ErrPlatform, has, platforms.Format(platforms.DefaultSpec()))
}

// manifest looks at the parts of a manifest before the large ones are fetched.
func (p *pull) manifest(ctx context.Context, found *foundImage, parts []ocispec.Descriptor) error {
	config := parts[0]
	if err := p.document(ctx, config); err != nil {
		return err
	}
	blob, err := content.ReadBlob(ctx, p.client.ContentStore(), config)
	if err != nil {
		return err
	}
	var image ocispec.Image
	if err := json.Unmarshal(blob, &image); err != nil {
		return fmt.Errorf("%w: its configuration %s can't be read: %w", runtime.ErrInvalid, config.Digest, err)
	}
	if image.Architecture != "" && !p.platform().Match(platforms.Normalize(image.Platform)) {
		return wrongPlatform(fmt.Sprintf("%.60s", platforms.Format(platforms.Normalize(image.Platform))))
	}
	var size int64
	for _, layer := range parts[1:] {
		if !images.IsLayerType(layer.MediaType) {
			return fmt.Errorf("%w: its part %s is of type %.100q, which is no layer of a container's image", runtime.ErrInvalid, layer.Digest, layer.MediaType)
		}
		if slices.ContainsFunc(found.layers, func(d ocispec.Descriptor) bool { return d.Digest == layer.Digest }) {
			continue
		}
		if size > math.MaxInt64-layer.Size || size+layer.Size > p.cfg.MaxImport {
			return fmt.Errorf("%w: its layers have more than the %d bytes that one image may take", runtime.ErrInvalid, p.cfg.MaxImport)
		}
		size += layer.Size
		p.meter.found(layer, true)
		found.layers = append(found.layers, layer)
	}
	return nil
}

// document fetches what is small, and looks at it before it is decoded.
func (p *pull) document(ctx context.Context, d ocispec.Descriptor) error {
	if d.Size > maxDocument {
		return tooLarge("blob "+d.Digest.String(), d.Size)
	}
	p.meter.found(d, false)
	if err := p.fetch(ctx, d); err != nil {
		return err
	}
	return checkDocument(ctx, p.client.ContentStore(), d)
}

// layers fetches the large parts, as long as the disk can take them.
func (p *pull) layers(ctx context.Context, found *foundImage) error {
	room, err := p.room(ctx)
	if err != nil {
		return err
	}
	var missing int64
	for _, layer := range found.layers {
		if _, err := p.client.ContentStore().Info(ctx, layer.Digest); err != nil {
			missing += layer.Size
		}
	}
	if err := room.check(missing); err != nil {
		return err
	}
	room.max = math.MaxInt64 // these bytes are counted already, and others may unpack meanwhile
	watched, stop := room.watch(ctx)
	defer stop()
	group, fetching := errgroup.WithContext(watched)
	group.SetLimit(parallelLayers)
	for _, layer := range found.layers {
		group.Go(func() error { return p.fetch(fetching, layer) })
	}
	err = group.Wait()
	if err != nil && watched.Err() != nil && ctx.Err() == nil {
		return context.Cause(watched)
	}
	return err
}

// fetch brings a blob into containerd, which checks its digest.
func (p *pull) fetch(ctx context.Context, d ocispec.Descriptor) error {
	return p.remote.ask(ctx, func(e *endpoint) error {
		again, err := p.fetchFrom(ctx, e, d)
		if again {
			_, err = p.fetchFrom(ctx, e, d)
		}
		return err
	})
}

// fetchFrom fetches a blob, or the rest of it. What can't become that blob isn't
// kept; again says that it may go well from the first byte on: what was there
// before may have been the wrong part, or the other side can't give just a rest.
func (p *pull) fetchFrom(ctx context.Context, e *endpoint, d ocispec.Descriptor) (again bool, err error) {
	store := p.client.ContentStore()
	source := &countedFetcher{fetcher: e.fetcher, meter: p.meter, blob: d.Digest}
	err = remotes.Fetch(ctx, store, source, d)
	if err == nil || errdefs.IsAlreadyExists(err) {
		p.meter.at(d.Digest, d.Size)
		return false, nil
	}
	if ctx.Err() != nil {
		return false, err
	}
	kind := native(err)
	wrong := errdefs.IsFailedPrecondition(kind) || errdefs.IsInvalidArgument(kind) ||
		source.err == nil && errors.Is(err, io.ErrUnexpectedEOF) // a whole answer, too short
	if wrong || noRange(err) {
		_ = store.Abort(ctx, remotes.MakeRefKey(ctx, d)) // there may be none
		again = source.resumed || !source.asked
	}
	switch {
	case wrong:
		return again, fmt.Errorf("%w: %s serves something else as blob %s of %d bytes", runtime.ErrInvalid, e.name(), d.Digest, d.Size)
	case source.err != nil:
		return again, source.err
	}
	return false, &storeError{p.failed(err, "store blob %s", d.Digest)}
}

func noRange(err error) bool {
	var status remoteerrors.ErrUnexpectedStatus
	return errors.As(err, &status) && status.StatusCode == http.StatusRequestedRangeNotSatisfiable
}

// countedFetcher tells the meter how far a blob is, and remembers the error of
// the other side, to tell it from containerd's.
type countedFetcher struct {
	fetcher remotes.Fetcher
	meter   *meter
	blob    digest.Digest
	asked   bool // false: what was here before is all
	resumed bool // at some byte but the first
	err     error
}

// Fetch implements remotes.Fetcher.
func (f *countedFetcher) Fetch(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	f.asked = true
	body, err := f.fetcher.Fetch(ctx, d)
	if err != nil {
		f.err = err
		return nil, err
	}
	return &countedBody{ReadCloser: body, fetcher: f}, nil
}

type countedBody struct {
	io.ReadCloser
	fetcher *countedFetcher
	offset  int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.offset += int64(n)
	b.fetcher.meter.at(b.fetcher.blob, b.offset)
	if err != nil && err != io.EOF {
		b.fetcher.err = err
	}
	return n, err
}

// Seek is for the rest of a blob.
func (b *countedBody) Seek(offset int64, whence int) (int64, error) {
	seeker, ok := b.ReadCloser.(io.Seeker)
	if !ok {
		return 0, errors.ErrUnsupported
	}
	at, err := seeker.Seek(offset, whence)
	b.offset, b.fetcher.resumed = at, at > 0
	return at, err
}

// tie makes each document keep its parts from the garbage collector.
func (p *pull) tie(ctx context.Context, image images.Image, found *foundImage) error {
	chosen := images.HandlerFunc(func(_ context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		return found.children[d.Digest], nil
	})
	return images.Walk(ctx, images.SetChildrenLabels(p.client.ContentStore(), chosen), image.Target)
}

// unpackBounded unpacks within the bounds of an import, one at a time with those.
func (p *pull) unpackBounded(ctx context.Context, image images.Image) (runtime.Image, error) {
	select {
	case p.importing <- struct{}{}:
		defer func() { <-p.importing }()
	case <-ctx.Done():
		return runtime.Image{}, context.Cause(ctx)
	}
	room, err := p.room(ctx)
	if err != nil {
		return runtime.Image{}, err
	}
	watched, stop := room.watch(ctx)
	defer stop()
	stored, err := p.unpacked(watched, image)
	if err == nil {
		err = room.check(0)
	}
	switch {
	case err == nil:
		return stored, nil
	case watched.Err() != nil && ctx.Err() == nil:
		return runtime.Image{}, context.Cause(watched)
	case errors.Is(err, runtime.ErrNoSpace), errors.Is(err, runtime.ErrInvalid):
		return runtime.Image{}, err
	case ctx.Err() != nil, unreachable(native(err)), diskFull(err):
		return runtime.Image{}, p.failed(err, "unpack image %s", image.Name)
	}
	return runtime.Image{}, fmt.Errorf("%w: its layers can't be unpacked: %w", runtime.ErrInvalid, err)
}
