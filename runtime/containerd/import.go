package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/google/uuid"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/runtime"
)

var validReference = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,511}$`)

// maxImages bounds the images of one archive.
const maxImages = 128

// Import implements runtime.Runtime. The archive is read once, as a stream; its
// images are named only after all they consist of is stored and unpacked. One
// import goes on at a time: together they would outdo the bounds of each.
func (r *Runtime) Import(ctx context.Context, stream io.Reader, name string) ([]runtime.Image, error) {
	select {
	case r.importing <- struct{}{}:
		defer func() { <-r.importing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the end of another import: %w", context.Cause(ctx))
	}
	room, err := r.room(ctx)
	if err != nil {
		return nil, err
	}
	ctx, release, err := r.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	watched, stop := room.watch(ctx)
	defer stop()
	result, err := r.importImages(watched, room, stream, name)
	if err != nil && watched.Err() != nil && ctx.Err() == nil {
		return nil, context.Cause(watched)
	}
	return result, err
}

func (r *Runtime) importImages(ctx context.Context, room *room, stream io.Reader, name string) ([]runtime.Image, error) {
	archive := layout{room: room, store: r.storeIn(ctx)}
	index, err := archive.read(stream)
	if err != nil {
		return nil, err
	}
	found, err := namedImages(index, name)
	if err != nil {
		return nil, err
	}
	result := make([]runtime.Image, len(found))
	for i, image := range found {
		if result[i], err = r.complete(ctx, image); err != nil {
			return nil, err
		}
	}
	for _, image := range found {
		if err := r.nameImage(ctx, image); err != nil {
			return nil, r.failed(err, "store image %s", image.Name)
		}
	}
	return result, nil
}

// storeIn gives the function that puts the blobs of one import into containerd,
// which checks that they have the digest of their name. An import doesn't resume
// what another one left half-written.
func (r *Runtime) storeIn(ctx context.Context) func(digest.Digest, int64, io.Reader) error {
	prefix := "berth-import-" + uuid.NewString() + "-"
	return func(name digest.Digest, size int64, reader io.Reader) error {
		source := &failingReader{reader: reader}
		err := content.WriteBlob(ctx, r.client.ContentStore(), prefix+name.Encoded(), source, ocispec.Descriptor{Digest: name, Size: size})
		switch kind := native(err); {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return r.failed(err, "store the archive")
		case source.err != nil:
			return fmt.Errorf("%w: the archive isn't a whole tar file: %w", runtime.ErrInvalid, source.err)
		case errdefs.IsFailedPrecondition(kind) || errdefs.IsInvalidArgument(kind):
			return fmt.Errorf("%w: blob %s of the archive is damaged: %w", runtime.ErrInvalid, name, err)
		}
		return r.failed(err, "store blob %s of the archive", name)
	}
}

// failingReader remembers why reading failed, to tell that from writing.
type failingReader struct {
	reader io.Reader
	err    error
}

func (f *failingReader) Read(p []byte) (int, error) {
	n, err := f.reader.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// namedImages are the images of an index under the names they are to have.
func namedImages(index *ocispec.Index, name string) ([]images.Image, error) {
	if count := len(index.Manifests); count == 0 || count > maxImages || (name != "" && count != 1) {
		return nil, fmt.Errorf("%w: the archive holds %d images; it may hold 1 to %d, and a name can be given to an archive of exactly one",
			runtime.ErrInvalid, count, maxImages)
	}
	var found []images.Image
	taken := map[string]bool{}
	for _, manifest := range index.Manifests {
		reference := name
		if reference == "" {
			reference = annotatedName(manifest.Annotations)
		}
		if !validReference.MatchString(reference) {
			return nil, fmt.Errorf("%w: %.100q can't be the name of an image; give it a name such as demo:latest", runtime.ErrInvalid, reference)
		}
		if taken[reference] {
			return nil, fmt.Errorf("%w: the archive gives the name %s to more than one image", runtime.ErrInvalid, reference)
		}
		taken[reference] = true
		manifest.Annotations = nil
		found = append(found, images.Image{Name: reference, Target: manifest})
	}
	return found, nil
}

func annotatedName(annotations map[string]string) string {
	if full := annotations[images.AnnotationImageName]; full != "" {
		return full
	}
	return annotations[ocispec.AnnotationRefName]
}

// complete makes sure that all an image consists of is here, ties it together
// for the garbage collector, and unpacks it so that Create is quick.
func (r *Runtime) complete(ctx context.Context, image images.Image) (runtime.Image, error) {
	store := r.client.ContentStore()
	children := images.FilterPlatforms(checkedChildren(store), r.platform())
	err := images.WalkNotEmpty(ctx, images.SetChildrenLabels(store, children), image.Target)
	if err == nil {
		var stored runtime.Image
		if stored, err = r.unpacked(ctx, image); err == nil {
			return stored, nil
		}
	}
	switch kind := native(err); {
	case unreachable(kind) || diskFull(err) || ctx.Err() != nil:
		return runtime.Image{}, r.failed(err, "unpack image %s", image.Name)
	case errors.Is(err, runtime.ErrInvalid):
		return runtime.Image{}, fmt.Errorf("image %s: %w", image.Name, err)
	}
	return runtime.Image{}, fmt.Errorf("%w: image %s of the archive isn't whole, or not for this kind of machine: %w",
		runtime.ErrInvalid, image.Name, err)
}

// unpacked unpacks an image that is whole.
func (r *Runtime) unpacked(ctx context.Context, image images.Image) (runtime.Image, error) {
	if err := r.unpack(ctx, image); err != nil {
		return runtime.Image{}, err
	}
	return r.described(ctx, image)
}

// checkedChildren gives what a manifest or an index refers to. No document of an
// image is decoded, here or later, that wasn't found small; each is looked at
// once.
func checkedChildren(store content.Store) images.HandlerFunc {
	seen := map[digest.Digest]bool{}
	return func(ctx context.Context, descriptor ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		manifest := images.IsManifestType(descriptor.MediaType)
		if seen[descriptor.Digest] || !manifest && !images.IsIndexType(descriptor.MediaType) {
			return nil, nil
		}
		seen[descriptor.Digest] = true
		if err := checkDocument(ctx, store, descriptor); err != nil {
			return nil, err
		}
		children, err := images.Children(ctx, store, descriptor)
		if err == nil && manifest {
			err = checkDocument(ctx, store, children[0]) // the configuration
		}
		return children, err
	}
}

func checkDocument(ctx context.Context, store content.Store, descriptor ocispec.Descriptor) error {
	info, err := store.Info(ctx, descriptor.Digest)
	if err != nil {
		return err
	}
	if info.Size > maxDocument {
		return tooLarge("blob "+descriptor.Digest.String(), info.Size)
	}
	document, err := content.ReadBlob(ctx, store, descriptor)
	if err != nil {
		return err
	}
	return checkElements("blob "+descriptor.Digest.String(), document)
}

func (r *Runtime) nameImage(ctx context.Context, image images.Image) error {
	service := r.client.ImageService()
	_, err := service.Create(ctx, image)
	if errdefs.IsAlreadyExists(native(err)) {
		_, err = service.Update(ctx, image, "target", "labels") // imported over pulled is imported
	}
	return err
}
