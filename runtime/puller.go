package runtime

import "context"

// Puller fetches images from registries; part of Runtime.
type Puller interface {
	// Resolve asks the registry for the digest that a reference names now,
	// without fetching the image. A reference with a digest is checked to exist.
	// Errors as of Pull.
	Resolve(ctx context.Context, source ImageSource) (digest string, err error)
	// Pull fetches an image that isn't here and unpacks it. It is stored under
	// source.Reference, as that is. What was fetched before an error stays for
	// the next try, for a while, unless it is of no use (ErrInvalid, ErrPlatform)
	// or there is no room for it (ErrNoSpace). progress, when not
	// nil, is called now and then, and a last time at the end, never
	// concurrently. ErrDenied when the registry wants other credentials or
	// doesn't allow the image, ErrRegistry when it can't be reached or doesn't
	// speak the protocol, ErrNotFound when it has no such image, ErrPlatform
	// when it has none for this host's architecture, ErrInvalid for content
	// that isn't what its digest says, or is larger than any image should be,
	// ErrNoSpace when the disk would get full.
	Pull(ctx context.Context, source ImageSource, progress func(PullProgress)) (Image, error)
	// ImageDisk is how full the fullest disk is that images are kept on.
	ImageDisk(ctx context.Context) (DiskUse, error)
	// ImageUser is who the image's processes run as, from its own files.
	// ErrNotFound when the image isn't here.
	ImageUser(ctx context.Context, reference string) (User, error)
}

// ImageSource says where an image comes from.
type ImageSource struct {
	Reference string // such as "ghcr.io/lab/train:1" or "busybox" (docker.io/library/busybox:latest)
	Digest    string // when set, just this content is taken; the tag is ignored
	Username  string // of the reference's registry; empty: anonymous
	Password  string
}

// DiskUse is of a file system, in bytes. Total is what this daemon can use of
// it: the kernel's own reserve isn't part of it.
type DiskUse struct {
	Used, Total int64
}

// PullProgress is how far a pull is. Total grows while layers are found.
type PullProgress struct {
	DoneBytes, TotalBytes int64
	Layers, LayersDone    int
	Unpacking             bool // all is fetched
}
