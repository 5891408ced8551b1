package agent

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"berth/runtime"
)

// imageUse is an image of this host and who uses it.
type imageUse struct {
	runtime.Image
	InUse bool      // by a container or an assignment
	Used  time.Time // when it last was, as far as is known; zero: not since it was pulled
}

// last is when an image last was of use.
func (u imageUse) last() time.Time {
	if u.Used.After(u.Pulled) {
		return u.Used
	}
	return u.Pulled
}

// imagesToRemove says which images are to go, in this order, once the disk is
// fuller than high percent: pulled ones that nothing uses, those unused for
// longest first, until it would be down to low percent. An image is taken to
// free its compressed size, which is less than it does, so look at the disk again
// after each. Images that were imported can't be pulled again and stay; so do those
// that a pattern of keep matches, in which * stands for any characters. A content
// that has several names goes with the last of them, so it stays if any of them
// does.
func imagesToRemove(images []imageUse, disk runtime.DiskUse, keep []string, high, low int) []string {
	if high <= 0 || percent(disk) <= float64(high) {
		return nil
	}
	stays := map[string]bool{} // by digest
	var candidates []imageUse
	for _, image := range images {
		if image.InUse || image.Pulled.IsZero() || onKeepList(keep, image.Reference) {
			stays[image.Digest] = true
		}
	}
	latest := map[string]time.Time{} // by digest: its names go together
	for _, image := range images {
		if stays[image.Digest] {
			continue
		}
		candidates = append(candidates, image)
		if image.last().After(latest[image.Digest]) {
			latest[image.Digest] = image.last()
		}
	}
	slices.SortFunc(candidates, func(a, b imageUse) int {
		if order := latest[a.Digest].Compare(latest[b.Digest]); order != 0 {
			return order
		}
		if order := strings.Compare(a.Digest, b.Digest); order != 0 {
			return order
		}
		return strings.Compare(a.Reference, b.Reference)
	})
	var remove []string
	before := ""
	for _, image := range candidates {
		if image.Digest != before && percent(disk) <= float64(min(low, high)) {
			break
		}
		remove = append(remove, image.Reference)
		if image.Digest != before {
			disk.Used = max(disk.Used-image.Size, 0)
		}
		before = image.Digest
	}
	return remove
}

func percent(disk runtime.DiskUse) float64 {
	if disk.Total <= 0 {
		return 0
	}
	return 100 * float64(disk.Used) / float64(disk.Total)
}

// onKeepList says whether a reference is on the keep list.
func onKeepList(keep []string, reference string) bool {
	return slices.ContainsFunc(keep, func(pattern string) bool {
		expression := strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*")
		matched, err := regexp.MatchString("^"+expression+"$", reference)
		return err == nil && matched
	})
}

// imageStore is what collecting images needs of a runtime.
type imageStore interface {
	Images(ctx context.Context) ([]runtime.Image, error)
	RemoveImage(ctx context.Context, reference string) error
	ImageDisk(ctx context.Context) (runtime.DiskUse, error)
}

// imageCollector removes images when the disk gets full. It isn't safe for
// concurrent use. What it knows of the last use doesn't outlive it: after a
// restart of the daemon an image counts from its pull, or from when it is seen in
// use.
type imageCollector struct {
	Store     imageStore
	Keep      []string
	High, Low int // percent of the disk

	used map[string]time.Time // by digest
}

// RunOnce notes which images are in use, and removes what has to go. Call it now
// and then. inUse tells by reference and digest; what it says must hold until
// RunOnce returns, but for containers, which the runtime looks after.
func (c *imageCollector) RunOnce(ctx context.Context, now time.Time, inUse func(runtime.Image) bool) (removed []string, err error) {
	images, err := c.Store.Images(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the images: %w", err)
	}
	uses := c.note(images, now, inUse)
	for high := c.High; ; high = max(min(c.Low, c.High), 1) { // once begun, down to low water
		disk, err := c.Store.ImageDisk(ctx)
		if err != nil {
			return removed, fmt.Errorf("see how full the disk of the images is: %w", err)
		}
		remove := imagesToRemove(uses, disk, c.Keep, high, c.Low)
		if len(remove) == 0 {
			return removed, nil
		}
		at := slices.IndexFunc(uses, func(u imageUse) bool { return u.Reference == remove[0] })
		switch err := c.Store.RemoveImage(ctx, remove[0]); {
		case err == nil:
			removed = append(removed, remove[0])
		case errors.Is(err, runtime.ErrInUse): // since the list was made
			uses[at].InUse = true
			continue
		case !errors.Is(err, runtime.ErrNotFound):
			return removed, fmt.Errorf("remove image %s: %w", remove[0], err)
		}
		uses = slices.Delete(uses, at, at+1)
	}
}

// note remembers the use of now, and forgets that of images that have gone.
func (c *imageCollector) note(images []runtime.Image, now time.Time, inUse func(runtime.Image) bool) []imageUse {
	used := map[string]time.Time{}
	uses := make([]imageUse, len(images))
	for i, image := range images {
		uses[i] = imageUse{Image: image, InUse: inUse(image)}
		if last := c.used[image.Digest]; last.After(used[image.Digest]) {
			used[image.Digest] = last
		}
		if uses[i].InUse {
			used[image.Digest] = now
		}
	}
	for i := range uses {
		uses[i].Used = used[uses[i].Digest]
	}
	c.used = used
	return uses
}
