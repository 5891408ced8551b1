package containerd

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/runtime"
)

var validReference = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._/:@-]{0,511}$`)

// Import implements runtime.Runtime. The archive is read once, as a stream; its
// images are named only after all they consist of is stored and unpacked.
func (r *Runtime) Import(ctx context.Context, stream io.Reader, name string) ([]runtime.Image, error) {
	ctx, release, err := r.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	index, err := r.store(ctx, stream)
	if err != nil {
		return nil, err
	}
	found, err := r.namedImages(ctx, index, name)
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

// store puts the archive's blobs into containerd.
func (r *Runtime) store(ctx context.Context, stream io.Reader) (ocispec.Descriptor, error) {
	plain, err := decompress(stream)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	reader, writer := io.Pipe()
	checked := make(chan error, 1)
	go func() {
		err := checkArchive(io.TeeReader(plain, writer))
		writer.CloseWithError(err) // nil: end of file
		checked <- err
	}()
	index, err := archive.ImportIndex(ctx, r.client.ContentStore(), reader)
	if err != nil && (unreachable(native(err)) || ctx.Err() != nil) {
		reader.CloseWithError(err)
		<-checked //nolint:errcheck // it has ended; what it found no longer matters
		return ocispec.Descriptor{}, r.failed(err, "store the archive")
	}
	// Let the check come to its end, so that it says what is wrong. What is left
	// of a good archive is padding.
	_, drained := io.Copy(io.Discard, reader)
	if broken := <-checked; broken != nil {
		return ocispec.Descriptor{}, broken
	}
	err = errors.Join(err, drained)
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: the archive isn't a whole OCI image layout: %w", runtime.ErrInvalid, err)
	}
	return index, nil
}

// decompress takes gzip or nothing.
func decompress(stream io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(stream)
	if magic, _ := buffered.Peek(2); string(magic) != "\x1f\x8b" {
		return buffered, nil
	}
	plain, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("%w: the archive looks compressed, but: %w", runtime.ErrInvalid, err)
	}
	return plain, nil
}

// checkArchive reads a tar to its end and refuses what an image layout never
// has. It must not stop at the tar's end marker: the other reader of the stream
// waits for the rest.
func checkArchive(stream io.Reader) error {
	archive := tar.NewReader(stream)
	layout := false
	for {
		header, err := archive.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: the archive isn't a whole tar file: %w", runtime.ErrInvalid, err)
		}
		if !filepath.IsLocal(header.Name) {
			return fmt.Errorf("%w: the archive holds the name %q, which leads out of it", runtime.ErrInvalid, header.Name)
		}
		layout = layout || filepath.Clean(header.Name) == ocispec.ImageLayoutFile
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return fmt.Errorf("%w: the archive isn't whole: %w", runtime.ErrInvalid, err)
	}
	if !layout {
		return fmt.Errorf("%w: the archive has no file %q, so it isn't an OCI image layout; make one with \"skopeo copy … oci-archive:FILE:NAME\" or \"docker buildx build -o type=oci\"",
			runtime.ErrInvalid, ocispec.ImageLayoutFile)
	}
	return nil
}

// namedImages are the images of an index under the names they are to have.
func (r *Runtime) namedImages(ctx context.Context, descriptor ocispec.Descriptor, name string) ([]images.Image, error) {
	blob, err := content.ReadBlob(ctx, r.client.ContentStore(), descriptor)
	if err != nil {
		return nil, r.failed(err, "read the archive's index")
	}
	var index ocispec.Index
	if err := json.Unmarshal(blob, &index); err != nil {
		return nil, fmt.Errorf("%w: the archive's index.json: %w", runtime.ErrInvalid, err)
	}
	if len(index.Manifests) == 0 || (name != "" && len(index.Manifests) != 1) {
		return nil, fmt.Errorf("%w: the archive holds %d images; a name can be given to an archive of exactly one",
			runtime.ErrInvalid, len(index.Manifests))
	}
	var found []images.Image
	for _, manifest := range index.Manifests {
		reference := name
		if reference == "" {
			reference = annotatedName(manifest.Annotations)
		}
		if !validReference.MatchString(reference) {
			return nil, fmt.Errorf("%w: %q can't be the name of an image; give it a name such as demo:latest", runtime.ErrInvalid, reference)
		}
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
	children := images.FilterPlatforms(images.ChildrenHandler(store), r.platform())
	err := images.WalkNotEmpty(ctx, images.SetChildrenLabels(store, children), image.Target)
	if err == nil {
		err = r.unpack(ctx, image)
	}
	if err == nil {
		var size int64
		if size, err = image.Size(ctx, store, r.platform()); err == nil {
			return runtime.Image{Reference: image.Name, Digest: image.Target.Digest.String(), Size: size}, nil
		}
	}
	if native := native(err); unreachable(native) || ctx.Err() != nil {
		return runtime.Image{}, r.failed(err, "unpack image %s", image.Name)
	}
	return runtime.Image{}, fmt.Errorf("%w: image %s of the archive isn't whole, or not for this kind of machine: %w",
		runtime.ErrInvalid, image.Name, err)
}

func (r *Runtime) nameImage(ctx context.Context, image images.Image) error {
	service := r.client.ImageService()
	_, err := service.Create(ctx, image)
	if errdefs.IsAlreadyExists(native(err)) {
		_, err = service.Update(ctx, image, "target")
	}
	return err
}
