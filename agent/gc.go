package agent

import (
	"context"
	"strings"
	"time"

	"berth/runtime"
)

// ImageGC says when pulled images that nothing uses are removed. Percentages are
// of the disk that they are on.
type ImageGC struct {
	High, Low int      // above High some are removed, until it is at Low; High 0: never
	Keep      []string // references that stay; * stands for any characters
}

// removeImages makes room where the disk of the images gets full. A run that
// comes meanwhile for an image that goes fetches it again.
func (a *Agent) removeImages(ctx context.Context) {
	if a.cfg.Images.High == 0 {
		return
	}
	digests, references := a.usedImages()
	removed, err := a.collector.RunOnce(ctx, time.Now(), func(image runtime.Image) bool {
		return digests[image.Digest] || references[image.Reference]
	})
	if err != nil {
		a.warn("images that nothing uses can't be removed; it will be tried again", err)
	}
	if len(removed) == 0 {
		return
	}
	a.cfg.Log.Info("images that nothing uses were removed, for the disk gets full", "images", strings.Join(removed, ", "))
	if _, err := a.readImages(ctx); err != nil {
		a.warn("the images can't be listed", err)
	}
}

// usedImages are those that runs need, by digest and by reference.
func (a *Agent) usedImages() (digests, references map[string]bool) {
	digests, references = map[string]bool{}, map[string]bool{}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, assignment := range a.assignments {
		digests[assignment.Spec.ImageDigest] = true
		references[assignment.Spec.Image] = true
	}
	return digests, references
}
